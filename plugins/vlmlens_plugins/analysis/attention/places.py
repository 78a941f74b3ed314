"""The key region among image rows, and its controls: the same shape elsewhere, others' regions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from vlmlens.regions import Shape, check_inside
from vlmlens.rows.image_rows import in_region
from vlmlens.rows.named import NamedRows
from vlmlens.rows.sample_regions import read_mask
from vlmlens.samples import Sample
from vlmlens.tokens import PatchGrid, TokenLayout
from vlmlens_plugins.analysis._blank_images import image_sizes
from vlmlens_plugins.analysis._key_regions import regions_in
from vlmlens_plugins.analysis._tasks import rows_by_task

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]
Boxes: TypeAlias = Sequence[Sequence[float]]
"""(number of the image, left, top, right, bottom), in fractions of the image."""

_MOST = 10
_NEGLIGIBLE = 1e-6


@dataclass(frozen=True, slots=True)
class Place:
    """A region among a sample's image rows.

    Args:
        inside: bool `[image rows]`.
        elsewhere: float64 `[image rows]`: how often a row is inside when a region of the same
            shape stands at each place where it fits; it sums to the number of rows inside.
        others: float64 `[image rows]`: how often a row is in the regions of other samples; it sums
            to the number of rows inside, too. None: no other samples are given.
    """

    inside: Bools
    elsewhere: Floats
    others: Floats | None = None

    @property
    def area(self) -> float:
        """Its share of the image rows."""
        return float(self.inside.mean())

    @classmethod
    def of(
        cls, layout: TokenLayout, regions: Sequence[str], others: Sequence[Boxes] = ()
    ) -> Place | None:
        """The region of a sample; None if it has none, or where its rows lie is not known.

        Args:
            layout: The sample's layout.
            regions: The names of its key regions, see `key_regions`.
            others: The boxes of the regions of other samples.

        Raises:
            DataError: The sample's regions cannot be used.
            ImageError: A mask cannot be read.
            SelectorError: No image row lies in the region.
        """
        grid, names = layout.patches, layout.names
        if grid is None or names is None or not len(grid) or not regions:
            return None
        inside = np.any([in_region(NamedRows("region", name), grid, names) for name in regions], 0)
        return cls(inside, moved(inside, grid), _taken(others, grid, int(inside.sum())))


def moved(inside: Bools, grid: PatchGrid) -> Floats:
    """How often each row is inside, over all places where the region fits into each view.

    The places are those of the smallest rectangle of patches that holds the region's part of the
    view. A region that fills a view has one place.

    Args:
        inside: bool `[image rows]`.
        grid: Where they lie.
    """
    found = np.zeros(len(inside))
    views = list(zip(grid.image.tolist(), grid.view, strict=True))
    for view in dict.fromkeys(views):
        where = np.array([i for i, each in enumerate(views) if each == view])
        row, col = grid.row[where], grid.col[where]
        field = np.zeros((row.max() + 1, col.max() + 1), bool)
        field[row, col] = inside[where]
        if not field.any():
            continue
        (top, bottom), (left, right) = (np.flatnonzero(field.any(axis))[[0, -1]] for axis in (1, 0))
        shape = field[top : bottom + 1, left : right + 1]
        down, across = (field.shape[i] - shape.shape[i] + 1 for i in (0, 1))
        sums = np.zeros(field.shape)
        for y in range(down):
            for x in range(across):
                sums[y : y + shape.shape[0], x : x + shape.shape[1]] += shape
        found[where] += (sums / (down * across))[row, col]
    return found


def boxes_of(sample: Sample, regions: Sequence[str]) -> Boxes | None:
    """The boxes around the parts of some of a sample's regions; None without any.

    Args:
        sample: The sample.
        regions: Their names.

    Raises:
        DataError: The sample's regions cannot be used.
        ImageError: An image or a mask cannot be read.
    """
    if not regions:
        return None
    sizes = image_sizes(sample)
    known = regions_in(sample)
    check_inside(known, sizes, sample.id)
    return [_box(shape, sizes, sample) for name in regions for shape in known[name]]


def others_by_sample(
    samples: Sequence[Sample], regions: Sequence[Sequence[str]]
) -> list[list[Boxes]]:
    """For each sample, the boxes of up to 10 others: of its task, but not of its group.

    Args:
        samples: The samples.
        regions: The key regions of each.
    """
    boxes = [boxes_of(*each) for each in zip(samples, regions, strict=True)]
    found: list[list[Boxes]] = [[] for _ in samples]
    for rows in rows_by_task(samples).values():
        for place, number in enumerate(rows):
            group = samples[number].split_group
            order = [*rows[place + 1 :], *rows[:place]]
            others = (boxes[i] for i in order if samples[i].split_group != group)
            found[number] = list(islice((own for own in others if own is not None), _MOST))
    return found


def _taken(others: Sequence[Boxes], grid: PatchGrid, count: int) -> Floats | None:
    """The mean over others of the rows that their boxes hold, each scaled to a number of rows."""
    found = []
    for boxes in others:
        inside = np.zeros(len(grid), bool)
        for image, *box in boxes:
            left, top, right, bottom = grid.box.astype(np.float64).T
            across = np.minimum(right, box[2]) - np.maximum(left, box[0])
            down = np.minimum(bottom, box[3]) - np.maximum(top, box[1])
            inside |= (grid.image == image) & (across > _NEGLIGIBLE) & (down > _NEGLIGIBLE)
        if inside.any():
            found.append(inside * (count / inside.sum()))
    return np.mean(found, 0) if found else None


def _box(shape: Shape, sizes: Sequence[tuple[int, int]], sample: Sample) -> list[float]:
    width, height = sizes[shape.image]
    if shape.box is not None:
        left, top, right, bottom = shape.box
    else:
        mask = read_mask(str(shape.mask), (width, height), sample.id)
        across, down = (np.flatnonzero(mask.any(axis)) for axis in (0, 1))
        if not len(across):
            return [shape.image, 0.0, 0.0, 0.0, 0.0]
        left, right = across[0], across[-1] + 1
        top, bottom = down[0], down[-1] + 1
    ends = (left / width, top / height, right / width, bottom / height)
    return [shape.image, *(round(float(end), 6) for end in ends)]
