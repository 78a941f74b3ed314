"""`concepts` in blocks of a few rows: the numbers are those of the whole column at once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.unit._concepts import FAST, clusters, samples_of

from vlmlens.abc import AnalysisContext, ColumnStore
from vlmlens.abc.storage import ColumnBlock, Values
from vlmlens.registry import Registry
from vlmlens.results import Result, Table
from vlmlens.stores.opening import open_named
from vlmlens.stores.sharded import ShardedStore
from vlmlens_plugins.analysis import _blocks
from vlmlens_plugins.analysis.concepts import Concepts, measuring, pca, rows
from vlmlens_plugins.analysis.concepts.neighbours import find_neighbours
from vlmlens_plugins.analysis.concepts.options import ConceptsOptions
from vlmlens_plugins.analysis.steering.files import open_direction

FLAT, RAGGED = "llm.block.0/last", "llm.block.1/image"
X, Y = clusters(per_class=40, apart=3.0)
"""120 samples of three concepts."""
SAMPLES = samples_of([f"c{y}" for y in Y], (np.arange(len(Y)) // 2).tolist())
LENGTHS = [1 + i % 4 for i in range(len(Y))]


def patches(i: int) -> Any:
    """Rows whose mean is the sample's row."""
    noise = np.random.default_rng(i).normal(size=(LENGTHS[i], X.shape[1]))
    return (X[i] + noise - noise.mean(0)).astype("<f4")


def write(store: ColumnStore, numbers: Sequence[int]) -> None:
    for start in range(0, len(numbers), 16):
        some = numbers[start : start + 16]
        parts = [patches(i) for i in some]
        lengths = tuple(map(len, parts))
        values = {
            FLAT: Values(X[list(some)].astype("<f4"), "float32"),
            RAGGED: Values(np.concatenate(parts), "float32", lengths),
        }
        store.write(ColumnBlock(tuple(f"s{i}" for i in some), values))


@pytest.fixture(scope="module")
def shuffled(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ColumnStore]:
    """Two LMDB stores as one; samples lie in an order of their own."""
    folder, order = tmp_path_factory.mktemp("shards"), np.random.default_rng(5).permutation(len(Y))
    parts = [open_named(Registry.default(), "lmdb", str(folder / n), mode="a") for n in "ab"]
    write(parts[0], order[:70].tolist())
    write(parts[1], order[70:].tolist())
    with ShardedStore(parts) as store:
        yield store


def analysed(
    store: ColumnStore, folder: Path | None = None, told: list[str] | None = None, **options: Any
) -> Result:
    analysis = Concepts(ConceptsOptions(**{**FAST, **options}))
    warn = (told if told is not None else []).append
    context = AnalysisContext(SAMPLES, store, _no_model, folder=folder, warn=warn)
    return analysis.run(context)


def _no_model() -> Any:
    raise AssertionError("it needs no model")


def numbers(table: Table) -> list[Any]:
    return [list(row) for row in zip(*table.columns.values(), strict=True)]


def near(value: Any) -> Any:
    return pytest.approx(value, rel=1e-4, abs=1e-5) if isinstance(value, float) else value


