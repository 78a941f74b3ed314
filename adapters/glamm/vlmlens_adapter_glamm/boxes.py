"""Boxes of samples: regions that a prompt asks about."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from typing import Any

import torch

from vlmlens.errors import DataError
from vlmlens.samples import Sample
from vlmlens_adapter_glamm.tokenizer import BBOX

ATTRIBUTE = "boxes"
_FORM = "[[left, top, right, bottom], ...] in pixels of the image"


def fractions(sample: Sample, size: Sequence[int] | None) -> torch.Tensor:
    """A sample's boxes in fractions of its image, float32 `[boxes, 4]`.

    They are in its attribute `boxes`: a list of (left, top, right, bottom) in pixels of the upright
    image, or the same as JSON text (from tables).

    Args:
        sample: With or without boxes.
        size: (height, width) of its image, None without an image.

    Raises:
        DataError: They are something else, or do not lie in the image.
    """
    given: Any = sample.attributes.get(ATTRIBUTE)
    rows = _read(sample, given)
    if not rows:
        return torch.zeros(0, 4)
    if size is None:
        raise _wrong(sample, "has boxes and no image", "Boxes are regions of an image.")
    height, width = size
    for left, top, right, bottom in rows:
        if not (0 <= left < right <= width and 0 <= top < bottom <= height):
            raise _wrong(
                sample,
                f"has the box {[left, top, right, bottom]}, which is no region of its image of "
                f"{width} x {height} pixels",
                f"A box is {_FORM}.",
            )
    return torch.tensor(rows) / torch.tensor([width, height, width, height])


def check_count(sample: Sample, boxes: int, tokens: int) -> None:
    """Raise if a prompt does not name each box exactly once.

    Raises:
        DataError: It does not.
    """
    if boxes != tokens:
        raise _wrong(
            sample,
            f"has {boxes} boxes and {tokens} {BBOX} in its prompt",
            f"Write {BBOX} once for each box of the attribute {ATTRIBUTE!r}.",
        )


def _read(sample: Sample, given: Any) -> list[list[float]]:
    if isinstance(given, str):
        try:
            given = json.loads(given) if given.strip() else None
        except (json.JSONDecodeError, RecursionError) as error:
            raise _no_boxes(sample) from error
    if given is None:
        return []
    try:
        rows = [[float(value) for value in row] for row in given]
    except (TypeError, ValueError) as error:
        raise _no_boxes(sample) from error
    if not all(len(row) == 4 and all(map(math.isfinite, row)) for row in rows):
        raise _no_boxes(sample)
    return rows


def _no_boxes(sample: Sample) -> DataError:
    given = repr(sample.attributes.get(ATTRIBUTE))
    shown = given if len(given) <= 80 else given[:77] + "..."
    return _wrong(sample, f"has the boxes {shown}", f"Boxes are {_FORM}.")


def _wrong(sample: Sample, what: str, hint: str) -> DataError:
    return DataError(f"The sample {sample.id!r} {what}.", subject=sample.id, hint=hint)
