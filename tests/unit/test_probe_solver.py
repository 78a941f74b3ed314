"""The batched logistic solver against scikit-learn, and what happens at the edges."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression

from vlmlens_plugins.analysis.probe import logistic
from vlmlens_plugins.analysis.probe.linear import LinearFits
from vlmlens_plugins.analysis.probe.logistic import fit_logistic


def problem(n: int, d: int, classes: int, *, seed: int = 0, signal: float = 2.0) -> Any:
    """Correlated features of different scale, labels from a noisy linear rule and at random."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, d)) @ rng.normal(size=(d, d)) * np.linspace(3, 0.3, d)
    x = (x - x.mean(0)) / x.std(0)
    scores = x @ rng.normal(size=(d, classes)) / np.sqrt(d) * signal
    y = (scores + rng.gumbel(size=scores.shape)).argmax(1)
    return x.astype(np.float32), np.stack([y, rng.permutation(y)], 1)


def fit(x: Any, y: Any, train: Any, classes: int, c: float) -> LinearFits:
    """Fits of one column, or of several."""
    z = torch.tensor(x if np.ndim(x) == 3 else x[None])
    masks = torch.tensor(np.atleast_2d(train))
    strengths = torch.full((len(z), len(masks)), c)
    return fit_logistic(z, torch.tensor(y), masks, strengths, classes=classes)


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


@pytest.mark.parametrize("c", [0.001, 0.01, 0.1, 1.0])
@pytest.mark.parametrize(
    ("n", "d", "classes"), [(300, 40, 2), (300, 40, 5), (80, 150, 3), (150, 400, 2)]
)
def test_logistic_equals_sklearn(n: int, d: int, classes: int, c: float) -> None:
    """With more rows than features and with fewer, where weights are sums over rows."""
    x, y = problem(n, d, classes)
    cells = np.arange(n)[None] % 5 != np.arange(2)[:, None]
    fits = fit(x, y, cells, classes, c)
    assert fits.converged.all()
    predicted = fits.predict(torch.tensor(x)[None])[0].numpy()
    more = []
    for cell, used in enumerate(cells):
        for s in range(2):
            weights, bias = sklearn_fit(x[used], y[used, s], c)
            own = fits.weights[0, :, cell, :, s].double().numpy()
            own_bias = fits.bias[0, cell, :, s].double().numpy()
            reference = objective(x[used], y[used, s], weights, bias, c)
            assert objective(x[used], y[used, s], own, own_bias, c) <= reference * (1 + 1e-3)
            assert fits.objective is not None
            assert float(fits.objective[0, cell, s]) == pytest.approx(reference, rel=1e-3)
            cosine = (own * weights).sum() / np.linalg.norm(own) / np.linalg.norm(weights)
            assert cosine >= 0.99
            logits = x @ weights + bias
            theirs = (logits[:, 0] > 0).astype(int) if classes == 2 else logits.argmax(1)
            right, expected = predicted[:, cell, s] == y[:, s], theirs == y[:, s]
            more.append(right.mean() - expected.mean())
            assert (predicted[:, cell, s] == theirs).mean() >= 0.98
    assert abs(np.mean(more)) <= 0.005


def test_the_comparison_notices_another_strength_of_regularization() -> None:
    x, y = problem(300, 40, 2)
    fits = fit(x, y, np.ones(300, bool), 2, 0.05)
    weights, bias = sklearn_fit(x, y[:, 0], 0.1)
    reference = objective(x, y[:, 0], weights, bias, 0.1)
    own = fits.weights[0, :, 0, :, 0].double().numpy()
    own_objective = objective(x, y[:, 0], own, fits.bias[0, 0, :, 0].double().numpy(), 0.1)
    assert own_objective > reference * (1 + 1e-3)


@pytest.mark.parametrize("d", [30, 300])
def test_held_out_rows_and_the_rest_of_the_batch_have_no_influence(d: int) -> None:
    """Folds of different size, another column and another label vector beside it."""
    x, y = problem(200, d, 3)
    used = np.arange(200) % 4 != 0
    alone = fit(x[used], y[used, :1], np.ones(used.sum(), bool), 3, 0.1)
    spoiled = np.where(used[:, None], x, 1e3).astype(np.float32)
    batch = fit(np.stack([spoiled, x[::-1]]), y, np.stack([used, np.arange(200) % 4 != 1]), 3, 0.1)
    torch.testing.assert_close(
        batch.weights[0, :, 0, :, 0], alone.weights[0, :, 0, :, 0], atol=2e-3, rtol=2e-2
    )


def test_parts_that_fit_the_cache_give_what_one_batch_gives(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    x, y = problem(120, 30, 3)
    z = np.stack([x, x[::-1].copy(), x * 0.5])
    cells = np.arange(120)[None] % 4 != np.arange(4)[:, None]
    whole = fit(z, y, cells, 3, 0.1)
    for elements in (1, 120 * 3 * 2 * 3, 120 * 3 * 2 * 9):
        monkeypatch.setattr(logistic, "_ELEMENTS", elements)
        parts = fit(z, y, cells, 3, 0.1)
        torch.testing.assert_close(parts.weights, whole.weights, atol=1e-3, rtol=1e-2)
        assert parts.converged.shape == whole.converged.shape == (3, 4, 2)


def test_strengths_may_differ_between_columns_and_cells() -> None:
    x, y = problem(200, 20, 2)
    cells = torch.ones(2, 200, dtype=torch.bool)
    z = torch.tensor(np.stack([x, x]))
    c = torch.tensor([[0.01, 0.1], [1.0, 0.1]])
    fits = fit_logistic(z, torch.tensor(y), cells, c, classes=2)
    norms = fits.weights[:, :, :, 0, 0].norm(dim=1)
    assert norms[0, 0] < norms[0, 1] < norms[1, 0]
    # Two fits of one problem stop where a step gains little, each after its own rounding.
    torch.testing.assert_close(norms[0, 1], norms[1, 1], atol=0, rtol=1e-3)


def test_a_class_that_is_missing_is_never_predicted_and_does_not_break_the_fit() -> None:
    x, y = problem(150, 20, 4)
    fits = fit(x, np.where(y == 3, 0, y), np.ones(150, bool), 4, 0.1)
    assert torch.isfinite(fits.weights).all()
    assert 3 not in fits.predict(torch.tensor(x)[None])


def test_constant_and_repeated_features_do_no_harm() -> None:
    x, y = problem(150, 20, 2)
    flat = np.concatenate([x, np.zeros((150, 5), np.float32), x], 1)
    fits = fit(flat, y, np.ones(150, bool), 2, 0.1)
    assert fits.converged.all()
    assert (fits.weights[0, 20:25] == 0).all()
    torch.testing.assert_close(fits.weights[0, :20], fits.weights[0, 25:], atol=1e-4, rtol=1e-2)


def test_equal_inputs_give_equal_bits() -> None:
    x, y = problem(100, 30, 3)
    first, second = (fit(x, y, np.ones(100, bool), 3, 0.1) for _ in range(2))
    assert torch.equal(first.weights, second.weights)


@pytest.mark.parametrize(("n", "d"), [(200, 20), (60, 200)])
def test_separable_data_with_weak_regularization_converges(n: int, d: int) -> None:
    x, y = problem(n, d, 2, signal=100.0)
    fits = fit(x, y, np.ones(n, bool), 2, 1000.0)
    weights, bias = sklearn_fit(x, y[:, 0], 1000.0)
    reference = objective(x, y[:, 0], weights, bias, 1000.0)
    assert fits.objective is not None
    assert float(fits.objective[0, 0, 0]) <= reference * 1.01
