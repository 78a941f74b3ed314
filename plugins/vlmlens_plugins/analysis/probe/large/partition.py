"""Parts of the samples whose sums give those of every training set, by adding and subtracting."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Partition:
    """Samples in disjoint parts, so that each set of samples is a union of parts.

    Args:
        part: int64 `[n]`, the part of each sample.
        sets: bool `[sets, parts]`, the parts of each set.
    """

    part: Ints
    sets: Bools

    @classmethod
    def of(cls, sets: Bools) -> Partition:
        """The coarsest partition for sets `[sets, n]`."""
        packed = np.packbits(sets, axis=0)
        kinds, part = np.unique(packed, axis=1, return_inverse=True)
        members = np.unpackbits(kinds, axis=0, count=len(sets)).astype(bool)
        return cls(np.asarray(part, np.int64).reshape(-1), members)

    @property
    def parts(self) -> int:
        """Number of parts."""
        return int(self.sets.shape[1])

    def split(self, places: Ints) -> Iterator[tuple[int, Ints]]:
        """Yield (part, which of these samples lie in it), for the parts that have some."""
        own = self.part[places]
        for number in np.unique(own).tolist():
            yield number, np.flatnonzero(own == number)


def with_inner(train: Bools, inner: Ints) -> Bools:
    """Bool `[cells * (1 + parts), n]`: training sets, then each without one inner part."""
    held = inner[None] == np.arange(int(inner.max()) + 1)[:, None]
    return np.concatenate([train, (train[:, None] & ~held).reshape(-1, train.shape[1])])
