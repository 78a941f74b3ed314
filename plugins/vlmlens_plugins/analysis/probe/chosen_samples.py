"""Some of many samples, by their numbers, so that a million of them stay packed."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property
from itertools import compress
from typing import overload

import numpy as np
import numpy.typing as npt

from vlmlens.sample_table import SampleTable
from vlmlens.samples import Sample

Ints = npt.NDArray[np.int64]


class ChosenSamples(Sequence[Sample]):
    """Samples of one or more sequences. None is made before it is asked for.

    Args:
        parts: A sequence of samples and int64 `[k]`, the numbers of the chosen ones, ascending.
    """

    def __init__(self, *parts: tuple[Sequence[Sample], Ints]) -> None:
        self._parts = parts
        self._starts = np.cumsum([0, *(len(numbers) for _, numbers in parts)])

    def joined(self, other: ChosenSamples) -> ChosenSamples:
        """These, and then the others."""
        return ChosenSamples(*self._parts, *other._parts)

    @cached_property
    def ids(self) -> Sequence[str]:
        """Ids, in order."""
        found: list[str] = []
        for samples, numbers in self._parts:
            if isinstance(samples, SampleTable):
                found += [samples.ids[i] for i in numbers.tolist()]
            else:
                found += [samples[i].id for i in numbers.tolist()]
        return found

    def __len__(self) -> int:
        return int(self._starts[-1])

    def __iter__(self) -> Iterator[Sample]:
        for samples, numbers in self._parts:
            kept = np.zeros(len(samples), bool)
            kept[numbers] = True
            yield from compress(samples, kept.tolist())

    @overload
    def __getitem__(self, index: int) -> Sample: ...
    @overload
    def __getitem__(self, index: slice) -> list[Sample]: ...
    def __getitem__(self, index: int | slice) -> Sample | list[Sample]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        number = range(len(self))[index]
        part = int(np.searchsorted(self._starts, number, "right")) - 1
        samples, numbers = self._parts[part]
        return samples[int(numbers[number - self._starts[part]])]


def once(texts: Iterable[str | None]) -> list[str | None]:
    """The texts, each different one in memory once."""
    seen: dict[str, str] = {}
    return [None if text is None else seen.setdefault(text, text) for text in texts]
