"""Logistic probes of large columns: exact, whatever the spectrum, in few passes over the rows."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from tests.unit.test_probe_families import target_of
from tests.unit.test_probe_large import CPU, WIDTH, N, Rows, both, labels_of, planted, unlike_splits

from vlmlens_plugins.analysis.probe.cross_validation import Evaluation, silent
from vlmlens_plugins.analysis.probe.large import descent, probes, projection
from vlmlens_plugins.analysis.probe.large.probes import LargeProbes
from vlmlens_plugins.analysis.probe.large.scratch import Scratch
from vlmlens_plugins.analysis.probe.large.spectrum import Spectrum, principal
from vlmlens_plugins.analysis.probe.options import ProbeOptions
from vlmlens_plugins.analysis.probe.splits import assign_folds, folded

SAMPLES, FEATURES = 1200, 96


@dataclass(frozen=True)
class Planted:
    """A column, its labels, its folds, and the strength it is probed at."""

    x: Any
    y: Any
    fold: Any
    c: float
    classes: int

    def probed(self, labels: Any = None, **options: Any) -> Evaluation:
        large = LargeProbes(
            ProbeOptions(C=[self.c], **options), target_of(self.y), 0, CPU, Scratch()
        )
        known = self.y[None] if labels is None else labels
        return large.evaluate(Rows(self.x, 173), known, folded(self.fold), None, silent)

    @property
    def standardized(self) -> Any:
        exact = self.x.astype(np.float64)
        return (exact - exact.mean(0)) / exact.std(0)

    def scikit_learns(self, y: Any) -> Any:
        """Held-out predictions, in double precision, near the optimum."""
        z, found = self.standardized, np.empty_like(y)
        for cell in range(5):
            held = self.fold == cell
            own = LogisticRegression(C=self.c, tol=1e-8, solver="newton-cg").fit(z[~held], y[~held])
            found[held] = own.predict(z[held])
        return found


@cache
def spread(decay: float, classes: int, where: str, c: float, rare: bool = False) -> Planted:
    """Variances `i^-decay`; labels move directions in proportion to their deviation."""
    rng = np.random.default_rng(3)
    share = 0.5 ** np.arange(classes) if rare else np.ones(classes)
    y = rng.choice(classes, SAMPLES, p=np.maximum(share, 0.05) / np.maximum(share, 0.05).sum())
    moved = {"all": slice(None), "top": slice(12), "tail": slice(FEATURES // 2, None)}[where]
    means = np.zeros((classes, FEATURES))
    means[:, moved] = 1
    means *= rng.normal(size=means.shape) * 1.3 / np.sqrt(means.sum(1, keepdims=True))
    x = (rng.normal(size=(SAMPLES, FEATURES)) + means[y]) * (1 + np.arange(FEATURES)) ** (
        -decay / 2
    )
    x = x @ np.linalg.qr(rng.normal(size=(FEATURES, FEATURES)))[0]
    x = x * np.exp(rng.normal(size=FEATURES)) + 5
    fold = assign_folds(y, np.arange(SAMPLES), folds=5, seed=0)
    return Planted(x.astype(np.float32), y, fold, c, classes)


@pytest.mark.parametrize(
    "asked",
    [
        (1.0, 2, "all", 0.01),
        (1.0, 8, "all", 0.01),
        (2.0, 8, "tail", 1.0),
        (0.0, 3, "top", 0.1),
        (1.0, 5, "all", 1.0, True),
    ],
)
def test_predictions_are_scikit_learns(asked: Any) -> None:
    """To 0.2 points of accuracy, for the labels and for shuffled ones."""
    planted = spread(*asked)
    labels = np.stack([planted.y, np.random.default_rng(0).permutation(planted.y)])
    found = planted.probed(labels.astype(np.int16))
    assert found.kept == 1.0
    assert found.unfinished == 0
    for y, held_out in zip(labels, found.held_out, strict=True):
        expected = planted.scikit_learns(y)
        assert abs((held_out == y).mean() - (expected == y).mean()) <= 0.002
        assert (held_out != expected).mean() <= 0.002


def test_what_components_miss_is_not_missed() -> None:
    """The spectrum and label for which a third of the components lose points."""
    planted = spread(1.0, 2, "all", 0.01)
    whole, some = planted.probed(), planted.probed(components=FEATURES // 3)
    right = [(found.held_out[0] == planted.y).mean() for found in (whole, some)]
    assert right[0] - right[1] > 0.03
    assert some.kept < 0.9


@pytest.mark.parametrize("mistake", ["a block is skipped", "features are not scaled"])
def test_a_mistake_is_seen(mistake: str, monkeypatch: pytest.MonkeyPatch) -> None:
    planted = spread(1.0, 8, "all", 0.01)
    expected = planted.scikit_learns(planted.y)
    if mistake == "a block is skipped":
        plain = descent.Problem.blocks
        monkeypatch.setattr(descent, "_BLOCK", 240 * FEATURES)
        monkeypatch.setattr(descent.Problem, "point", without_a_block(descent.Problem.point, plain))
    else:
        monkeypatch.setattr(
            projection.Axes, "coordinates", lambda axes, rows: rows.astype(np.float32)
        )
    found = planted.probed().held_out[0]
    assert (found != expected).mean() > 0.02


def without_a_block(point: Any, blocks: Any) -> Any:
    def wrong(problem: Any, *given: Any) -> Any:
        class Some(descent.Problem):
            def blocks(self, columns: int) -> Any:
                return list(blocks(self, columns))[1:]

        fields = problem.values, problem.spectrum, problem.classes, problem.device
        return point(Some(*fields), *given)

    return wrong


@pytest.mark.parametrize("classes", [2, 4])
@pytest.mark.parametrize("grid", [[0.1], [1e-3, 1e-2, 1.0]])
def test_tables_are_those_of_memory(classes: int, grid: list[float]) -> None:
    """With controls, a constant feature, and strengths chosen within each fold."""
    y, x = planted(classes)
    whole, large = both(y, x, unlike_splits()["folds"], ProbeOptions(C=grid))
    assert (whole.held_out != large.held_out).mean() <= 0.005
    np.testing.assert_allclose(large.train_score, whole.train_score, atol=0.005)
    np.testing.assert_allclose(large.strengths, whole.strengths)


@pytest.mark.parametrize("split", ["values", "other run"])
def test_training_parts_may_differ_in_their_means(split: str) -> None:
    y, x = planted(3)
    x[unlike_splits()[split].cell == 0] += 2
    whole, large = both(y, x, unlike_splits()[split], ProbeOptions(C=[0.1]))
    tested = unlike_splits()[split].tested
    assert (whole.held_out != large.held_out)[:, tested].mean() <= 0.005


def test_probes_that_take_turns_are_what_they_are_together(monkeypatch: pytest.MonkeyPatch) -> None:
    y, x = planted(4)
    split, options = unlike_splits()["folds"], ProbeOptions(C=[1e-3, 0.1])
    _, together = both(y, x, split, options)
    monkeypatch.setattr(probes, "_DESCENT", 7 * probes._VECTORS * (WIDTH + 1) * 4)
    monkeypatch.setattr(probes, "_SUMS", 2 * 4 * (WIDTH + 1) * 4 * 5)
    told: list[float] = []
    large = LargeProbes(options, target_of(y), 0, CPU, Scratch())
    turns = large.evaluate(Rows(x), labels_of(y), split, None, told.append)
    assert told == sorted(told)
    assert told[-1] == pytest.approx(1)
    assert (turns.held_out != together.held_out).mean() <= 0.002
    np.testing.assert_allclose(turns.strengths, together.strengths)


def problem_of(planted: Planted, side: int = 4096) -> tuple[descent.Problem, descent.Jobs]:
    """Of all rows, for the labels and shuffled ones."""
    z = planted.standardized.astype(np.float32)
    labels = np.stack([planted.y, np.random.default_rng(0).permutation(planted.y)])
    jobs = descent.Jobs(
        np.ones((1, SAMPLES), bool),
        z.mean(0, keepdims=True).astype(np.float64),
        labels,
        np.zeros(2, int),
        np.arange(2),
        np.full(2, planted.c),
    )
    spectrum = Spectrum.of([z[:700], z[700:]], FEATURES, side)
    return descent.Problem(z, spectrum, planted.classes, CPU), jobs


def test_the_objective_is_at_its_minimum() -> None:
    """It costs what scikit-learn's weights cost, and its gradient is that of the formula."""
    planted = spread(1.0, 8, "all", 1.0)
    problem, jobs = problem_of(planted)
    found = descent.minimize(problem, jobs, probes.TOLERANCE, silent)
    assert found.converged.all()
    there = problem.point(jobs, found.weights.astype(np.float64))
    z = planted.standardized
    for job, y in enumerate(jobs.labels):
        own = LogisticRegression(C=planted.c, tol=1e-8, solver="newton-cg").fit(z, y)
        best = np.vstack([own.coef_.T, own.intercept_])[..., None]
        least = problem.point(jobs.of([job]), best).value[0]
        assert there.value[job] == pytest.approx(least, rel=2e-6)
    start = problem.start(jobs)
    chance = np.bincount(planted.y) / SAMPLES
    slope = z.T @ (chance - np.eye(8)[planted.y])
    np.testing.assert_allclose(problem.point(jobs, start).slope[:-1, :, 0], slope, atol=0.3)


