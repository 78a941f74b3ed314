"""The other kinds of probe against scikit-learn, their evaluation, and the choice of a strength."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.metrics import log_loss
from sklearn.neighbors import NearestCentroid

from vlmlens.samples import Sample
from vlmlens.testing._rounding import close
from vlmlens_plugins.analysis.probe.closed_form import fit_centroids, fit_ridge
from vlmlens_plugins.analysis.probe.cross_validation import (
    evaluate,
    majority_predictions,
    mean_predictions,
    standardized,
)
from vlmlens_plugins.analysis.probe.mlp import MlpSettings, fit_mlp
from vlmlens_plugins.analysis.probe.options import ProbeOptions
from vlmlens_plugins.analysis.probe.probe_kinds import family, stopping_rows
from vlmlens_plugins.analysis.probe.splits import Split, folded, inner_folds
from vlmlens_plugins.analysis.probe.targets import Target

CPU = torch.device("cpu")


def target_of(y: Any, groups: Any = None) -> Target:
    names = tuple(Sample(f"s{i}", "?") for i in range(len(y)))
    numbers = y.dtype.kind == "f"
    classes = () if numbers else tuple(str(c) for c in range(int(y.max()) + 1))
    groups = np.arange(len(y)) if groups is None else groups
    return Target("t", names, classes, y, groups, lambda sample: None, len(y))


def data(n: int, d: int, *, classes: int = 3, seed: int = 0) -> Any:
    rng = np.random.default_rng(seed)
    y = rng.integers(0, classes, n)
    x = rng.normal(size=(n, d)) + 1.2 * np.eye(classes, d)[y]
    return x.astype(np.float32), y


@pytest.mark.parametrize(("n", "d"), [(120, 20), (60, 200)])
@pytest.mark.parametrize("c", [0.001, 0.1])
def test_ridge_equals_sklearn(n: int, d: int, c: float) -> None:
    """With more rows than features, and with fewer, where one inverse serves all folds."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(2, n, d)).astype(np.float32)
    y = (x[0, :, :2].sum(1)[:, None] + rng.normal(size=(n, 3))).astype(np.float32) + 5
    train = np.arange(n)[None] % 4 != np.arange(4)[:, None]
    strengths = torch.full((2, 4), c)
    fits = fit_ridge(torch.tensor(x), torch.tensor(y), torch.tensor(train), strengths)
    predicted = fits.predict(torch.tensor(x)).numpy()
    for column in range(2):
        for cell, used in enumerate(train):
            model = Ridge(alpha=1 / c).fit(x[column][used].astype(np.float64), y[used])
            theirs = model.predict(x[column])
            np.testing.assert_allclose(predicted[column, :, cell], theirs, atol=2e-3)
            own = fits.weights[column, :, cell, 0].numpy()
            for s in range(3):
                cosine = own[:, s] @ model.coef_[s]
                cosine /= np.linalg.norm(own[:, s]) * np.linalg.norm(model.coef_[s])
                assert cosine >= 0.99
    mixed = strengths.clone()
    mixed[:, 1] = 7.0
    other = fit_ridge(torch.tensor(x), torch.tensor(y), torch.tensor(train), mixed)
    torch.testing.assert_close(other.weights[:, :, 2], fits.weights[:, :, 2], atol=1e-4, rtol=1e-2)
    assert not torch.allclose(other.weights[:, :, 1], fits.weights[:, :, 1], atol=1e-3)


@pytest.mark.parametrize("classes", [2, 4])
def test_centroids_equal_sklearn(classes: int) -> None:
    x, y = data(200, 30, classes=classes)
    labels = np.stack([y, np.random.default_rng(1).permutation(y)], 1)
    train = np.arange(200)[None] % 5 != np.arange(5)[:, None]
    fits = fit_centroids(
        torch.tensor(x[None]), torch.tensor(labels), torch.tensor(train), classes=classes
    )
    predicted = fits.predict(torch.tensor(x[None]))[0].numpy()
    for cell, used in enumerate(train):
        for s in range(2):
            theirs = NearestCentroid().fit(x[used], labels[used, s]).predict(x)
            assert (predicted[:, cell, s] == theirs).mean() >= 0.995
    if classes == 2:
        used = train[0]
        difference = x[used][y[used] == 1].mean(0) - x[used][y[used] == 0].mean(0)
        close(fits.weights[0, :, 0, 0, 0], difference)


def test_a_centroid_of_no_rows_is_never_predicted() -> None:
    x, y = data(60, 10)
    train = torch.tensor((y != 2)[None])
    fits = fit_centroids(torch.tensor(x[None]), torch.tensor(y[:, None]), train, classes=3)
    assert 2 not in fits.predict(torch.tensor(x[None]))


def test_the_strength_is_that_of_a_plain_inner_cross_validation() -> None:
    x, y = data(150, 40, seed=3)
    target = target_of(y)
    grid = [0.0001, 0.001, 0.01, 0.1, 10.0]
    kind = family(ProbeOptions(C=grid), target, 0)
    fold = np.arange(150) % 3
    split = folded(fold)
    z = torch.tensor(standardized(x, split.learned))[None]
    found = kind.strengths(z, torch.tensor(y), torch.tensor(split.train))[0]
    inner = inner_folds(y, target.groups, 3, 0)
    for cell in range(3):
        losses = []
        for c in grid:
            total = 0.0
            for part in range(3):
                learn = (fold != cell) & (inner != part)
                check = (fold != cell) & (inner == part)
                model = LogisticRegression(C=c, tol=1e-6, max_iter=5000).fit(z[0][learn], y[learn])
                shares = model.predict_proba(z[0][check])
                total += log_loss(y[check], shares, labels=range(3), normalize=False)
            losses.append(total)
        chosen = int(np.argmin(np.abs(np.log(grid) - np.log(float(found[cell])))))
        assert losses[chosen] <= min(losses) * 1.002


