"""Batching: which samples go through the model together (a unit), by length or by equal images.

Units depend on the whole sample list and on nothing that changes between runs. So a resumed run has
the same units.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from hashlib import blake2b
from typing import TYPE_CHECKING

import numpy as np

from vlmlens.images import open_image
from vlmlens.sample_table import SampleTable
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
        groups: Numbers of the samples. If `shared`, the samples of a group have the same images.
        shared: Whether the part that a group has in common is run once.
    """

    groups: tuple[tuple[int, ...], ...]
    shared: bool = False

    @property
    def samples(self) -> tuple[int, ...]:
        """The numbers of all samples, in order."""
        return tuple(number for group in self.groups for number in group)

    def halves(self) -> tuple[Unit, Unit]:
        """The unit split in two, if it does not fit in memory. It has at least two samples."""
        if len(self.groups) > 1:
            middle = len(self.groups) // 2
            return Unit(self.groups[:middle], self.shared), Unit(self.groups[middle:], self.shared)
        (group,) = self.groups
        middle = len(group) // 2
        return Unit((group[:middle],), self.shared), Unit((group[middle:],), self.shared)


@dataclass(frozen=True, slots=True)
class Lengths:
    """About how many tokens each sample has, estimated from a few encoded samples.

    Args:
        whole: All tokens of each sample.
        text: The tokens after the images, which questions on the same images do not share.
    """

    whole: np.ndarray
    text: np.ndarray

    @classmethod
    def of(cls, samples: Sequence[Sample], encode: Callable[[Sample], Batch]) -> Lengths:
        """Encode a few samples, and fit tokens per letter and per area of image.

        The result is rounded, so that the same samples give the same units on every machine.
        """
        letters = np.fromiter((len(sample.prompt) for sample in samples), float, len(samples))
        areas = _areas(samples)
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
    """Divide samples into units.

    Args:
        samples: All samples of the run.
        lengths: Their estimated lengths.
        size: Samples per unit; None: as many as fit into the budget.
        budget: Tokens per unit, padding included.
        share: What samples with equal images share. Such samples are put together.
    """
    several = share != "nothing"
    together, alone = _by_images(samples) if several else ([], list(range(len(samples))))
    cut = partial(_pieces if share == "beginnings" else _whole_pieces, lengths=lengths, size=size)
    found = list(_shared_units(together, partial(cut, budget=budget), size, budget))
    for start in range(0, len(alone), _WINDOW):
        for window in _by_kind(samples, alone[start : start + _WINDOW]):
            window.sort(key=lambda number: -lengths.whole[number])
            found += _plain_units(window, lengths.whole, size, budget)
    return sorted(found, key=lambda unit: min(unit.samples) // _WINDOW)


def work_of(unit: Unit, lengths: Lengths, share: Sharing) -> float:
    """About how many tokens the passes of a unit compute.

    Args:
        unit: From `units`.
        lengths: The argument of `units`.
        share: The argument of `units`.
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
    """Groups of at least two samples with equal images, and the numbers of the other samples."""
    firsts: dict[bytes, int] = {}
    groups: dict[int, list[int]] = {}
    for number, sample in enumerate(samples):
        first = firsts.setdefault(_key(sample), number) if sample.images else number
        if first != number:
            groups.setdefault(first, [first]).append(number)
    together = {number for group in groups.values() for number in group}
    several = [groups[first] for first in sorted(groups)]
    return several, [number for number in range(len(samples)) if number not in together]


def _key(sample: Sample) -> bytes:
    """What two samples with equal images have in common, and no others; it is short."""
    images = [image if isinstance(image, str) else id(image) for image in sample.images]
    video = sample.video and sample.video.as_seen().to_dict()
    seen = repr([images, video] if video else images)
    return blake2b(seen.encode(errors="surrogatepass"), digest_size=16).digest()


def _by_kind(samples: Sequence[Sample], numbers: Sequence[int]) -> tuple[list[int], list[int]]:
    """The samples without a video, and those with one: a model may read them in different ways."""
    videos = {number for number in numbers if samples[number].video is not None}
    return [number for number in numbers if number not in videos], sorted(videos)


def _plain_units(
    numbers: Sequence[int], whole: np.ndarray, size: int | None, budget: int
) -> Iterator[Unit]:
    """Sort samples from long to short and cut; the first of a unit gives the padded length."""
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
    """Cut groups into pieces that fit, and combine pieces as long as they fit together."""
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
    """A group cut into pieces that fit, each with its cost in samples or tokens.

    The common beginning is computed once per piece. So a piece may have as many tokens of text as
    the budget, however long the beginning is.
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
    """A group cut into pieces, each with its cost, if only the images are computed once.

    Such a piece goes through the language model in several parts, so it may exceed the budget.
    """
    longest = float(max(lengths.whole[number] for number in group))
    most = min(_LARGEST, max(1, int(_BUDGETS * budget // longest))) if size is None else size
    for start in range(0, len(group), most):
        piece = tuple(group[start : start + most])
        yield piece, len(piece) if size is not None else longest * len(piece)


def _spread(values: np.ndarray, most: int) -> list[int]:
    """At most `most` sample numbers, spread evenly over the values, with both ends."""
    if np.ptp(values) == 0:
        return [0]
    order = np.argsort(values, kind="stable")
    return [int(order[i]) for i in np.linspace(0, len(order) - 1, most).astype(int)]


def _tokens(batch: Batch) -> int:
    for axis in (Axis.LLM, Axis.ENCODER, Axis.VISION):
        if axis in batch.layouts:
            return len(batch.layouts[axis].samples[0])
    return 1


def _areas(samples: Sequence[Sample]) -> np.ndarray:
    """The area of each sample's images, in thousands of pixels."""
    if isinstance(samples, SampleTable) and samples.seen is not None:
        return np.array(samples.seen.areas, float) / 1000
    return np.fromiter((_area(sample) for sample in samples), float, len(samples))


def _area(sample: Sample) -> float:
    total = 0
    for image in sample.images:
        width, height = _file_size(image) if isinstance(image, str) else image.size
        total += width * height
    return total / 1000


@lru_cache(maxsize=100_000)
def _file_size(path: str) -> tuple[int, int]:
    with open_image(path) as opened:
        return opened.size
