"""What a store lacks: per sample the columns, as one number that stands for a set of them."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from typing import TYPE_CHECKING, overload

import numpy as np

if TYPE_CHECKING:
    from vlmlens.abc.storage import ColumnStore
    from vlmlens.sample_table import SampleTable


class Missing(Sequence[tuple[str, ...]]):
    """Per sample, the columns that are not stored yet.

    Args:
        kinds: Per sample, the number of its set of columns.
        columns: The sets.
    """

    def __init__(self, kinds: array[int], columns: Sequence[tuple[str, ...]]) -> None:
        self._kinds = kinds
        self._columns = columns

    @classmethod
    def of(cls, store: ColumnStore, columns: Sequence[str], samples: SampleTable) -> Missing:
        """What a store lacks.

        Args:
            store: The store.
            columns: The columns that it should have.
            samples: The samples that it should have.
        """
        lacking = _masks(store, columns, samples)
        codes = np.zeros(len(samples), np.int64)
        for mask in {id(mask): mask for mask in lacking.values()}.values():
            codes = np.unique(2 * codes + mask, return_inverse=True)[1].reshape(-1)
        _, firsts, kinds = np.unique(codes, return_index=True, return_inverse=True)
        sets = [tuple(name for name in columns if lacking[name][first]) for first in firsts]
        return cls(array("L", kinds.reshape(-1).tolist()), sets)

    @property
    def nothing(self) -> bool:
        """Whether all columns of all samples are stored."""
        return not any(self._columns)

    def __len__(self) -> int:
        return len(self._kinds)

    @overload
    def __getitem__(self, index: int) -> tuple[str, ...]: ...
    @overload
    def __getitem__(self, index: slice) -> list[tuple[str, ...]]: ...
    def __getitem__(self, index: int | slice) -> tuple[str, ...] | list[tuple[str, ...]]:
        if isinstance(index, slice):
            return [self._columns[kind] for kind in self._kinds[index]]
        return self._columns[self._kinds[index]]


def _masks(
    store: ColumnStore, columns: Sequence[str], samples: SampleTable
) -> dict[str, np.ndarray]:
    """Per column, which samples it lacks. Columns that lack the same ones share an array."""
    everything = np.ones(len(samples), bool)
    known = {info.name: info.samples for info in store.columns()}
    found: dict[str, np.ndarray] = {}
    before: list[str] = []
    mask = everything
    for name in columns:
        if not known.get(name):
            found[name] = everything
            continue
        ids = store.ids(name)
        if ids != before:
            before, mask = ids, _without(ids, samples)
        found[name] = mask
    return found


def _without(ids: Sequence[str], samples: SampleTable) -> np.ndarray:
    mask = np.ones(len(samples), bool)
    if ids == samples.ids:
        mask[:] = False
        return mask
    numbers = samples.numbers
    mask[[number for number in map(numbers.get, ids) if number is not None]] = False
    return mask
