"""The batched solvers against scikit-learn, and what happens at the edges."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression

from vlmlens_plugins.analysis.probe.evaluation import (
    evaluate,
    majority_predictions,
    standardized,
    stopping_rows,
)
from vlmlens_plugins.analysis.probe.mlp import MlpSettings, fit_mlp
from vlmlens_plugins.analysis.probe.solver import LinearFits, fit_logistic

CPU = torch.device("cpu")


def problem(n: int, d: int, classes: int, *, seed: int = 0, signal: float = 2.0) -> Any:
    """Correlated features of different scale, labels from a noisy linear rule and at random."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, d)) @ rng.normal(size=(d, d)) * np.linspace(3, 0.3, d)
    x = (x - x.mean(0)) / x.std(0)
    scores = x @ rng.normal(size=(d, classes)) / np.sqrt(d) * signal
    y = (scores + rng.gumbel(size=scores.shape)).argmax(1)
    return x.astype(np.float32), np.stack([y, rng.permutation(y)], 1)


def fit_one(x: Any, y: Any, used: Any, classes: int, c: float) -> LinearFits:
    tensors = torch.tensor(x)[None], torch.tensor(y)[None], torch.tensor(used)[None]
    return fit_logistic(*tensors, classes=classes, c=c)


def sklearn_fit(x: Any, y: Any, c: float) -> tuple[Any, Any]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = LogisticRegression(C=c, tol=1e-8, max_iter=10_000).fit(x.astype(np.float64), y)
    return model.coef_.T, model.intercept_


def objective(x: Any, y: Any, weights: Any, bias: Any, c: float) -> float:
    logits = x.astype(np.float64) @ weights + bias
    if logits.shape[1] == 1:
        logits = np.concatenate([np.zeros_like(logits), logits], 1)
    loss = np.logaddexp.reduce(logits, axis=1) - logits[np.arange(len(y)), y]
    return float(loss.sum() + (weights**2).sum() / (2 * c))


@pytest.mark.parametrize("c", [0.01, 0.1, 1.0])
@pytest.mark.parametrize(("n", "d", "classes"), [(300, 40, 2), (300, 40, 5), (80, 150, 3)])
def test_logistic_equals_sklearn(n: int, d: int, classes: int, c: float) -> None:
    x, y = problem(n, d, classes)
    used = np.arange(n) % 5 != 0
    fits = fit_one(x, y, used, classes, c)
    assert fits.converged.all()
    predicted = fits.predict(torch.tensor(x)[None])[0].numpy()
    for s in range(2):
        weights, bias = sklearn_fit(x[used], y[used, s], c)
        own = fits.weights[0, :, :, s].double().numpy()
        own_bias = fits.bias[0, :, s].double().numpy()
        reference = objective(x[used], y[used, s], weights, bias, c)
        assert objective(x[used], y[used, s], own, own_bias, c) <= reference * (1 + 1e-3)
        assert float(fits.objective[0, s]) == pytest.approx(reference, rel=1e-3)
        cosine = (own * weights).sum() / np.linalg.norm(own) / np.linalg.norm(weights)
        assert cosine >= 0.99
        logits = x @ weights + bias
        theirs = (logits[:, 0] > 0).astype(int) if classes == 2 else logits.argmax(1)
        assert (predicted[:, s] == theirs).mean() >= 0.995


def test_the_comparison_notices_another_strength_of_regularization() -> None:
    x, y = problem(300, 40, 2)
    used = np.ones(300, bool)
    fits = fit_one(x, y, used, 2, 0.05)
    weights, bias = sklearn_fit(x, y[:, 0], 0.1)
    reference = objective(x, y[:, 0], weights, bias, 0.1)
    own = fits.weights[0, :, :, 0].double().numpy()
    own_objective = objective(x, y[:, 0], own, fits.bias[0, :, 0].double().numpy(), 0.1)
    assert own_objective > reference * (1 + 1e-3)


def test_held_out_rows_and_the_rest_of_the_batch_have_no_influence() -> None:
    x, y = problem(200, 30, 3)
    used = np.arange(200) % 4 != 0
    alone = fit_one(x[used], y[used, :1], np.ones(used.sum(), bool), 3, 0.1)
    spoiled = np.where(used[:, None], x, 1e3).astype(np.float32)
    batch = fit_logistic(
        torch.tensor(np.stack([spoiled, x[::-1].copy()])),
        torch.tensor(np.stack([y, y[::-1].copy()])),
        torch.tensor(np.stack([used, used[::-1].copy()])),
        classes=3,
        c=0.1,
    )
    for fold in range(2):
        torch.testing.assert_close(
            batch.weights[fold, :, :, 0], alone.weights[0, :, :, 0], atol=2e-3, rtol=2e-2
        )


