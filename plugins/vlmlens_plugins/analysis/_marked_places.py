"""Patch features at the marked points and in the marked areas of a sample's images."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from vlmlens.errors import DataError, SelectorError
from vlmlens.regions import ATTRIBUTE as REGIONS
from vlmlens.regions import regions_of
from vlmlens.rows.sample_regions import SampleRegions
from vlmlens.samples import Sample
from vlmlens.tokens import PatchGrid
from vlmlens_plugins.analysis._blank_images import image_sizes

Floats = npt.NDArray[np.float64]

POINTS = "points"
"""The attribute with marked points: JSON, `{"MARK": {"image": 0, "x": 0.5, "y": 0.25}, ...}`."""


@dataclass(frozen=True, slots=True)
class Place:
    """A marked point.

    Args:
        image: Number of the image in the sample.
        x: Fraction of the image's width, from 0 at the left edge to 1; `y` of its height, from
            the top.
    """

    image: int
    x: float
    y: float


@dataclass(frozen=True, slots=True)
class Patches:
    """The patch features of one sample at one site.

    Args:
        rows: `[patches, width]`, in the order of the grid.
        grid: Where each row lies.
    """

    rows: npt.NDArray[Any]
    grid: PatchGrid

    def __post_init__(self) -> None:
        if self.rows.ndim != 2 or len(self.rows) != len(self.grid):
            raise ValueError(f"rows are {self.rows.shape}; the grid has {len(self.grid)} patches")


def points_of(sample: Sample) -> dict[str, Place]:
    """The marked points of a sample, by mark; none if it has none.

    Raises:
        DataError: The attribute `points` is something else.

    >>> points_of(Sample("1", "", attributes={"points": '{"A": {"x": 0.5, "y": 0.25}}'}))
    {'A': Place(image=0, x=0.5, y=0.25)}
    """
    text = sample.attributes.get(POINTS)
    if text is None or text == "":
        return {}
    try:
        data = json.loads(str(text))
        return {name: _place(each) for name, each in data.items()}
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise DataError(
            f"The points of the sample {sample.id!r} cannot be used ({error}).",
            subject=sample.id,
            hint='Write {"MARK": {"image": 0, "x": 0.5, "y": 0.25}}, with x and y as fractions of '
            "the image's width and height.",
        ) from error


def feature_at(patches: Patches, place: Place) -> Floats:
    """float64 `[width]`: the feature at a point, interpolated bilinearly between patch centers.

    Of several views of the image, the one with the smallest patches that holds the point is read.
    Beyond the outermost centers, the outermost are taken. Patches that the model left out have no
    weight.

    Raises:
        SelectorError: No patch is there.
    """
    grid = patches.grid
    where = _view_at(grid, place)
    row_at, rows = _ahead(grid.row[where], _middles(grid.box[where], 1), place.y)
    col_at, cols = _ahead(grid.col[where], _middles(grid.box[where], 0), place.x)
    number = {
        (int(r), int(c)): int(i)
        for r, c, i in zip(grid.row[where], grid.col[where], where, strict=True)
    }
    corners = [
        (number[row, col], row_weight * col_weight)
        for row, row_weight in zip(rows, (1 - row_at, row_at), strict=True)
        for col, col_weight in zip(cols, (1 - col_at, col_at), strict=True)
        if row_weight * col_weight > 0 and (row, col) in number
    ]
    if not corners:
        raise _nothing_there(place)
    weights = np.array([weight for _, weight in corners])
    read = patches.rows[[i for i, _ in corners]].astype(np.float64)
    with np.errstate(invalid="ignore"):
        found: Floats = (weights[:, None] / weights.sum() * read).sum(0)
    return found


def features_in(patches: Patches, sample: Sample) -> dict[str, Floats]:
    """float64 `[k, width]` by region of the sample: the features of all patches that overlap it.

    Raises:
        DataError: The regions cannot be used.
        SelectorError: No patch is in one of them.
    """
    shapes = regions_of(sample.attributes.get(REGIONS), sample.id)
    known = SampleRegions(sample, image_sizes(sample))
    found = {}
    for name, parts in shapes.items():
        inside = np.zeros(len(patches.grid), bool)
        for shape in parts:
            here = patches.grid.of_image(shape.image)
            boxes = patches.grid.box[here].astype(np.float64)
            inside[here] |= known.overlaps(shape, boxes)
        if not inside.any():
            raise SelectorError(
                f"No patch of the sample {sample.id!r} is in its region {name!r}.",
                subject=name,
                hint="The processor may cut that part of the image off.",
            )
        found[name] = patches.rows[inside].astype(np.float64)
    return found


def _place(data: Mapping[str, Any]) -> Place:
    image, x, y = data.get("image", 0), float(data["x"]), float(data["y"])
    if isinstance(image, bool) or not isinstance(image, int) or image < 0:
        raise ValueError(f"{image!r} is no number of an image")
    if not (0 <= x <= 1 and 0 <= y <= 1):
        raise ValueError(f"({x:g}, {y:g}) is outside the image")
    return Place(image, x, y)


def _view_at(grid: PatchGrid, place: Place) -> npt.NDArray[np.int64]:
    """The patches of the view that is read; those without a place are left out."""
    usable = grid.of_image(place.image) & np.isfinite(grid.box).all(1)
    best: npt.NDArray[np.int64] = np.zeros(0, np.int64)
    side = math.inf
    for view in dict.fromkeys(np.asarray(grid.view, object)[usable].tolist()):
        of_view = np.array([name == view for name in grid.view])
        where = np.flatnonzero(usable & of_view)
        left, top = grid.box[where, :2].min(0)
        right, bottom = grid.box[where, 2:].max(0)
        size = float((grid.box[where, 2] - grid.box[where, 0]).mean())
        holds = left <= place.x <= right and top <= place.y <= bottom
        if holds and size < side:
            best, side = where, size
    if not len(best):
        raise _nothing_there(place)
    return best


def _middles(box: npt.NDArray[np.float32], axis: int) -> Floats:
    found: Floats = box[:, [axis, axis + 2]].astype(np.float64).mean(1)
    return found


def _ahead(
    number: npt.NDArray[np.int64], middle: Floats, at: float
) -> tuple[float, tuple[int, int]]:
    """Between which two rows (or columns) a place lies, and how far on the way, from 0 to 1."""
    names = np.unique(number)
    centers = np.array([middle[number == name].mean() for name in names])
    last = len(names) - 1
    before = int(np.clip(np.searchsorted(centers, at, side="right") - 1, 0, max(last - 1, 0)))
    after = min(before + 1, last)
    if before == after:
        return 0.0, (int(names[before]), int(names[after]))
    share = (at - centers[before]) / (centers[after] - centers[before])
    return float(np.clip(share, 0, 1)), (int(names[before]), int(names[after]))


def _nothing_there(place: Place) -> SelectorError:
    return SelectorError(
        f"No patch is at ({place.x:.3f}, {place.y:.3f}) of image {place.image}.",
        subject="points",
        hint="The processor may cut that part of the image off, or the model sees another of the "
        "sample's images.",
    )


def named(points: Mapping[str, Place], names: Sequence[str], sample: Sample) -> list[Place]:
    """The points of these marks, in that order.

    Raises:
        DataError: One is missing.
    """
    missing = [name for name in names if name not in points]
    if missing:
        raise DataError(
            f"The sample {sample.id!r} has no point {missing[0]!r}.",
            subject=sample.id,
            hint=f"Its attribute `points` has {', '.join(points) or 'nothing'}; each choice needs "
            "one.",
        )
    return [points[name] for name in names]