def test_more_noise_asks_for_stronger_regularization() -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(200, 60)).astype(np.float32)
    clear = (x[:, 0] + x[:, 1] > 0).astype(np.int64)
    noisy = rng.permutation(clear)
    chosen = []
    for y in (clear, noisy):
        kind = family(ProbeOptions(C=[1e-4, 1e-2, 1.0]), target_of(y), 0)
        train = torch.ones(1, 200, dtype=torch.bool)
        chosen.append(float(kind.strengths(torch.tensor(x[None]), torch.tensor(y), train)))
    assert chosen[0] > chosen[1]


def test_ridge_is_judged_by_r2() -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(200, 5)).astype(np.float32)
    y = x[:, 0] * 3 + 40 + rng.normal(size=200)
    labels = np.stack([y, rng.permutation(y)])
    split = folded(np.arange(200) % 5)
    kind = family(ProbeOptions(model="ridge"), target_of(y), 0)
    (found,) = evaluate([x], labels, split, kind, CPU)
    mean = mean_predictions(labels, split)
    scores = 1 - ((found.held_out - labels) ** 2).sum(1) / ((labels - mean) ** 2).sum(1)
    assert scores[0] == pytest.approx(0.9, abs=0.04)
    assert scores[1] < 0.05
    assert found.train_score[0] > scores[0] - 0.05


def test_columns_at_once_are_what_they_are_alone() -> None:
    x, y = data(120, 16)
    other = np.random.default_rng(5).normal(size=(120, 16)).astype(np.float16)
    labels = np.stack([y, np.random.default_rng(1).permutation(y)])
    split = folded(np.arange(120) % 5)
    kind = family(ProbeOptions(C=[0.01, 0.1]), target_of(y), 0)
    both = evaluate([x, other], labels, split, kind, CPU)
    for column, found in zip([x, other], both, strict=True):
        (alone,) = evaluate([column], labels, split, kind, CPU)
        np.testing.assert_array_equal(found.strengths, alone.strengths)
        assert (found.held_out == alone.held_out).mean() >= 0.99


def test_standardizing_looks_at_rows_that_are_learned_from_only() -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(5, 3, (60, 5))
    x[:, 3] = 7.0
    x[:, 4] *= 1e30
    learned = np.arange(60) < 40
    x[50, 3] = 9.0
    scaled = standardized(x, learned)
    close(scaled[learned][:, [0, 1, 2, 4]].mean(0), 0, scale=1)
    close(scaled[learned][:, [0, 1, 2, 4]].std(0), 1)
    assert (scaled[:, 3] == 0).all()
    x[~learned, :3] *= 100
    np.testing.assert_array_equal(standardized(x, learned)[learned], scaled[learned])


def test_the_majority_is_that_of_the_training_part() -> None:
    y = np.array([0, 0, 0, 1, 1, 1, 1, 0])
    split = folded(np.array([0, 0, 0, 1, 1, 1, 1, 1]))
    assert majority_predictions(y, split).tolist() == [1, 1, 1, 0, 0, 0, 0, 0]


def test_stopping_rows_are_whole_training_groups() -> None:
    groups = np.repeat(np.arange(20), 3)
    train = torch.tensor((groups % 4)[None] != np.arange(4)[:, None])
    rows = stopping_rows(train, torch.tensor(groups), 0.2, 0).numpy()
    for i in range(4):
        assert not rows[i, ~train[i].numpy()].any()
        assert len(np.unique(groups[rows[i]])) == 3
        assert rows[i].sum() == 9


def ring(n: int = 400) -> Any:
    """Two classes that no line separates: inside and outside of a circle."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(n, 2)).astype(np.float32)
    return x, (np.linalg.norm(x, axis=1) > 1.18).astype(np.int64)


def test_the_mlp_reads_what_no_line_can() -> None:
    x, y = ring()
    labels = np.stack([y, np.random.default_rng(1).permutation(y)])
    split = folded(np.arange(len(y)) % 4)
    mlp = family(ProbeOptions(model="mlp", hidden=32, epochs=200), target_of(y), 0)
    found, twin = evaluate([x, x], labels, split, mlp, CPU)
    assert (found.held_out[0] == y).mean() > 0.93
    assert (found.held_out[1] == labels[1]).mean() < 0.6
    np.testing.assert_array_equal(found.held_out, twin.held_out)
    linear = family(ProbeOptions(C=1.0), target_of(y), 0)  # type: ignore[arg-type]
    (line,) = evaluate([x], labels, split, linear, CPU)
    assert (line.held_out[0] == y).mean() < 0.65


def test_the_mlp_keeps_the_weights_of_its_best_epoch() -> None:
    x, y = ring(120)
    shuffled = np.random.default_rng(3).permutation(y)
    tensors = torch.tensor(x)[None], torch.tensor(shuffled)[None, :, None]
    used = torch.ones(1, 120, dtype=torch.bool)
    stopping = torch.arange(120)[None] % 3 == 0
    settings = MlpSettings(hidden=64, epochs=200, patience=5)
    fits = fit_mlp(*tensors, used, stopping, classes=2, settings=settings)
    assert int(fits.epochs) < 150


def test_a_sample_that_is_never_held_out_is_not_scored() -> None:
    x, y = data(60, 8)
    train = np.arange(60)[None] < 40
    split = Split(np.where(np.arange(60) < 40, -1, 0), train, np.zeros(60, np.int64))
    (found,) = evaluate([x], y[None], split, family(ProbeOptions(C=0.1), target_of(y), 0), CPU)  # type: ignore[arg-type]
    assert split.tested.sum() == 20
    assert (found.held_out[0] == y)[split.tested].mean() > 0.5