def test_a_class_that_is_missing_is_never_predicted_and_does_not_break_the_fit() -> None:
    x, y = problem(150, 20, 4)
    fits = fit_one(x, np.where(y == 3, 0, y), np.ones(150, bool), 4, 0.1)
    assert torch.isfinite(fits.weights).all()
    assert 3 not in fits.predict(torch.tensor(x)[None])


def test_constant_and_repeated_features_do_no_harm() -> None:
    x, y = problem(150, 20, 2)
    flat = np.concatenate([x, np.zeros((150, 5), np.float32), x], 1)
    fits = fit_one(flat, y, np.ones(150, bool), 2, 0.1)
    assert fits.converged.all()
    assert (fits.weights[0, 20:25] == 0).all()
    torch.testing.assert_close(fits.weights[0, :20], fits.weights[0, 25:], atol=1e-4, rtol=1e-2)


def test_equal_inputs_give_equal_bits() -> None:
    x, y = problem(100, 30, 3)
    first, second = (fit_one(x, y, np.ones(100, bool), 3, 0.1) for _ in range(2))
    assert torch.equal(first.weights, second.weights)


def test_separable_data_with_weak_regularization_converges() -> None:
    x, y = problem(200, 20, 2, signal=100.0)
    fits = fit_one(x, y, np.ones(200, bool), 2, 1000.0)
    weights, bias = sklearn_fit(x, y[:, 0], 1000.0)
    reference = objective(x, y[:, 0], weights, bias, 1000.0)
    assert float(fits.objective[0, 0]) <= reference * 1.01


def test_standardizing_looks_at_training_rows_only() -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(5, 3, (60, 4))
    x[:, 3] = 7.0
    train = np.arange(60) < 40
    x[50, 3] = 9.0
    scaled = standardized(x, train)
    np.testing.assert_allclose(scaled[train, :3].mean(0), 0, atol=1e-6)
    np.testing.assert_allclose(scaled[train, :3].std(0), 1, atol=1e-6)
    assert (scaled[:, 3] == 0).all()
    x[~train, :3] *= 100
    np.testing.assert_array_equal(standardized(x, train)[train], scaled[train])


def test_the_majority_is_that_of_the_training_part() -> None:
    y = np.array([0, 0, 0, 1, 1, 1, 1, 0])
    fold = np.array([0, 0, 0, 1, 1, 1, 1, 1])
    assert majority_predictions(y, fold).tolist() == [1, 1, 1, 0, 0, 0, 0, 0]


def test_stopping_rows_are_whole_training_groups() -> None:
    groups = np.repeat(np.arange(20), 3)
    fold = groups % 4
    rows = stopping_rows(fold, groups, 0.2, np.random.default_rng(0))
    for i in range(4):
        assert not rows[i, fold == i].any()
        assert len(np.unique(groups[rows[i]])) == 3
        assert rows[i].sum() == 9


def ring(n: int = 400) -> Any:
    """Two classes that no line separates: inside and outside of a circle."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(n, 2)).astype(np.float32)
    return x, (np.linalg.norm(x, axis=1) > 1.18).astype(np.int64)


def test_the_mlp_reads_what_no_line_can() -> None:
    x, y = ring()
    fold = np.arange(len(y)) % 4
    labels = np.stack([y, np.random.default_rng(1).permutation(y)])
    stopping = stopping_rows(fold, np.arange(len(y)), 0.15, np.random.default_rng(0))
    settings = MlpSettings(hidden=32, epochs=200)

    def mlp(x: Any, y: Any, used: Any, stop: Any) -> Any:
        return fit_mlp(x, y, used, stop, classes=2, settings=settings)

    def linear(x: Any, y: Any, used: Any, stop: Any) -> Any:
        return fit_logistic(x, y, used, classes=2, c=1.0)

    found = evaluate(x, labels, fold, stopping, mlp, CPU)
    assert (found.held_out[0] == y).mean() > 0.93
    assert (found.held_out[1] == labels[1]).mean() < 0.6
    line = evaluate(x, labels, fold, stopping, linear, CPU)
    assert (line.held_out[0] == y).mean() < 0.65
    again = evaluate(x, labels, fold, stopping, mlp, CPU)
    np.testing.assert_array_equal(found.held_out, again.held_out)


def test_the_mlp_keeps_the_weights_of_its_best_epoch() -> None:
    x, y = ring(120)
    shuffled = np.random.default_rng(3).permutation(y)
    tensors = torch.tensor(x)[None], torch.tensor(shuffled)[None, :, None]
    used = torch.ones(1, 120, dtype=torch.bool)
    stopping = torch.arange(120)[None] % 3 == 0
    settings = MlpSettings(hidden=64, epochs=200, patience=5)
    fits = fit_mlp(*tensors, used, stopping, classes=2, settings=settings)
    assert int(fits.epochs) < 150
