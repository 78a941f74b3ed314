"""Columns that do not fit in memory: probed in blocks, they give what they give in memory."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.linear_model import Ridge as ScikitRidge
from tests.unit.test_probe_families import target_of

from vlmlens_plugins.analysis.probe.cross_validation import Evaluation, evaluate, silent
from vlmlens_plugins.analysis.probe.equal_rows import EqualRows
from vlmlens_plugins.analysis.probe.large import closed
from vlmlens_plugins.analysis.probe.large.partition import Partition, with_inner
from vlmlens_plugins.analysis.probe.large.probes import LargeProbes
from vlmlens_plugins.analysis.probe.large.scratch import Scratch
from vlmlens_plugins.analysis.probe.large.sums import (
    NotFinite,
    Sums,
    add_products,
    numbers_as_labels,
)
from vlmlens_plugins.analysis.probe.large.tally import Tally
from vlmlens_plugins.analysis.probe.options import ProbeOptions
from vlmlens_plugins.analysis.probe.probe_kinds import family
from vlmlens_plugins.analysis.probe.splits import Split, across, by_value, folded

CPU = torch.device("cpu")
N, WIDTH, SEEDS = 400, 30, 4


@dataclass
class Rows:
    """Rows in blocks, in another order than the samples'."""

    x: Any
    size: int = 37

    @property
    def count(self) -> int:
        return len(self.x)

    @property
    def width(self) -> int:
        return int(self.x.shape[1])

    def __iter__(self) -> Iterator[Any]:
        order = np.random.default_rng(5).permutation(len(self.x))
        for start in range(0, len(order), self.size):
            places = order[start : start + self.size]
            yield places, self.x[places]


def planted(classes: int, seed: int = 0) -> tuple[Any, Any]:
    """Class numbers, and rows off the origin, of unlike scales, with a feature that is constant."""
    rng = np.random.default_rng(seed)
    y = rng.integers(0, classes, N)
    x = rng.normal(size=(N, WIDTH)) + 1.2 * np.eye(classes, WIDTH)[y]
    x = x * np.linspace(0.1, 30, WIDTH) + 50
    x[:, 7] = 2.5
    return y, x.astype(np.float32)


def numbers(seed: int = 0) -> tuple[Any, Any]:
    _, x = planted(2, seed)
    rng = np.random.default_rng(seed + 1)
    return (x - x.mean(0)) @ rng.normal(size=WIDTH) + rng.normal(size=N), x


def labels_of(y: Any) -> Any:
    rng = np.random.default_rng(9)
    made = np.stack([y, *(rng.permutation(y) for _ in range(SEEDS))])
    return made if made.dtype.kind == "f" else made.astype(np.int16)


def both(
    y: Any, x: Any, split: Split, options: ProbeOptions, groups: Any = None
) -> tuple[Evaluation, Evaluation]:
    """In memory, and in blocks."""
    target, labels = target_of(y, groups), labels_of(y)
    (whole,) = evaluate([x], labels, split, family(options, target, 0), CPU)
    large = LargeProbes(options, target, 0, CPU, Scratch())
    return whole, large.evaluate(Rows(x), labels, split, EqualRows(), silent)


def unlike_splits() -> dict[str, Split]:
    cell = np.arange(N) % 5
    return {
        "folds": folded(cell),
        "values": by_value([None if i % 9 == 0 else str(i % 3) for i in range(N)], np.arange(N)),
        "other run": across(300, np.arange(N)),
    }