def test_the_spectrum_saves_passes() -> None:
    """Blocks of features save some."""
    planted = spread(2.0, 2, "all", 1.0)
    problem, jobs = problem_of(planted)
    parts, _ = problem_of(planted, side=40)
    none = descent.Problem(problem.values, Spectrum(np.ones(FEATURES), ()), 2, CPU)
    found = [descent.minimize(one, jobs, 1e-5, silent) for one in (problem, parts, none)]
    passes = [one.passes for one in found]
    assert passes[0] <= 15
    assert passes[0] < passes[1] < passes[2]
    values = [problem.point(jobs, one.weights.astype(np.float64)).value for one in found]
    np.testing.assert_allclose(values[1], values[0], rtol=2e-4)


def test_what_does_not_converge_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(descent, "_PASSES", 2)
    assert spread(1.0, 2, "all", 0.01).probed().unfinished == 5


def test_a_step_that_is_too_long_is_shortened() -> None:
    """From a guess of the Hessian that is much too small."""
    planted = spread(0.0, 3, "top", 0.1)
    problem, jobs = problem_of(planted)
    least = descent.minimize(problem, jobs, 1e-6, silent)
    small = Spectrum(problem.spectrum.values / 30, problem.spectrum.vectors)
    wild = descent.Problem(problem.values, small, 3, CPU)
    found = descent.minimize(wild, jobs, 1e-6, silent)
    assert found.converged.all()
    np.testing.assert_allclose(found.weights, least.weights, atol=0.02)


