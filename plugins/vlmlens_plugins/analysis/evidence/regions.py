"""Which of a sample's regions is the key one, and other places of equal area."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from vlmlens.errors import DataError, MissingAnnotation, SpecError
from vlmlens.regions import ATTRIBUTE, Shape, check_inside, regions_of
from vlmlens.samples import Sample
from vlmlens_plugins.analysis._altered import Area, Canvas
from vlmlens_plugins.analysis._blank_images import image_sizes
from vlmlens_plugins.analysis._tasks import ALL

KEY = "region"
"""The attribute of a sample that names its key region; several are joined by +."""

ALL_REGIONS = "*"

Names = tuple[str, ...]
Bools = npt.NDArray[np.bool_]
Shift = tuple[int, int]
_TRIED = 256
"""So many places are looked at for each sample."""
_CELLS = 128
"""Overlaps are counted on at most so many cells along a side."""
_TOO_MUCH = 0.5


def key_regions(samples: Sequence[Sample], wanted: str | Mapping[str, str] | None) -> list[Names]:
    """The key regions of each sample; none where it has none.

    Without a wish, a task's samples name theirs by the attribute `region`, and those that do not
    have none (an object that is asked for is not there). In a task in which no sample names one,
    all regions of a sample together are the key.

    Args:
        samples: The samples.
        wanted: A name, several joined by +, or `*` for all; or such a text by task.

    Raises:
        SpecError: A task that is named does not exist, or a region that is named is in no sample.
        DataError: The regions of a sample cannot be used, or it names one that it does not have.
        MissingAnnotation: No sample has a key region.
    """
    tasks = [sample.task or ALL for sample in samples]
    by_task = _by_task(wanted, tasks)
    naming = {
        task for task, sample in zip(tasks, samples, strict=True) if sample.attributes.get(KEY)
    }
    found: list[Names] = []
    for task, sample in zip(tasks, samples, strict=True):
        known = regions_in(sample)
        text = by_task.get(task)
        if text is not None:
            names = _named(text, known)
            found.append(names if all(name in known for name in names) else ())
        elif task in naming:
            found.append(_own(sample, known))
        else:
            found.append(tuple(known))
    for task, text in by_task.items():
        _check_met(task, text, [s for s, t in zip(samples, tasks, strict=True) if t == task])
    if not any(found):
        raise MissingAnnotation(
            "The evidence analysis hides a region of the image, and no sample has one.",
            subject=ATTRIBUTE,
            hint='Give samples an attribute `regions`: {"NAME": [left, top, right, bottom]}, in '
            "pixels, or masks; see docs/evidence.md.",
        )
    return found


def regions_in(sample: Sample) -> Mapping[str, Sequence[Shape]]:
    """The regions of a sample by name."""
    return regions_of(sample.attributes.get(ATTRIBUTE), sample.id)


def check_regions(sample: Sample, names: Names) -> None:
    """Raise an error if regions leave their image, or the key region holds no pixel.

    Args:
        sample: The sample.
        names: Its key regions. Files are read for masks only.

    Raises:
        DataError: They do.
        ImageError: An image or a mask cannot be read.
    """
    known = regions_in(sample)
    check_inside(known, image_sizes(sample), sample.id)
    if not any(shape.mask for name in names for shape in known[name]):
        return
    if not any(inside.any() for inside in Canvas(sample).inside(Area(regions=names))):
        raise DataError(
            f"Sample {sample.id!r}: its region {' + '.join(names)!r} holds no pixel.",
            subject=sample.id,
            hint="Give a mask in which some pixel is not zero, or leave the region out.",
        )


@dataclass(frozen=True, slots=True)
class Places:
    """Places of equal area for a region.

    Args:
        shifts: How far (right, down) the region is moved.
        overlap: The share of it that is still inside it then, on average.
    """

    shifts: tuple[Shift, ...] = ()
    overlap: float = np.nan


def places(inside: Sequence[Bools], count: int, rng: np.random.Generator) -> Places:
    """Random places for a region, as little on it as possible.

    It is moved at random inside its image, and of many draws those are taken that overlap it
    least. If even these overlap more than half of it, what leaves the image on one side comes in
    on the other.

    Args:
        inside: Which pixels of each image the region holds.
        count: How many places.
        rng: Draws them.
    """
    first = next(one for one in inside if one.any())
    rows, columns = np.flatnonzero(first.any(1)), np.flatnonzero(first.any(0))
    height, width = first.shape
    near = _least(
        inside,
        rng.integers(-columns[0], width - columns[-1], _TRIED),
        rng.integers(-rows[0], height - rows[-1], _TRIED),
        count,
    )
    if len(near.shifts) == count and near.overlap <= _TOO_MUCH:
        return near
    return _least(inside, rng.integers(0, width, _TRIED), rng.integers(0, height, _TRIED), count)


def overlap(inside: Sequence[Bools], shift: Shift) -> float:
    """The share of a region that is still in it when it is moved."""
    right, down = shift
    both = sum(int((one & np.roll(one, (down, right), (0, 1))).sum()) for one in inside)
    return both / sum(int(one.sum()) for one in inside)


def _least(
    inside: Sequence[Bools],
    right: npt.NDArray[np.int64],
    down: npt.NDArray[np.int64],
    count: int,
) -> Places:
    """Of some moves, those with the least overlap; never one that stays."""
    pairs = dict.fromkeys(zip(right.tolist(), down.tolist(), strict=True))
    moves = [move for move in pairs if move != (0, 0)]
    step = max(1, max(max(one.shape) for one in inside) // _CELLS)
    coarse = [one[::step, ::step] for one in inside]
    if not any(one.any() for one in coarse):
        step, coarse = 1, list(inside)
    found = [overlap(coarse, (round(x / step), round(y / step))) for x, y in moves]
    best = np.argsort(found, kind="stable")[:count]
    mean = float(np.mean([found[i] for i in best])) if len(best) else np.nan
    return Places(tuple(moves[i] for i in best), mean)


def _by_task(wanted: str | Mapping[str, str] | None, tasks: Sequence[str]) -> Mapping[str, str]:
    if wanted is None:
        return {}
    if isinstance(wanted, str):
        return dict.fromkeys(tasks, wanted)
    strange = [task for task in wanted if task not in tasks]
    if strange:
        raise SpecError(
            f"There is no task {strange[0]!r}.",
            subject=strange[0],
            hint=f"The tasks are {', '.join(dict.fromkeys(tasks))}.",
        )
    return wanted


def _named(text: str, known: Mapping[str, object]) -> Names:
    if text == ALL_REGIONS:
        return tuple(known)
    return (text,) if text in known else tuple(name.strip() for name in text.split("+"))


def _own(sample: Sample, known: Mapping[str, object]) -> Names:
    text = sample.attributes.get(KEY)
    if text is None or text == "":
        return ()
    names = _named(str(text), known)
    missing = [name for name in names if name not in known]
    if missing:
        raise DataError(
            f"Sample {sample.id!r}: its key region is {missing[0]!r}, and it has no such region.",
            subject=sample.id,
            hint=f"Its regions are {', '.join(known) or 'none'}.",
        )
    return names


def _check_met(task: str, text: str, samples: Sequence[Sample]) -> None:
    known = dict.fromkeys(name for sample in samples for name in regions_in(sample))
    missing = [name for name in _named(text, known) if name not in known]
    if missing and known:
        raise SpecError(
            f"No sample of the task {task!r} has a region {missing[0]!r}.",
            subject=missing[0],
            hint=f"Its samples have {', '.join(known)}.",
        )