@pytest.mark.parametrize("split", ["folds", "values", "other run"])
@pytest.mark.parametrize(("grid", "room"), [([0.01], 2**28), ([1e-4, 1e-3, 0.1], 16 * WIDTH**2)])
def test_ridge_is_what_it_is_in_memory(
    split: str, grid: list[float], room: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With room for all products, and for two at a time, where others lie on disk."""
    monkeypatch.setattr("vlmlens_plugins.analysis.probe.large.sums._PRODUCTS", room)
    y, x = numbers()
    whole, large = both(y, x, unlike_splits()[split], ProbeOptions(model="ridge", C=grid))
    tested = unlike_splits()[split].tested
    assert np.abs(whole.held_out - large.held_out)[:, tested].max() <= 3e-6 * np.ptp(y)
    np.testing.assert_allclose(large.train_score, whole.train_score, atol=1e-6)
    np.testing.assert_allclose(large.strengths, whole.strengths)


def test_ridge_is_scikit_learns_in_double_precision() -> None:
    """Independent of both: to 1e-9, where single precision would end at 1e-5."""
    y, x = numbers()
    split = unlike_splits()["folds"]
    large = LargeProbes(ProbeOptions(model="ridge", C=[0.01]), target_of(y), 0, CPU, Scratch())
    found = large.evaluate(Rows(x), y[None], split, None, silent)
    exact = x.astype(np.float64)
    scale = exact.std(0)
    z = (exact - exact.mean(0)) / np.where(scale > 1e-9, scale, np.inf)
    for cell in range(5):
        own = ScikitRidge(alpha=100.0).fit(z[split.train[cell]], y[split.train[cell]])
        held = split.cell == cell
        np.testing.assert_allclose(found.held_out[0, held], own.predict(z[held]), atol=1e-8)


@pytest.mark.parametrize("classes", [2, 5])
@pytest.mark.parametrize("split", ["folds", "values"])
def test_centroids_are_what_they_are_in_memory(split: str, classes: int) -> None:
    y, x = planted(classes)
    whole, large = both(y, x, unlike_splits()[split], ProbeOptions(model="centroid"))
    tested = unlike_splits()[split].tested
    assert (whole.held_out != large.held_out)[:, tested].mean() <= 1e-3
    np.testing.assert_allclose(large.train_score, whole.train_score, atol=1e-3)


def test_label_vectors_that_take_turns_are_what_they_are_together(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    y, x = planted(4)
    _, together = both(y, x, unlike_splits()["folds"], ProbeOptions(model="centroid"))
    monkeypatch.setattr("vlmlens_plugins.analysis.probe.large.probes._SUMS", 2 * 5 * WIDTH * 4 * 8)
    large = LargeProbes(ProbeOptions(model="centroid"), target_of(y), 0, CPU, Scratch())
    told: list[float] = []
    turns = large.evaluate(Rows(x), labels_of(y), unlike_splits()["folds"], None, told.append)
    assert told == sorted(told)
    assert told[-1] == pytest.approx(1)
    np.testing.assert_array_equal(turns.held_out, together.held_out)
    np.testing.assert_allclose(turns.train_score, together.train_score)


def test_labels_and_outputs_of_many_classes_come_in_pieces(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A block of a narrow column has many rows, and each has outputs for all classes and folds."""
    y, x = planted(4)
    split, options = unlike_splits()["folds"], ProbeOptions(model="centroid")
    _, at_once = both(y, x, split, options)
    monkeypatch.setattr("vlmlens_plugins.analysis.probe.large.sums._NUMBERS", 500)
    seen: list[int] = []
    plain = Tally.see

    def see(tally: Tally, places: Any, out: Any) -> None:
        seen.append(out.size)
        plain(tally, places, out)

    monkeypatch.setattr(Tally, "see", see)
    _, found = both(y, x, split, options)
    assert max(seen) <= 500
    np.testing.assert_array_equal(found.held_out, at_once.held_out)
    np.testing.assert_allclose(found.train_score, at_once.train_score)


def test_a_fold_that_is_left_in_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    """A deliberate mistake: training sums that hold the tested rows, too."""
    rng = np.random.default_rng(4)
    y, x = rng.normal(size=60), rng.normal(size=(60, 50)).astype(np.float32)
    split = folded(np.arange(60) % 5)
    options = ProbeOptions(model="ridge", C=[10.0])
    large = LargeProbes(options, target_of(y), 0, CPU, Scratch())
    honest = large.evaluate(Rows(x), y[None], split, None, silent)
    plain = closed.Ridge.fit

    def leaky(self: Any, train: Any, *rest: Any) -> Any:
        return plain(self, np.ones_like(train), *rest)

    monkeypatch.setattr(closed.Ridge, "fit", leaky)
    cheated = large.evaluate(Rows(x), y[None], split, None, silent)
    lost = [((found.held_out[0] - y) ** 2).mean() for found in (honest, cheated)]
    assert lost[0] > 1
    assert lost[1] < 0.5


@pytest.mark.filterwarnings("ignore:The least populated class")
def test_a_class_with_one_sample_and_one_that_a_training_part_lacks() -> None:
    y, x = planted(3)
    y = np.where(np.arange(N) == 3, 2, y % 2)
    whole, large = both(y, x, unlike_splits()["folds"], ProbeOptions(model="centroid"))
    assert (whole.held_out != large.held_out).mean() <= 1e-3
    whole, large = both(y, x, unlike_splits()["folds"], ProbeOptions(C=[0.1]))
    assert (whole.held_out != large.held_out).mean() <= 0.005


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("model", ["logistic", "centroid", "ridge"])
def test_one_bad_value_in_one_block_is_seen(model: Any, bad: float) -> None:
    y, x = numbers() if model == "ridge" else planted(2)
    x[211, 3] = bad
    large = LargeProbes(ProbeOptions(model=model), target_of(y), 0, CPU, Scratch())
    with pytest.raises(NotFinite):
        large.evaluate(Rows(x), labels_of(y), unlike_splits()["folds"], None, silent)


def test_values_that_cannot_be_squared_are_seen() -> None:
    y, x = planted(2)
    huge = x.astype(np.float64)
    huge[5, 5] = 1e200
    large = LargeProbes(ProbeOptions(model="centroid"), target_of(y), 0, CPU, Scratch())
    with pytest.raises(NotFinite):
        large.evaluate(Rows(huge), labels_of(y), unlike_splits()["folds"], None, silent)


@pytest.mark.parametrize("model", ["logistic", "centroid", "ridge"])
def test_equal_rows_are_found_in_blocks_as_in_memory(model: Any) -> None:
    y, x = numbers() if model == "ridge" else planted(2)
    x[200:] = x[:200] * np.float32(1 + 1e-7)
    split = folded(np.arange(N) // 7 % 5)
    groups = np.arange(N)
    known, seen = EqualRows(), EqualRows()
    known.see(x)
    large = LargeProbes(ProbeOptions(model=model, C=[0.1]), target_of(y), 0, CPU, Scratch())
    large.evaluate(Rows(x), labels_of(y)[:1], split, seen, silent)
    found, expected = seen.on_both_sides(split, groups), known.on_both_sides(split, groups)
    assert expected > 200
    assert abs(found - expected) <= 0.05 * expected


def test_sums_of_a_partition_give_those_of_every_training_set() -> None:
    rng = np.random.default_rng(0)
    train = rng.random((4, 90)) < 0.6
    sets = with_inner(train, np.arange(90) % 3)
    partition = Partition.of(sets)
    for one, parts in zip(sets, partition.sets, strict=True):
        np.testing.assert_array_equal(parts[partition.part], one)
    x, y = rng.normal(size=(90, 6)), rng.normal(size=(2, 90))
    made = Sums.collect(Rows(x), partition, numbers_as_labels(y), Scratch(), silent)
    for one, parts in zip(sets, partition.sets, strict=True):
        centred = np.tril(made.centred(parts, np.empty((6, 6), order="F")))
        own = x[one] - x[one].mean(0)
        np.testing.assert_allclose(centred, np.tril(own.T @ own), atol=1e-10)
        vector = rng.normal(size=6)
        shifted = (x[one] - made.shift) @ vector
        assert made.squared(parts, vector) == pytest.approx(float(shifted @ shifted))


def test_products_are_added_in_place() -> None:
    """A copy in BLAS's wrapper would lose them without a word."""
    into = np.zeros((3, 3), order="F")
    rows = np.arange(6.0).reshape(2, 3)
    add_products(into, rows)
    add_products(into, rows)
    np.testing.assert_allclose(np.tril(into), np.tril(2 * rows.T @ rows))


def test_a_probe_of_all_rows_is_that_of_memory() -> None:
    """As exported: for raw features."""
    y, x = numbers()
    large = LargeProbes(ProbeOptions(model="ridge"), target_of(y), 0, CPU, Scratch())
    made = large.trained(Rows(x), y[None], 0.01)
    told = (x - made.shift) @ made.weights[:, 0, 0] + made.bias[0, 0]
    split = Split(np.zeros(N, np.int64), np.ones((1, N), bool), np.zeros(N, np.int64))
    options = ProbeOptions(model="ridge", C=[0.01])
    (whole,) = evaluate([x], y[None], split, family(options, target_of(y), 0), CPU)
    np.testing.assert_allclose(told[:, 0], whole.held_out[0], atol=1e-4 * np.ptp(y))
