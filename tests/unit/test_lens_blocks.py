"""The logit lens in blocks: whatever their size and order, the numbers are the same."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from vlmlens.abc import AnalysisContext, ColumnBlock, ColumnStore, Values
from vlmlens.errors import CompositionError, StoreError
from vlmlens.registry import Registry
from vlmlens.results import Result
from vlmlens.samples import Sample
from vlmlens.stores.opening import open_named
from vlmlens.stores.sharded import ShardedStore
from vlmlens.testing._rounding import ROUNDING
from vlmlens_plugins.analysis import _blocks
from vlmlens_plugins.analysis._statistics import (
    bootstrap_weights,
    generator,
    resampled_means,
)
from vlmlens_plugins.analysis.logit_lens import LensOptions, LogitLens, tuned_gain

SITES = [f"llm.block.{i}" for i in (2, 4, 5)]
OFF = 64 * ROUNDING
COLUMNS = ["llm.block.*/last", "llm.block.*/text"]


@pytest.fixture(scope="module")
def samples(scenes: list[Sample]) -> list[Sample]:
    return scenes[:24]


@pytest.fixture(scope="module")
def columns(vlm: Any, samples: list[Sample]) -> dict[str, list[Any]]:
    """By column, the rows of each sample."""
    trace = vlm.trace(vlm.encode(samples), SITES)
    found: dict[str, list[Any]] = {}
    for site in SITES:
        found[f"{site}/last"] = [row[None].numpy() for row in trace.select(f"{site}/last")]
        found[f"{site}/text"] = [rows.numpy() for rows in trace.select(f"{site}/text")]
    return found


def write(
    store: ColumnStore, samples: Sequence[Sample], columns: dict[str, list[Any]], order: Any
) -> None:
    values = {}
    for name, parts in columns.items():
        chosen = [parts[i] for i in order]
        lengths = tuple(map(len, chosen)) if name.endswith("text") else None
        values[name] = Values(np.concatenate(chosen), "float32", lengths)
    store.write(ColumnBlock(tuple(samples[i].id for i in order), values))


@pytest.fixture(scope="module")
def plain(
    samples: list[Sample], columns: dict[str, list[Any]], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ColumnStore]:
    """Samples in their order."""
    folder = tmp_path_factory.mktemp("plain")
    with open_named(Registry.default(), "lmdb", str(folder), mode="a") as store:
        write(store, samples, columns, range(len(samples)))
        yield store


@pytest.fixture(scope="module")
def shuffled(
    samples: list[Sample], columns: dict[str, list[Any]], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ColumnStore]:
    """Two stores as one, in which samples lie in an order of their own."""
    folder = tmp_path_factory.mktemp("shards")
    order = np.random.default_rng(0).permutation(len(samples))
    parts = [open_named(Registry.default(), "lmdb", str(folder / n), mode="a") for n in "ab"]
    write(parts[0], samples, columns, order[:15])
    write(parts[1], samples, columns, order[15:])
    with ShardedStore(parts) as store:
        yield store


def analysed(vlm: Any, samples: Sequence[Sample], store: ColumnStore, /, **options: Any) -> Result:
    lens = LogitLens(LensOptions(**{"columns": COLUMNS, "words": ["red"], **options}))
    return lens.run(AnalysisContext(samples, store, lambda: vlm))


def same(one: Result, other: Result) -> None:
    """Tables and figures agree to rounding."""
    assert [table.name for table in one.tables] == [table.name for table in other.tables]
    for mine, its in zip(one.tables, other.tables, strict=True):
        for name in mine.columns:
            cells = [near(value) for value in its.columns[name]]
            assert list(mine.columns[name]) == cells, f"{mine.name}: {name}"
    for first, second in zip(one.figures, other.figures, strict=True):
        assert [sheet.sample for sheet in first.sheets] == [s.sample for s in second.sheets]
        for a, b in zip(first.sheets, second.sheets, strict=True):
            assert a.texts == b.texts
            np.testing.assert_allclose(np.array(a.cells), np.array(b.cells), atol=2e-4)


def near(value: Any) -> Any:
    return pytest.approx(value, rel=OFF, abs=2 * OFF) if isinstance(value, float) else value


@pytest.fixture(scope="module")
def whole(vlm: Any, samples: list[Sample], plain: ColumnStore) -> Result:
    return analysed(vlm, samples, plain, samples=1)


def test_small_blocks_of_shards_in_another_order_change_nothing(
    vlm: Any, samples: list[Sample], shuffled: ColumnStore, whole: Result
) -> None:
    told: list[tuple[int, int]] = []
    lens = LogitLens(LensOptions(columns=COLUMNS, words=["red"], samples=1, chunk=1))
    context = AnalysisContext(
        samples, shuffled, lambda: vlm, progress=lambda *step: told.append(step)
    )
    same(lens.run(context), whole)
    assert told == sorted(told)
    assert told[-1][0] == told[-1][1]


@pytest.mark.parametrize("mistake", ["dropped", "mixed"])
def test_a_mistake_in_reading_blocks_would_be_seen(
    mistake: str,
    vlm: Any,
    samples: list[Sample],
    shuffled: ColumnStore,
    whole: Result,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    right = _blocks.ColumnBlocks._blocks

    def wrong(self: Any) -> Iterator[_blocks.Block]:
        for number, block in enumerate(right(self)):
            if mistake == "mixed":
                yield _blocks.Block(np.roll(block.places, 1), block.values)
            elif number != 1:
                yield block

    monkeypatch.setattr(_blocks.ColumnBlocks, "_blocks", wrong)
    with pytest.raises((AssertionError, StoreError, CompositionError)):
        same(analysed(vlm, samples, shuffled, samples=1, chunk=1), whole)


def test_settling_is_that_of_the_models_readout_row_by_row(
    vlm: Any, samples: list[Sample], columns: dict[str, list[Any]], shuffled: ColumnStore
) -> None:
    found = analysed(vlm, samples, shuffled, columns=["llm.block.*/last"], chunk=1)
    table = found.table("lens-settling").columns
    settled = dict(zip(table["sample"], table["settling"], strict=True))
    readout = vlm.readout()
    for i, sample in enumerate(samples):
        rows = np.concatenate([columns[f"{site}/last"][i] for site in SITES])
        top = readout(torch.from_numpy(rows)).argmax(-1).tolist()
        wrong = [layer for layer, token in enumerate(top) if token != top[-1]]
        assert settled[sample.id] == (wrong[-1] + 1 if wrong else 0)


def test_one_sample_and_some_of_the_columns_samples(
    vlm: Any, samples: list[Sample], plain: ColumnStore, whole: Result
) -> None:
    """Few samples are read by their ids."""
    alone = analysed(vlm, samples[7:8], plain, samples=1)
    settling = alone.table("lens-settling").columns
    every = whole.table("lens-settling").columns
    place = every["sample"].index(samples[7].id)  # type: ignore[union-attr]
    assert settling["sample"] == [samples[7].id]
    assert settling["settling"] == [every["settling"][place]]


def test_a_sample_without_rows_is_named_before_the_model_reads(
    vlm: Any, samples: list[Sample], scenes: list[Sample], plain: ColumnStore
) -> None:
    with pytest.raises(StoreError, match=scenes[30].id):
        analysed(vlm, [*samples, scenes[30]], plain)


@pytest.mark.parametrize("selector", ["last", "text"])
def test_samples_that_cannot_be_read_are_left_out_and_said(
    selector: str, vlm: Any, samples: list[Sample], columns: dict[str, list[Any]], tmp_path: Path
) -> None:
    """The first has no row, where that can be; one in the middle is not finite."""
    spoilt = {name: list(parts) for name, parts in columns.items() if selector in name}
    for site in SITES:
        own = spoilt[f"{site}/{selector}"]
        own[9] = np.full_like(own[9], np.nan)
        own[0] = own[0][:0] if selector == "text" else own[0]
    out = {9, 0} if selector == "text" else {9}
    told: list[str] = []
    with open_named(Registry.default(), "lmdb", str(tmp_path / "bad"), mode="a") as store:
        write(store, samples, spoilt, range(len(samples)))
        lens = LogitLens(
            LensOptions(
                columns=[f"llm.block.*/{selector}"], samples=[samples[9].id, samples[10].id]
            )
        )
        found = lens.run(AnalysisContext(samples, store, lambda: vlm, warn=told.append))
    assert any(f"{len(out)} of 24 samples are left out" in each for each in told)
    kept = [i for i in range(len(samples)) if i not in out]
    with open_named(Registry.default(), "lmdb", str(tmp_path / "good"), mode="a") as store:
        some = {name: parts for name, parts in columns.items() if selector in name}
        write(store, samples, some, range(len(samples)))
        options = LensOptions(columns=[f"llm.block.*/{selector}"], samples=[samples[10].id])
        context = AnalysisContext([samples[i] for i in kept], store, lambda: vlm)
        same(found, LogitLens(options).run(context))


def test_where_no_sample_is_finite_it_is_an_error(
    vlm: Any, samples: list[Sample], columns: dict[str, list[Any]], tmp_path: Path
) -> None:
    empty = {name: [p[:0] for p in parts] for name, parts in columns.items() if "text" in name}
    with open_named(Registry.default(), "lmdb", str(tmp_path / "none"), mode="a") as store:
        write(store, samples, empty, range(len(samples)))
        with pytest.raises(CompositionError, match="No sample has positions text"):
            analysed(vlm, samples, store, columns=["llm.block.*/text"])


def test_a_tuned_lens_is_trained_on_positions_from_all_over_the_run(
    vlm: Any, samples: list[Sample], plain: ColumnStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tuned_gain, "_ROWS", 6)
    context = AnalysisContext(samples, plain, lambda: vlm)
    numbers = np.arange(len(samples))
    chosen = tuned_gain._places(context, "llm.block.5/last", numbers, 6)
    places = [[sample.id for sample in samples].index(name) for name in chosen]
    assert places == [0, 5, 9, 14, 18, 23]


def test_resampled_means_in_parts_are_those_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    sums, counts = np.arange(40) % 7, 1 + np.arange(40) % 3
    weights = bootstrap_weights(40, 50, generator(0, "x"))
    expected = (weights @ sums) / (weights @ counts)
    monkeypatch.setattr("vlmlens_plugins.analysis._statistics._WEIGHTS", 130)
    found = resampled_means(sums, counts, 50, generator(0, "x"))
    np.testing.assert_allclose(found, expected, rtol=1e-12)
