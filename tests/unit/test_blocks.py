"""Small blocks put together before they are stored."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from vlmlens.abc.storage import ColumnBlock, Values
from vlmlens.extraction import write_buffer as blocks
from vlmlens.extraction.write_buffer import BlockWriter, joined


class Store:
    """Keeps the blocks that it is given."""

    def __init__(self) -> None:
        self.blocks: list[ColumnBlock] = []

    def write(self, block: ColumnBlock) -> None:
        self.blocks.append(block)


def block(first: int, count: int, name: str = "a", width: int = 2) -> ColumnBlock:
    array = np.arange(first * width, (first + count) * width, dtype="<f4").reshape(count, width)
    lengths = (1,) * count
    return ColumnBlock(
        tuple(str(first + i) for i in range(count)),
        {name: Values(array, "float32"), "ragged": Values(array, "float32", lengths)},
    )


def written(store: Store) -> list[int]:
    return [len(each.ids) for each in store.blocks]


def writer(store: Any) -> BlockWriter:
    return BlockWriter(store)


def test_blocks_become_one() -> None:
    whole = joined([block(0, 2), block(2, 3)])
    assert whole.ids == ("0", "1", "2", "3", "4")
    assert whole.columns["a"].array.tolist() == block(0, 5).columns["a"].array.tolist()
    assert whole.columns["a"].lengths is None
    assert whole.columns["ragged"].lengths == (1, 1, 1, 1, 1)


def test_rows_are_written_a_few_hundred_at_once() -> None:
    store = Store()
    out = writer(store)
    for i in range(100):
        out.add(block(8 * i, 8))
    out.flush()
    assert written(store) == [256, 256, 256, 32]
    assert [name for each in store.blocks for name in each.ids] == [str(i) for i in range(800)]
    out.flush()
    assert len(store.blocks) == 4


def test_large_rows_are_written_sooner(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blocks, "_BYTES", 1000)
    store = Store()
    out = writer(store)
    for i in range(8):
        out.add(block(4 * i, 4, width=16))
    assert written(store) == [8, 8, 8, 8]


def test_slow_rows_are_written_after_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blocks, "_SECONDS", 0.0)
    store = Store()
    out = writer(store)
    out.add(block(0, 2))
    out.add(block(2, 2))
    assert written(store) == [2, 2]


@pytest.mark.parametrize("other", [block(9, 1, "b"), block(9, 1, width=3)])
def test_what_differs_is_not_put_together(other: ColumnBlock) -> None:
    store = Store()
    out = writer(store)
    out.add(block(0, 1))
    out.add(other)
    out.flush()
    assert written(store) == [1, 1]
