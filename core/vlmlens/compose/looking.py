"""The questions of a look: pictures and texts as samples, checked before anything is loaded."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from vlmlens.covers import COVERED, Cover, covered
from vlmlens.errors import DataError, ImageError
from vlmlens.images import ImageRules
from vlmlens.pairs import ROLES, same_pixels
from vlmlens.samples import Sample
from vlmlens.video_files import is_video
from vlmlens.videos import Video

if TYPE_CHECKING:
    from PIL.Image import Image

    from vlmlens.spec.model import RunSpec

Picture: TypeAlias = "str | os.PathLike[str] | Image"

ANALYSIS = "look"
"""The analysis that looks."""

_DEMO = (
    "No model is named, so the demo model answers. It knows nothing but drawn scenes: for photos, "
    "name another adapter and its model."
)
_URL = re.compile(r"[a-z][a-z0-9+.-]+://", re.IGNORECASE)


def questions(
    pictures: Sequence[Picture],
    texts: Sequence[str],
    *,
    choices: Sequence[str] = (),
    against: Picture | None = None,
    against_question: str | None = None,
    covers: Sequence[Cover] = (),
    rules: ImageRules | None = None,
) -> list[Sample]:
    """Every text asked about every picture, each followed by what it is compared to.

    Args:
        pictures: Paths or Pillow images; paths of videos, too.
        texts: The questions.
        choices: The answers to choose from, or a text with commas between them; none: the model
            writes.
        against: Another picture for the same question.
        against_question: Another question about the same picture.
        covers: Parts of the pictures that are hidden; not of `against`.
        rules: How images become 8-bit RGB.

    Raises:
        ImageError: A picture is no file, or cannot be read.
        DataError: A text is empty, or there is nothing to compare.
    """
    if not pictures:
        raise DataError("There is no picture to look at.", hint="Give an image file.")
    asked = _texts(texts)
    options = _choices(choices)
    shown = [_checked(picture, rules) for picture in pictures]
    several = len(asked) > 1
    found: list[Sample] = []
    for name, picture in zip(_names(shown), shown, strict=True):
        for number, text in enumerate(asked, 1):
            label = f"{name}#{number}" if several else name
            whole = _showing(Sample(label, text, choices=options, group=name), picture)
            said = {COVERED: " and ".join(map(str, covers))} if covers else {}
            own = replace(covered(whole, covers), attributes=said)
            compared = against is not None or against_question is not None
            found += _pair(own, against, against_question, rules) if compared else [own]
    return found


def checked(text: str, choices: Sequence[str] = ()) -> tuple[str, tuple[str, ...]]:
    """A question and its choices as they are asked.

    Raises:
        DataError: The text is empty, or there is only one choice.
    """
    (asked,) = _texts([text])
    return asked, _choices(choices)


def notes_on(spec: RunSpec) -> list[str]:
    """What to know of the model before it is asked."""
    return [_DEMO] if spec.adapter == "auto" and spec.model is None else []


def _pair(
    own: Sample, against: Picture | None, text: str | None, rules: ImageRules | None
) -> list[Sample]:
    if against is not None and text is not None:
        raise DataError(
            "A look compares to another picture or to another question, not to both at once.",
            subject="against",
            hint="Leave --against or --against-question out.",
        )
    clean, corrupted = ROLES
    if against is not None:
        whole = replace(own, id=f"{own.id} (against)", attributes={})
        other = _showing(whole, _checked(against, rules))
        if own.video == other.video and (own.video is not None or same_pixels(own, other)):
            raise DataError(
                f"The picture to compare to shows the same as {own.id!r}, so nothing differs.",
                subject="against",
                hint="Give another picture to --against.",
            )
    else:
        (other_text,) = _texts([text or ""])
        other = replace(own, id=f"{own.id} (against)", prompt=other_text)
        if other_text == own.prompt:
            raise DataError(
                f"The question to compare to is the same: {other_text!r}.",
                subject="against_question",
                hint="Give another question to --against-question.",
            )
    return [
        replace(one, attributes={**one.attributes, "pair": own.id, "role": role})
        for one, role in ((own, clean), (other, corrupted))
    ]


def _texts(texts: Iterable[str]) -> list[str]:
    found = list(dict.fromkeys(texts))
    for text in found or [""]:
        if not text.strip():
            raise DataError(
                "The question is empty.",
                subject="question",
                hint="Ask something: vlmlens look photo.jpg 'What is it?'.",
            )
    return found


def _choices(given: Sequence[str]) -> tuple[str, ...]:
    choices = given.split(",") if isinstance(given, str) else given
    found = tuple(dict.fromkeys(choice.strip() for choice in choices))
    if choices and (len(found) < 2 or not all(found)):
        raise DataError(
            f"The choices are {', '.join(map(repr, choices))}; two or more different ones are "
            "needed.",
            subject="choices",
            hint="Separate them by commas: --choices red,green,blue.",
        )
    return found


def _checked(picture: Picture, rules: ImageRules | None) -> str | Image:
    """A picture that can be opened; a path is whole, so that it is found from everywhere."""
    if not isinstance(picture, str | os.PathLike):
        if not hasattr(picture, "getexif"):
            raise DataError(
                f"A picture is a {type(picture).__name__}.",
                subject="image",
                hint="Give a path or a Pillow image (of an array: PIL.Image.fromarray).",
            )
        return picture
    given = os.fspath(picture)
    if _URL.match(given):
        raise ImageError(
            f"{given!r} is an address, and a look takes files: nothing is downloaded.",
            subject=given,
            hint="Save the picture and name the file.",
        )
    path = Path(given).expanduser()
    if not path.is_file():
        what = "is a folder" if path.is_dir() else "does not exist"
        raise ImageError(
            f"The picture {given!r} {what}.",
            subject=given,
            hint="Name an image or a video. For folders: vlmlens run --data FOLDER --prompt '...' "
            f"--analysis {ANALYSIS}.",
        )
    whole = str(path.resolve())
    if is_video(whole):
        return whole
    sample = Sample(given, "", (whole,))
    (sample if rules is None else replace(sample, rules=rules)).open_images()
    return whole


def _showing(sample: Sample, picture: str | Image) -> Sample:
    """The sample with a picture or a video, whose frames are read when the run is composed."""
    if isinstance(picture, str) and is_video(picture):
        return replace(sample, images=(), video=Video(picture))
    return replace(sample, images=(picture,), video=None)


def _names(pictures: Sequence[str | Image]) -> list[str]:
    """A short name for each: its file's, or its number."""
    names = [
        Path(each).name if isinstance(each, str) else f"picture {number}"
        for number, each in enumerate(pictures, 1)
    ]
    if len(set(names)) == len(names):
        return names
    return [f"{number} {name}" for number, name in enumerate(names, 1)]
