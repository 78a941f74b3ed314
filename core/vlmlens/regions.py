"""Regions of a sample's images: named boxes and masks, from the sample's attribute `regions`.

The attribute is JSON text: an object of NAME and box `[left, top, right, bottom]`, in pixels of the
upright first image; or a list of boxes; or `{"image": k, "box": [...]}`, or
`{"image": k, "mask": "PATH.png"}`, in which pixels that are not zero are inside.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from vlmlens.errors import DataError

ATTRIBUTE = "regions"

Box = tuple[float, float, float, float]


@dataclass(frozen=True, slots=True)
class Shape:
    """A part of a region: a box or a mask.

    Args:
        image: Number of the image in the sample.
        box: (left, top, right, bottom) in pixels; None for a mask.
        mask: Path of an image of the same size; None for a box.
    """

    image: int
    box: Box | None = None
    mask: str | None = None


def regions_of(text: object, sample: str) -> dict[str, tuple[Shape, ...]]:
    """The regions in the attribute of a sample, by name.

    Args:
        text: The attribute's value; None or "": there are no regions.
        sample: The sample's id, for messages.

    Raises:
        DataError: It is something else than regions.

    >>> regions_of('{"cube": [0, 0, 8, 8]}', "s1")
    {'cube': (Shape(image=0, box=(0.0, 0.0, 8.0, 8.0), mask=None),)}
    """
    if text is None or text == "":
        return {}
    try:
        data = json.loads(text) if isinstance(text, str) else text
    except (ValueError, RecursionError) as error:
        raise _wrong(sample, f"are no JSON ({error})") from error
    if not isinstance(data, dict):
        raise _wrong(sample, "are no object of names and boxes")
    return {name: _shapes(value, name, sample) for name, value in data.items()}


def check_inside(
    regions: Mapping[str, Sequence[Shape]], sizes: Sequence[tuple[int, int]], sample: str
) -> None:
    """Raise an error if a region is about an image that there is not, or leaves its image.

    Args:
        regions: See `regions_of`.
        sizes: (width, height) of each of the sample's images, upright.
        sample: The sample's id.

    Raises:
        DataError: One does.
    """
    for name, shapes in regions.items():
        for shape in shapes:
            if shape.image >= len(sizes):
                raise _wrong(sample, f"{name!r} is in image {shape.image}; there are {len(sizes)}")
            width, height = sizes[shape.image]
            if shape.box is None:
                continue
            left, top, right, bottom = shape.box
            if min(left, top) < 0 or right > width or bottom > height:
                raise _wrong(
                    sample, f"{name!r} is {_shown(shape.box)}, outside its {width} x {height} image"
                )


def masks_in(text: object) -> list[str]:
    """The paths of masks in the attribute; none if it is not well formed."""
    found: list[str] = []

    def note(path: str) -> str:
        found.append(path)
        return path

    if isinstance(text, str):
        with_masks(text, note)
    return found


def with_masks(text: str, change: Callable[[str], str]) -> str:
    """The attribute with other paths of masks; as it is if it is not well formed."""
    if '"mask"' not in text:
        return text
    try:
        data = json.loads(text)
    except (ValueError, RecursionError):
        return text
    if not isinstance(data, dict):
        return text
    parts = [part for value in data.values() for part in _parts(value) if isinstance(part, dict)]
    for part in parts:
        if isinstance(part.get("mask"), str):
            part["mask"] = change(part["mask"])
    return json.dumps(data)


def _shapes(value: Any, name: str, sample: str) -> tuple[Shape, ...]:
    shapes = tuple(_shape(part, name, sample) for part in _parts(value))
    if not shapes:
        raise _wrong(sample, f"{name!r} is empty")
    return shapes


def _parts(value: Any) -> list[Any]:
    """One box or mask, or several, as a list."""
    several = isinstance(value, list) and not any(isinstance(each, int | float) for each in value)
    return value if several else [value]


def _shape(part: Any, name: str, sample: str) -> Shape:
    if not isinstance(part, dict):
        return Shape(0, _box(part, name, sample))
    image, mask = part.get("image", 0), part.get("mask")
    odd = set(part) - {"image", "box", "mask"}
    if odd or len({"box", "mask"} & set(part)) != 1:
        raise _wrong(sample, f"{name!r} has neither a box nor a mask, or more than one of them")
    if isinstance(image, bool) or not isinstance(image, int) or image < 0:
        raise _wrong(sample, f"{name!r} is in image {image!r}, which is no number of an image")
    if mask is None:
        return Shape(image, _box(part.get("box"), name, sample))
    if not isinstance(mask, str) or not mask:
        raise _wrong(sample, f"{name!r} has the mask {mask!r}, which is no path")
    return Shape(image, mask=mask)


def _box(value: Any, name: str, sample: str) -> Box:
    numbers = isinstance(value, list) and len(value) == 4 and all(map(_is_number, value))
    if not numbers:
        raise _wrong(sample, f"{name!r} is {_shown(value)}, no four numbers")
    left, top, right, bottom = map(float, value)
    if not (left < right and top < bottom):
        raise _wrong(sample, f"{name!r} is {_shown(value)}, which holds no pixel")
    return left, top, right, bottom


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _shown(value: Any) -> str:
    shown = [f"{v:g}" if _is_number(v) else repr(v) for v in value] if _listed(value) else None
    return f"[{', '.join(shown)}]"[:60] if shown is not None else repr(value)[:60]


def _listed(value: Any) -> bool:
    return isinstance(value, list | tuple)


def _wrong(sample: str, what: str) -> DataError:
    return DataError(
        f"The regions of the sample {sample!r} cannot be used: {what}.",
        subject=sample,
        hint='Write {"NAME": [left, top, right, bottom]}, in pixels of the upright image; see '
        "docs/extraction.md.",
    )
