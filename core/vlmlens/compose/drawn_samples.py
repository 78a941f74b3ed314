"""Some of the samples, drawn for analyses that need not read all: `--samples N`."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from vlmlens.errors import SpecError
from vlmlens.sample_table import SampleTable
from vlmlens.samples import Sample

Ints = npt.NDArray[np.int64]
_ROUNDING = 1e-6


def drawn_samples(samples: SampleTable, number: int | None, seed: int) -> SampleTable:
    """At most so many of the samples, in their order; all of them for None.

    They are drawn by task and label, each in its share, and groups (`Sample.split_group`) stay
    whole. A group with several tasks or labels counts for the most frequent one.

    Args:
        samples: The samples.
        number: How many.
        seed: Of the draw; an equal one draws the same samples.

    Raises:
        SpecError: No group is so small.
    """
    if number is None or number >= len(samples):
        return samples
    strata, groups = _numbered(samples)
    chosen = _drawn(strata, groups, number, np.random.default_rng([seed, number]))
    if not chosen.any():
        raise SpecError(
            f"--samples {number} is less than the samples of one group, and groups stay whole.",
            subject="samples",
            hint=f"The smallest group has {int(np.bincount(groups).min())} samples.",
        )
    return samples.take(np.flatnonzero(chosen).tolist())


def part_of(samples: SampleTable, number: int | None) -> int | None:
    """The number if it is less than all samples; else None."""
    return None if number is None or number >= len(samples) else number


def told(samples: int, whole: int, seed: int) -> str:
    """How the samples of a result were drawn, as a sentence."""
    return (
        f"On {samples:,} of {whole:,} samples, drawn by task and label with whole groups "
        f"(--samples, seed {seed})."
    )


def _numbered(samples: SampleTable) -> tuple[Ints, Ints]:
    """int64 `[n]` each: a number per task and label, and a number per group."""
    strata: dict[tuple[str | None, str | None], int] = {}
    groups: dict[str, int] = {}

    def pairs() -> Iterator[int]:
        for sample in samples:
            yield strata.setdefault(_kind(sample), len(strata))
            yield groups.setdefault(sample.split_group, len(groups))

    found = np.fromiter(pairs(), np.int64, 2 * len(samples)).reshape(-1, 2)
    return found[:, 0], found[:, 1]


def _kind(sample: Sample) -> tuple[str | None, str | None]:
    return sample.task, sample.label


def _drawn(
    strata: Ints, groups: Ints, number: int, rng: np.random.Generator
) -> npt.NDArray[np.bool_]:
    """Bool `[n]`: whole groups, stratum by stratum; what one cannot fill is left to the next.

    A group that is too large for the room that is left is passed over for smaller ones.
    """
    size = np.bincount(groups)
    of_group = _most_frequent(strata, groups)
    share = number / len(strata)
    taken = np.zeros(len(size), bool)
    room = 0.0
    for stratum in range(int(strata.max()) + 1):
        own = rng.permutation(np.flatnonzero(of_group == stratum))
        room += share * float(size[own].sum())
        while len(own := own[size[own] <= room + _ROUNDING]):
            fits = np.cumsum(size[own]) <= room + _ROUNDING
            taken[own[fits]] = True
            room -= float(size[own[fits]].sum())
            own = own[~fits]
    return np.asarray(taken[groups])


def _most_frequent(strata: Ints, groups: Ints) -> Ints:
    """int64 `[groups]`: the most frequent stratum of each group, the first of equals."""
    pairs, counts = np.unique(np.stack([groups, strata]), axis=1, return_counts=True)
    order = np.lexsort((pairs[1], -counts, pairs[0]))
    _, first = np.unique(pairs[0][order], return_index=True)
    return np.asarray(pairs[1][order][first], np.int64)
