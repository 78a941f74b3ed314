"""Similarity of more samples than are held at once: what is read, drawn and said."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from vlmlens.abc import AnalysisContext, ColumnBlock, Values
from vlmlens.cka import Cka, drawn, linear_cka
from vlmlens.registry import Registry
from vlmlens.results import Result
from vlmlens.samples import Sample
from vlmlens.stores.opening import open_named
from vlmlens.stores.sharded import ShardedStore
from vlmlens_plugins.analysis.similarity import Similarity
from vlmlens_plugins.analysis.similarity.options import SimilarityOptions

Array = npt.NDArray[Any]
COUNT, WIDTH = 600, 8
NAMES = [f"llm.block.{i}/last" for i in range(3)]


def rows(seed: int) -> Array:
    return np.random.default_rng(seed).normal(size=(COUNT, WIDTH))


X = rows(0)
COLUMNS = [X + 3, X @ rows(1)[:WIDTH] + 2 * rows(2), rows(3)]


# ---------------------------------------------------------------------- large blocks in pieces


@pytest.fixture
def pieces(monkeypatch: pytest.MonkeyPatch) -> int:
    """Rows that are read at once."""
    for module in ("_blocks", "_estimate"):
        monkeypatch.setattr(f"vlmlens.cka.{module}.TOGETHER", 64)
    return 64


def cka(columns: list[Array], asked: list[int], **options: Any) -> Cka:
    def read(column: int, which: npt.NDArray[np.intp]) -> Array:
        asked.append(len(which))
        return columns[column][which]

    names = [f"g{i // 2}" for i in range(COUNT)]
    return linear_cka(read, len(columns), names, block=COUNT, seed=1, **options)


@pytest.mark.parametrize("memory", [2**29, 8 * 3 * 300 * 150, 8 * 3 * 300 * 7])
def test_a_block_in_pieces_is_the_block_at_once(memory: int, request: Any) -> None:
    """As one kernel, in strips higher than a piece, and in lower ones."""
    whole = cka(COLUMNS, [])
    most, asked = request.getfixturevalue("pieces"), list[int]()
    found = cka(COLUMNS, asked, memory=memory)
    assert max(asked) <= most
    assert found.blocks == whole.blocks == 2
    np.testing.assert_allclose(found.value, whole.value, atol=1e-12)
    np.testing.assert_allclose(found.error, whole.error, rtol=1e-8, atol=1e-12)


def test_pieces_see_constant_and_broken_columns(pieces: int) -> None:
    bad = X.copy()
    bad[533, 1] = np.nan
    flat = np.full((COUNT, WIDTH), 1e4) + 1e-4 * X
    found = cka([*COLUMNS, bad, flat], [])
    assert (found.broken, found.constant) == ({3}, {4})
    np.testing.assert_allclose(found.value[:3, :3], cka(COLUMNS, []).value, atol=1e-12)


def test_a_piece_that_is_left_out_would_be_seen(pieces: int) -> None:
    def read(column: int, which: npt.NDArray[np.intp]) -> Array:
        return COLUMNS[column][which] * (which[:, None] < 500)

    names = [str(i) for i in range(COUNT)]
    wrong = linear_cka(read, 3, names, block=COUNT)
    right = linear_cka(lambda c, which: COLUMNS[c][which], 3, names, block=COUNT)
    assert abs(wrong.value - right.value).max() > 0.02


# ---------------------------------------------------------------------- drawing


def test_as_many_groups_are_drawn_as_there_are() -> None:
    groups = ["a"] * 500 + ["b"] * 60 + [f"c{i}" for i in range(10)]
    chosen = drawn(groups, 40, np.random.default_rng(0))
    assert list(chosen) == sorted(set(chosen.tolist()))
    counts = Counter(groups[i] for i in chosen)
    assert (counts["a"], counts["b"]) == (15, 15)
    assert sum(counts.values()) == 40
    assert len(counts) == 12
    again = drawn(groups, 40, np.random.default_rng(0))
    assert np.array_equal(chosen, again)
    assert drawn(groups, 570, np.random.default_rng(0)).tolist() == list(range(570))


def test_any_sample_of_a_group_can_be_drawn() -> None:
    groups = [str(i // 5) for i in range(2000)]
    chosen = drawn(groups, 400, np.random.default_rng(0))
    assert len({groups[i] for i in chosen}) == 400
    assert all(40 < (chosen % 5 == place).sum() < 120 for place in range(5))


# ---------------------------------------------------------------------- the analysis


def store_in_order(folder: Path, order: npt.NDArray[np.int64]) -> ShardedStore:
    """Two LMDB stores as one."""
    parts = [open_named(Registry.default(), "lmdb", str(folder / n), mode="a") for n in "ab"]
    for part, some in zip(parts, np.split(order, [250]), strict=True):
        values = {
            name: Values(np.ascontiguousarray(x[some], "<f4"), "float32")
            for name, x in zip(NAMES, COLUMNS, strict=True)
        }
        part.write(ColumnBlock(tuple(f"s{i}" for i in some), values))
    return ShardedStore(parts)


def analysed(folder: Path, order: npt.NDArray[np.int64], **options: Any) -> Result:
    def no_model() -> Any:
        raise AssertionError("no model is needed")

    samples = [Sample(f"s{i}", "What?", group=f"g{i // 2}") for i in range(COUNT)]
    with store_in_order(folder, order) as store:
        analysis = Similarity(SimilarityOptions(permutations=19, **options))
        return analysis.run(AnalysisContext(samples, store, no_model))


def test_the_order_in_a_store_changes_nothing(tmp_path: Path) -> None:
    order = np.random.default_rng(4).permutation(COUNT)
    results = [
        analysed(tmp_path / name, order, samples=400, block=150)
        for name, order in (("plain", np.arange(COUNT)), ("mixed", order))
    ]
    first, second = (result.table("similarity-pairs").columns for result in results)
    for name in first:
        assert first[name] == second[name]


def test_what_was_drawn_is_said_with_its_error_and_is_near_the_whole(tmp_path: Path) -> None:
    whole = analysed(tmp_path / "whole", np.arange(COUNT))
    some = analysed(tmp_path / "some", np.arange(COUNT), samples=200)
    assert not [note for note in whole.notes if "drawn by the seed, of as many" in note]
    (said,) = [note for note in some.notes if "drawn by the seed, of as many" in note]
    assert "200 of 600 samples" in said
    errors = some.table("similarity-pairs").columns["cka_error"]
    assert f"{max(errors):.1g}" in said  # type: ignore[type-var]
    pairs = zip(
        whole.table("similarity-pairs").columns["cka"],
        some.table("similarity-pairs").columns["cka"],
        errors,
        strict=True,
    )
    assert all(abs(a - b) < 4 * error for a, b, error in pairs)  # type: ignore[operator]
    assert "over 200 samples of 200 groups" in some.notes[0]
