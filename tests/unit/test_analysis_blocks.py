"""Analyses that read columns in blocks give what the whole column gives."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import pytest
import torch

from vlmlens.abc import AnalysisContext, ColumnBlock, Values
from vlmlens.abc.options import Options
from vlmlens.abc.storage import BlockSize
from vlmlens.errors import StoreError
from vlmlens.samples import Sample
from vlmlens_plugins.analysis import _blocks
from vlmlens_plugins.analysis._blocks import ColumnBlocks
from vlmlens_plugins.analysis.activating import coordinates
from vlmlens_plugins.analysis.activating.coordinates import Coordinate, measured, most_varied
from vlmlens_plugins.analysis.sae.judging.material import Block
from vlmlens_plugins.analysis.sae.judging.monosemanticity import by_picture, monosemanticity
from vlmlens_plugins.analysis.sae.judging.seen import _PooledPart
from vlmlens_plugins.analysis.sae.judging.single import SAMPLES
from vlmlens_plugins.sae import Shuffled, TensorRows, in_pieces
from vlmlens_plugins.storage.memory import MemoryStore, forget

LAST, ALL = "llm.block.0/last", "llm.block.0/all"
WIDTH, COUNT = 6, 90


@pytest.fixture(scope="module")
def stored():
    """A pooled and a ragged column; rows that are no numbers, samples without rows."""
    random = np.random.default_rng(0)
    lengths = random.integers(0, 9, COUNT)
    lengths[:3] = 0, 1, 40
    rows = random.standard_normal((lengths.sum(), WIDTH)).astype(np.float32)
    rows[:, 4] *= 5
    rows[60, 2] = np.nan
    pooled = random.standard_normal((COUNT, WIDTH)).astype(np.float32)
    pooled[:, 2] *= 7
    pooled[11, 0] = np.inf
    columns = {
        LAST: Values(pooled, "float32"),
        ALL: Values(rows, "float32", tuple(lengths.tolist())),
    }
    with MemoryStore.open("analysis blocks", mode="a", options=Options()) as store:
        store.write(ColumnBlock(tuple(f"s{i}" for i in range(COUNT)), columns))
        yield store, columns
    forget("analysis blocks")


def context(store: Any, numbers: list[int]) -> AnalysisContext:
    def no_model() -> Any:
        raise AssertionError("no model is needed")

    return AnalysisContext([Sample(f"s{i}", "?") for i in numbers], store, no_model)


def parts(values: Values, numbers: list[int]) -> list[Any]:
    whole = values.per_sample()
    return [whole[i].astype(np.float64) for i in numbers]


ORDERS = [list(range(COUNT)), list(range(COUNT))[::-1], [80, 3, 7, 2, 0, 61]]


@pytest.mark.parametrize("at_once", [1, 300, 2**25])
@pytest.mark.parametrize("numbers", ORDERS, ids=["written", "reversed", "few"])
@pytest.mark.parametrize("name", [LAST, ALL])
def test_coordinates_are_those_of_the_whole_column(
    stored: Any, monkeypatch: pytest.MonkeyPatch, name: str, numbers: list[int], at_once: int
) -> None:
    store, columns = stored
    monkeypatch.setattr(coordinates, "ColumnBlocks", partial(ColumnBlocks, at_once=at_once))
    infos = {info.name: info for info in store.columns()}
    asked = [Coordinate(f"{name}#{i}", name, i) for i in (5, 1)]
    found = measured(context(store, numbers), infos, asked)
    whole = parts(columns[name], numbers)
    with np.errstate(invalid="ignore"):
        for one, each in zip(asked, found, strict=True):
            unit = np.eye(WIDTH)[one.number]
            wanted = [rows @ unit for rows in whole]
            largest = [rows.max() if len(rows) else np.nan for rows in wanted]
            np.testing.assert_allclose(each.values, largest, equal_nan=True)
            if name == ALL:
                assert each.rows is not None
                for own, rows in zip(each.rows, wanted, strict=True):
                    np.testing.assert_allclose(own, rows, equal_nan=True)
    finite = [rows.max(0) for rows in whole if len(rows) and np.isfinite(rows).all()]
    deviations = np.stack(finite).std(0)
    (best,) = most_varied(context(store, numbers), [infos[name]], 1)
    assert best.number == int(deviations.argmax())
    assert best.spread == pytest.approx(deviations.max() / np.median(deviations))


def _noted(iterate: Any, seen: list[str]) -> Any:
    def noted(self: Any, column: str) -> Any:
        for name, rows in iterate(self, column):
            seen.append(name)
            yield name, rows

    return noted


def test_a_column_is_not_read_through_for_a_few_samples(
    stored: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, columns = stored
    read: list[str] = []
    plain = MemoryStore.read

    def spied(self: Any, column: str, ids: Any = None) -> Values:
        read.extend(ids)
        return plain(self, column, ids)

    monkeypatch.setattr(MemoryStore, "read", spied)
    few = [f"s{i}" for i in (70, 4, 2)]
    blocks = list(ColumnBlocks(store, ALL, few, at_once=1))
    assert sorted(read) == sorted(few)
    found = {
        int(p): v for b in blocks for p, v in zip(b.places, b.values.per_sample(), strict=True)
    }
    for place, number in enumerate((70, 4, 2)):
        np.testing.assert_array_equal(found[place], columns[ALL].per_sample()[number])
    read.clear()
    through: list[str] = []
    monkeypatch.setattr(MemoryStore, "iterate", _noted(MemoryStore.iterate, through))
    many = [f"s{i}" for i in range(COUNT // 2)]
    assert sum(len(b.places) for b in ColumnBlocks(store, ALL, many, at_once=400)) == len(many)
    assert (len(read), len(through)) == (0, COUNT)
    for ids in (["s1", "nobody"], [*many, "nobody"]):
        with pytest.raises(StoreError, match="'nobody' has no value"):
            list(ColumnBlocks(store, ALL, ids))


def test_blocks_keep_to_their_size_once_samples_are_known() -> None:
    fitting = BlockSize(1000)
    first = fitting.samples
    fitting.saw(1, 1)
    assert fitting.samples <= 8 * first
    fitting.saw(10, 5)
    assert fitting.samples == 5
    fitting.saw(0, 5)
    assert fitting.samples == 5
    fitting.saw(10_000, 5)
    assert fitting.samples == 1


def test_samples_without_rows_do_not_make_the_next_block_boundless() -> None:
    fitting = BlockSize()
    for _ in range(3):
        before = fitting.samples
        fitting.saw(0, 4096)
        assert fitting.samples <= 8 * before


def test_rows_come_in_pieces_that_fit() -> None:
    rows = TensorRows(torch.arange(400.0).reshape(100, 4), [10] * 10)
    found = list(in_pieces(rows, [3, 1, 4, 5, 9, 2, 6], size=2 * 10 * 4 * 4))
    assert next(start for start, _ in found) == 0
    assert torch.equal(
        torch.cat([part for _, own in found for part in own]),
        torch.cat(rows.read([3, 1, 4, 5, 9, 2, 6])),
    )
    many = TensorRows(torch.zeros(1000, 4), [10] * 100)
    sizes = [len(own) for _, own in in_pieces(many, range(100), size=2 * 10 * 4 * 4)]
    assert set(sizes[1:]) == {2}


def test_the_default_buffer_does_not_grow_with_the_width() -> None:
    def block(width: int, **given: int) -> int:
        return Shuffled(TensorRows(torch.zeros(2, width)), **given)._block

    assert 2 * block(64) == 2**18
    assert 2 * block(1024) * 1024 * 4 == 2**28
    assert 2 * block(4096) * 4096 * 4 == 2**28
    assert 2 * block(4096, buffer=2**18) * 4096 * 4 == 2**30


def test_pooled_rows_of_later_samples_are_not_kept() -> None:
    pooled = _PooledPart()
    each = SAMPLES // 4 + 1
    for first in range(0, 3 * SAMPLES, each):
        rows = torch.full((each, 3), float(first))
        own = tuple(range(first, first + each))
        pooled.add(Block(own, rows, rows, np.arange(each), (1,) * each, None))
    held = sum(part.untyped_storage().nbytes() for part in pooled.rows)
    assert held == SAMPLES * 6 * 4
    done = pooled.done()
    assert done.samples == tuple(range(SAMPLES))
    assert done.rows.shape == (SAMPLES, 6)


def test_monosemanticity_in_blocks_is_that_of_all_pairs(monkeypatch: pytest.MonkeyPatch) -> None:
    from scipy.sparse import csr_array

    from vlmlens_plugins.analysis.sae.judging import monosemanticity as module

    random = np.random.default_rng(2)
    codes = random.random((30, 4)) * (random.random((30, 4)) > 0.3)
    embeddings = random.standard_normal((30, 5)).astype(np.float32)
    embeddings[7] = 0
    unit = embeddings / np.maximum(np.linalg.norm(embeddings, axis=1, keepdims=True), 1e-9)
    cosine = unit @ unit.T
    scaled = (codes - codes.min(0)) / (codes.max(0) - codes.min(0))
    there = np.arange(30) != 7
    pairs = [(i, j) for i in range(30) for j in range(i) if there[i] and there[j]]
    above = np.array([sum(a[i] * a[j] * cosine[i, j] for i, j in pairs) for a in scaled.T])
    below = np.array([sum(a[i] * a[j] for i, j in pairs) for a in scaled.T])
    for at_once in (1, 7, 4096):
        monkeypatch.setattr(module, "_AT_ONCE", at_once)
        found = monosemanticity(csr_array(codes.astype(np.float32)), embeddings)
        np.testing.assert_allclose(found, above / below, rtol=1e-4)
    table, mean = by_picture(csr_array(codes), embeddings, [i // 2 for i in range(30)])
    np.testing.assert_allclose(mean[3], (embeddings[6] + embeddings[7]) / 2, rtol=1e-5)
    assert table.shape == (15, 4)


def test_a_smaller_share_of_samples_is_looked_up(stored: Any) -> None:
    """The border between reading through and looking up changes nothing but the order."""
    store, columns = stored
    for count in (COUNT // _blocks._FEW - 1, COUNT // _blocks._FEW + 1):
        ids = [f"s{i}" for i in range(count)][::-1]
        seen = np.full((count, WIDTH), np.nan, np.float32)
        for block in ColumnBlocks(store, LAST, ids, at_once=100):
            seen[block.places] = block.values.numpy()
        np.testing.assert_array_equal(seen, columns[LAST].array[:count][::-1])
