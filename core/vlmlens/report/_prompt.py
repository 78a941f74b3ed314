"""A prompt as the model reads it, in a notebook: its tokens in colours, and patches on the picture.

Everything comes from token layouts, so it holds for every family: rows, kinds, texts and places.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from vlmlens.errors import VlmlensError
from vlmlens.passes.batch import Batch
from vlmlens.report._markup import Markup, join, tag
from vlmlens.report._pictures import thumbnail
from vlmlens.report._text import cut, one_line, plural
from vlmlens.rows.layouts import PatchGrid, TokenKind, TokenLayout

if TYPE_CHECKING:
    from vlmlens.samples import Sample

COLOURS = {
    TokenKind.TEXT: "#d6e8fb",
    TokenKind.IMAGE: "#fde3b5",
    TokenKind.SPECIAL: "#e4e4e4",
    TokenKind.ANSWER: "#d3f0d5",
    TokenKind.VIRTUAL: "#ead9f7",
}
_CHIP = (
    "color:#111;padding:1px 3px;margin:1px;border-radius:3px;white-space:pre;display:inline-block"
)
_WHOLE = (TokenKind.IMAGE, TokenKind.VIRTUAL)
"""Kinds whose rows are shown together: they have no text."""
_CHIPS = 400
_LETTERS = 60
_VIEWS = 12
_SIDE = 180
_TIPS = 1024
"""Up to so many patches, each says its row and column."""
_SAMPLES = 3
_PATCH = COLOURS[TokenKind.IMAGE]


def batch_html(batch: Batch) -> str:
    """The prompts of the first samples of a batch."""
    shown = [
        tag("div", tag("p", tag("b", one_line(sample.id))), layout_html(batch.layout(i)))
        for i, sample in enumerate(batch.samples[:_SAMPLES])
    ]
    left = len(batch) - len(shown)
    more = tag("p", f"and {plural(left, 'more sample')}: .layout(i)") if left > 0 else ""
    return tag("div", tag("p", plural(len(batch), "sample")), *shown, more)


def layout_html(layout: TokenLayout) -> Markup:
    """A prompt's tokens in reading order, coloured by kind, over its pictures with their patches.

    Without texts of tokens the rows are numbered; without pictures the patches are drawn alone.
    """
    counts = [(kind, len(layout.positions(kind))) for kind in TokenKind]
    key = [_chip(kind, f"{number} {kind.name.lower()}") for kind, number in counts if number]
    chips = list(_chips(layout))
    more = f" and {plural(len(chips) - _CHIPS, 'more')}" if len(chips) > _CHIPS else ""
    sample = None if layout.names is None else layout.names.sample
    grids = _pictures(layout, sample) if layout.patches is None else _views(layout.patches, sample)
    return tag(
        "div",
        tag("p", plural(len(layout), "row"), ": ", *key),
        tag("p", *chips[:_CHIPS], more, style="line-height:2"),
        *grids,
    )


def _chips(layout: TokenLayout) -> Iterator[Markup]:
    """The rows in order: one chip per token, or one per run of rows without text."""
    texts = layout.texts()
    for kind, places in groupby(range(len(layout)), lambda i: TokenKind(int(layout.kinds[i]))):
        rows = list(places)
        if texts is None or kind in _WHOLE:
            yield _run(kind, rows)
        else:
            for place in rows:
                yield _token(layout, kind, place, texts[place])


def _run(kind: TokenKind, rows: Sequence[int]) -> Markup:
    label = f"{kind.name.lower()} [{rows[0]}:{rows[-1] + 1}]"
    return _chip(kind, label, plural(len(rows), "row"))


def _token(layout: TokenLayout, kind: TokenKind, place: int, text: str) -> Markup:
    number = "" if layout.token_ids is None else f", token {int(layout.token_ids[place])}"
    shown = cut(text.replace("\n", "⏎"), _LETTERS)
    return _chip(kind, one_line(shown) or "…", f"row {place}{number}, {kind.name.lower()}")


def _chip(kind: TokenKind, label: str, title: str | None = None) -> Markup:
    return tag("span", label, style=f"background:{COLOURS[kind]};{_CHIP}", title=title)


# ---------------------------------------------------------------------- patches on the picture


@dataclass(frozen=True, slots=True)
class _Picture:
    """One of a sample's pictures, made small, or why it is not shown.

    Args:
        wide: Its width in the drawing; `high` likewise.
        data: The picture as a `data:` URI; empty if there is none.
        why: Why there is none.
    """

    wide: float = _SIDE
    high: float = _SIDE
    data: str = ""
    why: str = ""

    @classmethod
    def of(cls, sample: Sample | None, number: int) -> _Picture:
        """The picture of that number."""
        if sample is None or number >= len(sample.images):
            return cls()
        try:
            alone = replace(sample, images=(sample.images[number],), video=None)
            (image,) = alone.open_images()
        except VlmlensError as error:
            return cls(why=error.message)
        scale = _SIDE / max(image.size)
        wide, high = (max(length * scale, 1.0) for length in image.size)
        return cls(wide, high, thumbnail(image, 2 * _SIDE))


def _pictures(layout: TokenLayout, sample: Sample | None) -> Iterator[Markup]:
    """The pictures alone, where rows stand for them, but not for places in them."""
    if sample is None or not len(layout.positions(TokenKind.IMAGE)):
        return
    for number in range(min(len(sample.images), _VIEWS)):
        picture = _Picture.of(sample, number)
        caption = f"image {number}: no patches are known for its rows"
        yield _figure(_framed(picture, Markup(""), np.zeros((0, 4))), caption, picture)


def _views(grid: PatchGrid, sample: Sample | None) -> Iterator[Markup]:
    """Each view of each picture with its patches, as many as are shown."""
    found: dict[tuple[int, str], list[int]] = {}
    for place, view in enumerate(grid.view):
        found.setdefault((int(grid.image[place]), view), []).append(place)
    pictures: dict[int, _Picture] = {}
    for (number, view), places in list(found.items())[:_VIEWS]:
        if number not in pictures:
            pictures[number] = _Picture.of(sample, number)
        picture = pictures[number]
        size = f"{int(grid.rows[places[0]])} x {int(grid.cols[places[0]])}"
        drawn = _drawn(grid, places, picture, tips=len(grid) <= _TIPS)
        yield _figure(drawn, f"image {number}, {view}: {size}", picture)
    if len(found) > _VIEWS:
        yield tag("p", f"and {plural(len(found) - _VIEWS, 'more view')}")


def _figure(drawn: Markup, caption: str, picture: _Picture) -> Markup:
    said = one_line(caption + (f" ({picture.why})" if picture.why else ""))
    return tag("figure", drawn, tag("figcaption", said), style="display:inline-block")


def _drawn(grid: PatchGrid, places: Sequence[int], picture: _Picture, *, tips: bool) -> Markup:
    """The patches of some rows on their picture. Patches may lie beyond it, where it is padded."""
    known = [place for place in places if np.isfinite(grid.box[place]).all()]
    size = [picture.wide, picture.high, picture.wide, picture.high]
    boxes = np.asarray(grid.box, np.float64)[known] * size
    patches = _tipped(grid, known, boxes) if tips else _outlined(boxes)
    return _framed(picture, patches, boxes)


def _framed(picture: _Picture, patches: Markup, boxes: npt.NDArray[np.float64]) -> Markup:
    """A picture under its patches, with room for those beyond it."""
    reach = np.vstack([boxes, [0.0, 0.0, picture.wide, picture.high]])
    left, top = reach[:, :2].min(0) - 4
    right, bottom = reach[:, 2:].max(0) + 4
    return tag(
        "svg",
        _image(picture),
        tag("g", patches, fill=_PATCH, fill_opacity="0.12", stroke="#ffb000", stroke_width="0.8"),
        tag("rect", width=picture.wide, height=picture.high, fill="none", stroke="#333"),
        viewBox=f"{left:.1f} {top:.1f} {right - left:.1f} {bottom - top:.1f}",
        width=round(right - left),
        height=round(bottom - top),
    )


def _image(picture: _Picture) -> Markup:
    if not picture.data:
        return Markup("")
    size = {"width": picture.wide, "height": picture.high}
    return tag("image", href=picture.data, preserveAspectRatio="none", **size)


def _tipped(grid: PatchGrid, places: Sequence[int], boxes: npt.NDArray[np.float64]) -> Markup:
    """A rectangle per patch, which says where in the grid it is when it is pointed at."""
    return join(
        tag(
            "rect",
            tag("title", f"row {int(grid.row[place])}, column {int(grid.col[place])}"),
            x=left,
            y=top,
            width=right - left,
            height=bottom - top,
        )
        for place, (left, top, right, bottom) in zip(places, boxes.tolist(), strict=True)
    )


def _outlined(boxes: npt.NDArray[np.float64]) -> Markup:
    """All patches as one path: many rectangles would make a large page."""
    parts = (
        f"M{left:.1f} {top:.1f}H{right:.1f}V{bottom:.1f}H{left:.1f}Z"
        for left, top, right, bottom in boxes.tolist()
    )
    return tag("path", d="".join(parts))
