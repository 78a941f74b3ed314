"""Cross-validated predictions of one column's probes: the main one and its controls."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[Any]
_ELEMENTS = 8_000_000


class Fits(Protocol):
    """Trained classifiers, `folds x fits` of them."""

    @property
    def converged(self) -> Tensor:
        """Boolean `[folds, fits]`: whether training came to its end."""

    def predict(self, x: Tensor) -> Tensor:
        """int64 `[folds, rows, fits]` of `[folds, rows, features]`."""


Fit: TypeAlias = Callable[[Tensor, Tensor, Tensor, Tensor], Fits]
"""Trains on (x, y, training rows, rows that decide when to stop); shapes as in `fit_mlp`."""


@dataclass(frozen=True, slots=True)
class Evaluation:
    """What the probes of one column predict.

    Args:
        held_out: int64 `[fits, n]`, each sample's class as predicted by the probe that did not
            see its group.
        train_accuracy: float64 `[fits]`, accuracy on the training parts, averaged over folds.
        unfinished: How many of the `folds x fits` probes did not converge.
    """

    held_out: Ints
    train_accuracy: npt.NDArray[np.float64]
    unfinished: int = 0


def evaluate(
    x: Floats,
    labels: Ints,
    fold: Ints,
    stopping: npt.NDArray[np.bool_],
    fit: Fit,
    device: torch.device,
) -> Evaluation:
    """Train and test the probes of one column, fold by fold, all label vectors at once.

    Args:
        x: `[n, features]`.
        labels: int64 `[fits, n]`; row 0 the true labels.
        fold: int64 `[n]`, the fold in which each sample is held out.
        stopping: bool `[folds, n]`, training rows that only decide when to stop.
        fit: Trains the probes.
        device: Where.
    """
    folds = np.unique(fold)
    at_once = max(1, _ELEMENTS // x.size)
    held_out = np.empty(labels.shape, np.int64)
    accuracies = []
    unfinished = 0
    y = torch.from_numpy(labels.T.copy()).to(device)
    for start in range(0, len(folds), at_once):
        part = folds[start : start + at_once]
        used = torch.from_numpy(fold[None] != part[:, None]).to(device)
        scaled = np.stack([standardized(x, fold != i) for i in part])
        inputs = torch.from_numpy(scaled).to(device)
        stop = torch.from_numpy(stopping[part]).to(device)
        fits = fit(inputs, y.expand(len(part), -1, -1), used, stop)
        unfinished += int((~fits.converged).sum())
        predicted = fits.predict(inputs)
        right = (predicted == y) & used[..., None]
        accuracies.append((right.sum(1) / used.sum(1, keepdim=True)).cpu().numpy())
        for i, of_fold in zip(part, predicted.cpu().numpy(), strict=True):
            held_out[:, fold == i] = of_fold[fold == i].T
    train = np.concatenate(accuracies).mean(0).astype(np.float64)
    return Evaluation(held_out, train, unfinished)


def standardized(x: Floats, train: npt.NDArray[np.bool_]) -> npt.NDArray[np.float32]:
    """float32 `[n, features]`: zero mean and unit variance on the training rows only.

    Features that are constant there say nothing and become 0 everywhere.
    """
    known = x[train].astype(np.float64)
    mean, scale = known.mean(0), known.std(0)
    flat = scale <= 1e-7 * np.maximum(np.abs(mean), 1e-30)
    factor = np.where(flat, 0.0, 1 / np.where(flat, 1.0, scale))
    scaled: npt.NDArray[np.float32] = ((x - mean) * factor).astype(np.float32)
    return scaled


def majority_predictions(y: Ints, fold: Ints) -> Ints:
    """int64 `[n]`: the most frequent class of the training part, for each held-out sample."""
    predicted = np.empty_like(y)
    for i in np.unique(fold):
        predicted[fold == i] = np.bincount(y[fold != i]).argmax()
    return predicted


def stopping_rows(
    fold: Ints, groups: Ints, fraction: float, rng: np.random.Generator
) -> npt.NDArray[np.bool_]:
    """Boolean `[folds, n]`: whole groups with about `fraction` of each fold's training rows."""
    order = rng.permutation(int(groups.max()) + 1)
    rows = np.zeros((int(fold.max()) + 1, len(fold)), bool)
    for i in range(len(rows)):
        there = order[np.isin(order, groups[fold != i])]
        chosen = there[: max(1, round(fraction * len(there)))]
        rows[i] = np.isin(groups, chosen) & (fold != i)
    return rows
