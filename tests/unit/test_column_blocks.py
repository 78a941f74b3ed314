"""A column in blocks: every wanted sample once, in its place, and never much more than a block."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from vlmlens.abc import ColumnStore
from vlmlens.abc.storage import ColumnBlock, Values
from vlmlens.errors import ColumnNotFound, StoreError
from vlmlens.registry import Registry
from vlmlens.stores.opening import open_named
from vlmlens.stores.sharded import ShardedStore
from vlmlens_plugins.analysis import _blocks
from vlmlens_plugins.analysis._blocks import ColumnBlocks

WIDTH = 3
LENGTHS = [0, 0, 1, 0, 40, 2, 1, 7, 0, 5]
FLAT, RAGGED = "llm.block.0/last", "llm.block.0/image"


def rows_of(number: int) -> npt.NDArray[np.float32]:
    """Rows that tell whose they are."""
    rows = np.arange(LENGTHS[number] * WIDTH, dtype="<f4").reshape(-1, WIDTH)
    return rows + 1000 * number


def write(store: ColumnStore, numbers: Sequence[int]) -> None:
    parts = [rows_of(i) for i in numbers]
    ragged = np.concatenate(parts)
    bits = ragged.view("<u4") >> 16
    lengths = tuple(map(len, parts))
    columns: Mapping[str, Values] = {
        FLAT: Values(np.array([[i] * WIDTH for i in numbers], "<f4"), "float32"),
        RAGGED: Values(ragged, "float32", lengths),
        "llm.block.1/image": Values(bits.astype("<u2"), "bfloat16", lengths),
    }
    store.write(ColumnBlock(tuple(f"s{i}" for i in numbers), columns))


@pytest.fixture(params=["lmdb", "memory", "zarr", "sharded"])
def store(request: Any, tmp_path: Path) -> Iterator[ColumnStore]:
    """Ten samples in an order of their own, in two writes or two stores."""
    registry, order = Registry.default(), [7, 3, 9, 0, 4, 1, 8, 2, 6, 5]
    if request.param == "sharded":
        parts = [open_named(registry, "lmdb", str(tmp_path / n), mode="a") for n in "ab"]
        write(parts[0], order[:4])
        write(parts[1], order[4:])
        made: ColumnStore = ShardedStore(parts)
    else:
        made = open_named(registry, request.param, str(tmp_path / "store"), mode="a")
        write(made, order[:4])
        write(made, order[4:])
    with made:
        yield made


@pytest.mark.parametrize("column", [FLAT, RAGGED, "llm.block.1/image"])
@pytest.mark.parametrize("at_once", [1, 4 * WIDTH * 8, 2**20])
@pytest.mark.parametrize("few", [1, 8])
def test_every_wanted_sample_comes_once_and_in_its_place(
    store: ColumnStore, column: str, at_once: int, few: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whether samples are read by their ids, or the column from its beginning."""
    monkeypatch.setattr(_blocks, "_FEW", few)
    ids = ["s4", "s0", "s7", "s2", "s9", "s1"]
    found: dict[str, Any] = {}
    for block in ColumnBlocks(store, column, ids, at_once):
        size = block.values.array.size * 4
        assert size <= max(at_once, 4 * WIDTH * max(block.values.lengths or (1,)))
        for place, rows in zip(block.places, block.values.per_sample(), strict=True):
            assert ids[place] not in found
            found[ids[place]] = rows
    assert sorted(found) == sorted(ids)
    for name in ids:
        number = int(name[1:])
        expected = np.full((1, WIDTH), number) if column == FLAT else rows_of(number)
        np.testing.assert_allclose(found[name], expected, rtol=2**-7)


def test_a_sample_without_a_value_is_named_before_anything_is_read(store: ColumnStore) -> None:
    for column in (FLAT, RAGGED):
        with pytest.raises(StoreError, match="s10"):
            iter(ColumnBlocks(store, column, ["s1", "s10"]))
    with pytest.raises(ColumnNotFound, match="lost"):
        iter(ColumnBlocks(store, "llm.block.0/lost", ["s1"]))


def test_no_samples_give_no_block(store: ColumnStore) -> None:
    assert list(ColumnBlocks(store, RAGGED, [])) == []
    assert list(ColumnBlocks(store, FLAT, [])) == []