def test_spectra_are_those_of_covariances() -> None:
    z = spread(1.0, 2, "all", 0.01).standardized.astype(np.float32)
    covariance = z.T.astype(np.float64) @ z / SAMPLES
    spectrum = Spectrum.of([z[:500], z[500:]], FEATURES)
    rng = np.random.default_rng(0)
    vectors, heavy, more = rng.normal(size=(FEATURES, 2, 3)), rng.random((2, 3)), rng.random(3) + 1
    found = spectrum.divided(vectors, heavy, more)
    for o, j in np.ndindex(2, 3):
        matrix = heavy[o, j] * covariance + more[j] * np.eye(FEATURES)
        np.testing.assert_allclose(matrix @ found[:, o, j], vectors[:, o, j], atol=2e-4)
    basis, own = principal(spectrum, 5)
    np.testing.assert_allclose((z @ basis).var(0), own.values, rtol=1e-3)
    np.testing.assert_allclose(own.values, np.linalg.eigvalsh(covariance)[:-6:-1], rtol=1e-4)


def test_coordinates_are_the_standardized_features() -> None:
    _, x = planted(2)
    axes = projection.Axes.of(Rows(x), np.ones(N, bool), None, Scratch(), silent)
    made = projection.Projected.of(Rows(x), axes, np.ones((1, N), bool), Scratch(), silent)
    np.testing.assert_allclose(made.values.std(0)[:7], 1, atol=1e-5)
    np.testing.assert_allclose(made.values.mean(0), 0, atol=1e-5)
    assert (made.values[:, 7] == 0).all()


def test_a_probe_of_all_rows_is_for_raw_features() -> None:
    """As exported, of all features and of components."""
    planted = spread(1.0, 3, "all", 0.1)
    expected = LogisticRegression(C=0.1, tol=1e-8, solver="newton-cg").fit(
        planted.standardized, planted.y
    )
    for components, least in ((None, 0.995), (FEATURES - 1, 0.9)):
        options = ProbeOptions(components=components)
        large = LargeProbes(options, target_of(planted.y), 0, CPU, Scratch())
        made = large.trained(Rows(planted.x), planted.y[None], 0.1)
        told = (planted.x - made.shift) @ made.weights[:, 0, :, 0] + made.bias[0, :, 0]
        agreed = (told.argmax(1) == expected.predict(planted.standardized)).mean()
        assert agreed >= least


def test_intercepts_begin_at_the_shares_of_the_classes() -> None:
    planted = spread(1.0, 5, "all", 1.0, True)
    problem, jobs = problem_of(planted)
    start = problem.start(jobs)[-1, :, 0]
    shares = np.bincount(planted.y) / SAMPLES
    np.testing.assert_allclose(torch.softmax(torch.from_numpy(start), 0), shares, atol=1e-3)


def test_odd_columns_are_what_they_are_in_memory() -> None:
    """One feature, constant ones, copies of one, and values near the ends of float32."""
    y, x = planted(3)
    copies = np.repeat(x[:, 1:2], 4, 1)
    constant = np.full((N, 3), 2.5, np.float32)
    for odd in (x[:, 1:2], constant, copies, x[:, :6] * np.float32(1e30), x[:, :6] * 1e-30):
        options = ProbeOptions(C=[0.1])
        whole, large = both(y, odd.astype(np.float32), unlike_splits()["folds"], options)
        assert (whole.held_out != large.held_out).mean() <= 0.01
        assert large.unfinished == 0
