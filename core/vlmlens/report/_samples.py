"""The first samples on the page: small pictures with their questions and right answers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from vlmlens._clean import clean
from vlmlens.errors import ImageError
from vlmlens.report._browser import groups
from vlmlens.report._markup import Markup, join, tag
from vlmlens.report._pictures import is_small, thumbnail, to_show
from vlmlens.report._text import cut, one_line
from vlmlens.samples import Sample

if TYPE_CHECKING:
    from PIL.Image import Image

_CARDS = 12
_LONGEST_PROMPT = 300


def draw_samples(samples: Sequence[Sample]) -> Markup:
    """Cards of the first samples; questions on the same images share a card."""
    cards: dict[int, list[Sample]] = {}
    for number, sample in zip(groups(samples), samples, strict=True):
        cards.setdefault(number, []).append(sample)
    drawn = [_card(group) for group in list(cards.values())[:_CARDS]]
    return tag("div", *drawn, class_="samples")


def _card(group: Sequence[Sample]) -> Markup:
    first = group[0]
    pictures = _pictures(first)
    questions = [_question(sample) for sample in group]
    return tag("article", tag("div", pictures, class_="pictures"), tag("ul", *questions))


def _pictures(sample: Sample) -> Markup:
    if sample.video is not None and not sample.video.decoded:
        return tag("p", "a video, of which no frame was read", class_="muted")
    try:
        images = sample.open_images()
    except ImageError as error:
        return tag("p", f"No picture: {clean(error.message)}", class_="muted")
    if not images:
        return tag("p", "no image", class_="muted")
    shown = [images[number] for number in to_show(sample)]
    return join([_picture(image, one_line(sample.id)) for image in shown])


def _picture(image: Image, name: str) -> Markup:
    look = "pixels" if is_small(image) else None
    return tag("img", src=thumbnail(image), alt=f"image of sample {name}", class_=look)


def _question(sample: Sample) -> Markup:
    parts = [tag("span", cut(clean(sample.prompt), _LONGEST_PROMPT), class_="prompt")]
    if sample.label is not None:
        parts.append(tag("b", cut(clean(sample.label), 80)))
    if sample.task:
        parts.append(tag("small", cut(one_line(sample.task), 40)))
    return tag("li", join(parts, " "))
