"""Which samples go through the model together: units of similar length, or of equal images.

Units are cut from the whole sample list and from nothing that changes between runs, so that a
resumed run repeats them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from vlmlens.sites import Axis

if TYPE_CHECKING:
    from vlmlens.abc.adapter import Sharing
    from vlmlens.passes.batch import Batch
    from vlmlens.samples import Sample

_PROBES = 6
_WINDOW = 1024
_LARGEST = 256
_BUDGETS = 8


@dataclass(frozen=True, slots=True)
class Unit:
    """Samples that are run together.

    Args:
        groups: Numbers of the samples; those of a group are on the same images where `shared`.
        shared: Whether what a group has in common is to be run once.
    """

    groups: tuple[tuple[int, ...], ...]
    shared: bool = False

    @property
    def samples(self) -> tuple[int, ...]:
        """The numbers of all samples, in order."""
        return tuple(number for group in self.groups for number in group)

    def halves(self) -> tuple[Unit, Unit]:
        """The unit as two, where half as much fits at once; of two samples or more."""
        if len(self.groups) > 1:
            middle = len(self.groups) // 2
            return Unit(self.groups[:middle], self.shared), Unit(self.groups[middle:], self.shared)
        (group,) = self.groups
        middle = len(group) // 2
        return Unit((group[:middle],), self.shared), Unit((group[middle:],), self.shared)


@dataclass(frozen=True, slots=True)
class Lengths:
    """About how many tokens samples have, told from some that were encoded.

    Args:
        whole: Tokens in all.
        text: Those that follow the images: what questions on the same images do not share.
    """

    whole: np.ndarray
    text: np.ndarray

    @classmethod
    def of(cls, samples: Sequence[Sample], encode: Callable[[Sample], Batch]) -> Lengths:
        """Encode a few samples and fit: so many tokens per letter and per area of image.

        Rounded, so that the same samples give the same units on every machine.
        """
        letters = np.array([len(sample.prompt) for sample in samples], float)
        areas = np.array([_area(sample) for sample in samples])
        most = min(_PROBES, max(2, len(samples) // 16))
        probes = sorted({*_spread(letters, most), *_spread(areas, most)})
        known = np.stack([np.ones(len(probes)), letters[probes], areas[probes]], 1)
        tokens = np.array([_tokens(encode(samples[i])) for i in probes], float)
        weights, *_ = np.linalg.lstsq(known, tokens, rcond=None)
        base, per_letter, per_area = weights
        whole = base + per_letter * letters + per_area * areas
        per_letter = max(per_letter, 0.0)
        text = np.maximum(per_letter * letters, 1.0) + 8
        return cls(np.maximum(whole, 1.0).round(3), text.round(3))


def units(
    samples: Sequence[Sample],
    lengths: Lengths,
    *,
    size: int | None,
    budget: int,
    share: Sharing,
) -> list[Unit]:
    """The samples in units.

    Args:
        samples: All of the run's.
        lengths: About how long they are.
        size: Samples per unit; None: as many as the budget holds.
        budget: Tokens per unit, padding included.
        share: What samples on equal images, which go together, have in common.
    """
    several = share != "nothing"
    together, alone = _by_images(samples) if several else ([], list(range(len(samples))))
    cut = partial(_pieces if share == "beginnings" else _whole_pieces, lengths=lengths, size=size)
    found = list(_shared_units(together, partial(cut, budget=budget), size, budget))
    for start in range(0, len(alone), _WINDOW):
        window = alone[start : start + _WINDOW]
        window.sort(key=lambda number: -lengths.whole[number])
        found += _plain_units(window, lengths.whole, size, budget)
    return sorted(found, key=lambda unit: min(unit.samples) // _WINDOW)


def work_of(unit: Unit, lengths: Lengths, share: Sharing) -> float:
    """About how many tokens a unit's passes compute.

    Args:
        unit: From `units`.
        lengths: As given to it.
        share: As given to it.
    """
    numbers = list(unit.samples)
    if not unit.shared:
        return float(lengths.whole[numbers].max()) * len(numbers)
    if share == "images":
        return float(lengths.whole[numbers].sum())
    firsts = [group[0] for group in unit.groups]
    beginnings = lengths.whole[firsts] - lengths.text[firsts]
    return float(np.maximum(beginnings, 0).sum() + lengths.text[numbers].sum())


def _by_images(samples: Sequence[Sample]) -> tuple[list[list[int]], list[int]]:
    """Groups of two samples or more on equal images, and the numbers of the others."""
    groups: dict[tuple[object, ...], list[int]] = {}
    for number, sample in enumerate(samples):
        key = tuple(image if isinstance(image, str) else id(image) for image in sample.images)
        groups.setdefault(key or (number, None), []).append(number)
    several = [group for group in groups.values() if len(group) > 1]
    return several, [group[0] for group in groups.values() if len(group) == 1]


def _plain_units(
    numbers: Sequence[int], whole: np.ndarray, size: int | None, budget: int
) -> Iterator[Unit]:
    """Numbers sorted from long to short, cut: the first of a unit says how long all are."""
    start = 0
    while start < len(numbers):
        fits = min(_LARGEST, int(budget // whole[numbers[start]]))
        stop = start + max(1, fits if size is None else size)
        yield Unit(tuple((number,) for number in numbers[start:stop]))
        start = stop


def _shared_units(
    groups: Sequence[Sequence[int]],
    cut: Callable[[Sequence[int]], Iterator[tuple[tuple[int, ...], float]]],
    size: int | None,
    budget: int,
) -> Iterator[Unit]:
    """Groups cut to what fits, and put together as long as it does."""
    unit: list[tuple[int, ...]] = []
    filled = 0.0
    limit = budget if size is None else size
    for group in groups:
        for piece, cost in cut(group):
            if cost >= limit:
                yield Unit((piece,), shared=True)
                continue
            if unit and filled + cost > limit:
                yield Unit(tuple(unit), shared=True)
                unit, filled = [], 0.0
            unit.append(piece)
            filled += cost
    if unit:
        yield Unit(tuple(unit), shared=True)


def _pieces(
    group: Sequence[int], lengths: Lengths, size: int | None, budget: int
) -> Iterator[tuple[tuple[int, ...], float]]:
    """A group in pieces that fit, each with its cost: samples, or tokens.

    Their beginning is computed once per piece: a piece takes as many tokens of text as the budget
    has, however long the beginning is.
    """
    longest = float(max(lengths.text[number] for number in group))
    beginning = max(float(lengths.whole[group[0]] - lengths.text[group[0]]), 0.0)
    most = min(_LARGEST, max(1, int(budget // longest))) if size is None else size
    for start in range(0, len(group), most):
        piece = tuple(group[start : start + most])
        yield piece, len(piece) if size is not None else beginning + longest * len(piece)


def _whole_pieces(
    group: Sequence[int], lengths: Lengths, size: int | None, budget: int
) -> Iterator[tuple[tuple[int, ...], float]]:
    """A group in pieces, each with its cost, where only the images are computed once.

    The piece then goes through the language model part by part: it may be several budgets long.
    """
    longest = float(max(lengths.whole[number] for number in group))
    most = min(_LARGEST, max(1, int(_BUDGETS * budget // longest))) if size is None else size
    for start in range(0, len(group), most):
        piece = tuple(group[start : start + most])
        yield piece, len(piece) if size is not None else longest * len(piece)


def _spread(values: np.ndarray, most: int) -> list[int]:
    """Numbers of at most so many samples, spread evenly over the values, both ends included."""
    if np.ptp(values) == 0:
        return [0]
    order = np.argsort(values, kind="stable")
    return [int(order[i]) for i in np.linspace(0, len(order) - 1, most).astype(int)]


def _tokens(batch: Batch) -> int:
    for axis in (Axis.LLM, Axis.ENCODER):
        if axis in batch.layouts:
            return len(batch.layouts[axis].samples[0])
    return 1


def _area(sample: Sample) -> float:
    """The area of a sample's images, in thousands of pixels."""
    total = 0
    for image in sample.images:
        width, height = _file_size(image) if isinstance(image, str) else image.size
        total += width * height
    return total / 1000


@lru_cache(maxsize=100_000)
def _file_size(path: str) -> tuple[int, int]:
    from PIL import Image

    with Image.open(Path(path)) as opened:
        return opened.size
