"""Which samples of a chunk share their values: the equal ones, and no others."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from vlmlens.abc import Values
from vlmlens_plugins.storage._shared_values import entries_of, firsts


def test_distinct_values_have_no_entries() -> None:
    array = np.arange(40, dtype="<f4").reshape(10, 4)
    assert entries_of(Values(array, "float32")) is None


def test_equal_values_share_an_entry() -> None:
    array = np.array([[1, 2], [3, 4], [1, 2], [3, 4], [5, 6]], "<f4")
    assert entries_of(Values(array, "float32")) == (0, 1, 0, 1, 2)
    ragged = Values(array, "float32", (2, 2, 1))
    assert entries_of(ragged) == (0, 0, 1)
    assert firsts((0, 1, 0, 1, 2)) == [0, 1, 4]


@given(
    st.lists(st.integers(0, 3), min_size=1, max_size=12),
    st.lists(st.integers(0, 3), min_size=4, max_size=4),
    st.integers(0, 9),
    st.booleans(),
)
def test_entries_give_the_values_back(
    owners: list[int], lengths: list[int], width: int, ragged: bool
) -> None:
    """Also of values that look alike where the heads are taken."""
    counts = lengths if ragged else [1] * 4
    kinds = [np.zeros((count, width), "<f2") for count in counts]
    for number, kind in enumerate(kinds):
        kind[-1:, -1:] = number // 2
    array = np.concatenate([kinds[owner] for owner in owners])
    values = Values(array, "float16", tuple(counts[o] for o in owners) if ragged else None)
    order = entries_of(values)
    if order is None:
        return
    assert len(set(order)) < len(order) == len(values)
    stored = values.take(firsts(order))
    again = stored.take(list(order))
    assert again.array.tobytes() == array.tobytes()
    assert again.lengths == values.lengths