@pytest.fixture(autouse=True)
def few_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks of five rows, and float64 of seven."""
    monkeypatch.setattr(_blocks, "AT_ONCE", 4 * X.shape[1] * 5)
    monkeypatch.setattr(rows, "_NUMBERS", X.shape[1] * 7)


def test_blocks_give_what_the_whole_column_gives(
    shuffled: ColumnStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folders = [tmp_path / "few", tmp_path / "whole"]
    for folder in folders:
        folder.mkdir()
    few = analysed(shuffled, folders[0], samples=60)
    monkeypatch.setattr(_blocks, "AT_ONCE", 2**25)
    monkeypatch.setattr(rows, "_NUMBERS", 2**22)
    whole = analysed(shuffled, folders[1], samples=60)
    assert [table.name for table in few.tables] == [table.name for table in whole.tables]
    for one, other in zip(few.tables, whole.tables, strict=True):
        for mine, its in zip(numbers(one), numbers(other), strict=True):
            assert mine == [near(value) for value in its]
    for file in sorted(path.name for path in folders[0].iterdir()):
        vectors = [open_direction(str(folder / file)).vector for folder in folders]
        np.testing.assert_allclose(vectors[0], vectors[1], rtol=1e-4, atol=1e-5)


def test_components_and_projections_are_those_of_plain_numpy(
    shuffled: ColumnStore, tmp_path: Path
) -> None:
    """Components are of all samples, though 60 are drawn; projections of each in its place."""
    result = analysed(shuffled, tmp_path, samples=60)
    moved = X.astype(np.float64) - X.astype(np.float64).mean(0)
    variances = np.linalg.svd(moved, compute_uv=False) ** 2
    table = result.table("concepts-columns").columns
    for i in range(3):
        share = variances[i] / variances.sum()
        assert table[f"variance_{i + 1}"] == [pytest.approx(share, rel=1e-4)] * 2
    file = next(str(path) for path in sorted(tmp_path.iterdir()) if "llm-block-1" in path.name)
    projected = analysed(shuffled, onto=[file], columns=[FLAT]).table("concepts-projected").columns
    direction = open_direction(file)
    v = direction.vector.astype(np.float64)
    expected = X @ v / (v @ v) - float(direction.origin["zero"])
    assert projected["sample"] == [sample.id for sample in SAMPLES]
    np.testing.assert_allclose(projected["projection"], expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("mistake", ["dropped", "mixed"])
def test_a_mistake_in_reading_blocks_would_be_seen(
    mistake: str, shuffled: ColumnStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    right = _blocks.ColumnBlocks._blocks

    def wrong(self: Any) -> Iterator[_blocks.Block]:
        for number, block in enumerate(right(self)):
            if mistake == "mixed":
                yield _blocks.Block(block.places[::-1], block.values)
            elif number != 2:
                yield block

    monkeypatch.setattr(_blocks.ColumnBlocks, "_blocks", wrong)
    with pytest.raises(Exception, match=r"has no value|not equal|Mismatch"):
        test_components_and_projections_are_those_of_plain_numpy(shuffled, tmp_path)


def test_what_was_drawn_is_said_with_the_agreement_of_two_halves(shuffled: ColumnStore) -> None:
    result = analysed(shuffled, samples=60)
    (said,) = [note for note in result.notes if "were drawn" in note]
    assert "60 of 120 samples" in said
    halves = result.table("concepts-directions").columns["halves"]
    assert f"{np.median(halves[:3]):.3f}" in said or f"{np.median(halves[3:]):.3f}" in said
    assert all(0.8 < h < 1 for h in halves)
    noise = samples_of([f"c{y}" for y in np.random.default_rng(1).permutation(Y)])
    context = AnalysisContext(noise, shuffled, _no_model)
    control = Concepts(ConceptsOptions(**FAST)).run(context)
    assert abs(np.mean(control.table("concepts-directions").columns["halves"])) < 0.4
    assert not [note for note in control.notes if "were drawn" in note]


def test_very_wide_rows_are_drawn_less_often_and_that_is_said(
    shuffled: ColumnStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(measuring, "MOST", 4 * X.shape[1] * 50)
    told: list[str] = []
    result = analysed(shuffled, told=told)
    assert sum(result.table("concepts-sets").columns["used"]) == 50
    assert any("of 50 samples of a set at most, not of 2,000" in each for each in told)


def test_a_row_that_is_not_finite_leaves_its_column_out(tmp_path: Path) -> None:
    with open_named(Registry.default(), "lmdb", str(tmp_path / "s"), mode="a") as store:
        rows = X.astype("<f4")
        bad = rows.copy()
        bad[77, 2] = np.nan
        ids = tuple(sample.id for sample in SAMPLES)
        values = {FLAT: Values(rows, "float32"), "llm.block.1/last": Values(bad, "float32")}
        store.write(ColumnBlock(ids, values))
        told: list[str] = []
        result = analysed(store, told=told, samples=60)
    assert result.table("concepts-columns").columns["column"] == [FLAT]
    assert any("llm.block.1/last was not measured" in each for each in told)


@pytest.mark.parametrize(("count", "width"), [(50, 6), (9, 90)])
def test_components_of_rows_in_parts(count: int, width: int) -> None:
    given = np.random.default_rng(0).normal(size=(count, width)).astype(np.float32) + 3
    _, values, axes = np.linalg.svd(given - given.mean(0), full_matrices=False)
    found = pca.of_rows(given, 3)
    np.testing.assert_allclose(found.shares, (values**2 / (values**2).sum())[:3], rtol=1e-4)
    assert (np.abs((found.axes * axes[:3]).sum(1)) > 1 - 1e-4).all()


def test_votes_in_parts_are_those_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    found = find_neighbours(X, np.arange(len(X)), 5, "cosine")
    labels = np.stack([np.random.default_rng(i).permutation(Y) for i in range(9)])
    whole = found.votes(labels, 3)
    monkeypatch.setattr("vlmlens_plugins.analysis.concepts.neighbours._VOTES", 9 * 5 * 11)
    assert np.array_equal(found.votes(labels, 3), whole)
