"""Held-out predictions of several columns' probes: the main one and its controls."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from vlmlens_plugins.analysis.probe.splits import Split

Ints = npt.NDArray[np.int64]
Array = npt.NDArray[Any]
Floats = npt.NDArray[np.float64]
_ELEMENTS = 12_000_000
_CHOOSING = 0.4
"""The share of a probe's time that goes to choosing its strength, about."""

Tick = Callable[[float], None]
"""Told the share of the work that is done, from 0 to 1, which never falls."""


def silent(share: float) -> None:
    """Tell nobody."""
    del share


class Fits(Protocol):
    """Trained probes, `columns x cells x fits` of them."""

    @property
    def converged(self) -> Tensor:
        """Bool `[columns, cells, fits]`: whether training came to its end."""

    def predict(self, z: Tensor) -> Tensor:
        """`[columns, n, cells, fits]` of `[columns, n, features]`: classes, or numbers."""

    def tensors(self) -> dict[str, Tensor]:
        """What is needed to apply the first column's, cell's and fit's probe."""


class Family(Protocol):
    """A kind of probe."""

    def fit(self, z: Tensor, y: Tensor, train: Tensor, c: Tensor, tick: Tick = silent) -> Fits:
        """Train on `z` `[columns, n, features]` and labels `y` `[n, fits]`.

        Args:
            z: float32, about standardized.
            y: int64 class numbers, or float32 numbers.
            train: bool `[cells, n]`, the rows to learn from.
            c: `[columns, cells]`, inverse regularization strengths.
            tick: Told how much is done.
        """

    def strengths(self, z: Tensor, y: Tensor, train: Tensor, tick: Tick = silent) -> Tensor:
        """`[columns, cells]`: the inverse strengths for labels `y` `[n]`, found in `train`."""


@dataclass(frozen=True, slots=True)
class Evaluation:
    """What the probes of one column predict.

    Args:
        held_out: `[fits, n]`, each sample's class (int64) or number (float64) as predicted by a
            probe that did not learn from its group; meaningless where it is never held out.
        train_score: float64 `[fits]`, accuracy or R2 on the training parts, averaged over cells.
        strengths: float64 `[cells]`, inverse regularization strengths.
        unfinished: How many of the `cells x fits` probes did not converge.
        kept: The share of the standardized features' variance that the probes saw, 0 to 1.
    """

    held_out: Array
    train_score: Floats
    strengths: Floats
    unfinished: int = 0
    kept: float = 1.0


def evaluate(
    columns: Sequence[Array],
    labels: Array,
    split: Split,
    family: Family,
    device: torch.device,
    tick: Tick = silent,
) -> list[Evaluation]:
    """Train and test the probes of columns of equal width, as many at once as memory allows.

    With many classes, the label vectors of a column take turns: their fits share nothing but the
    column's rows.

    Args:
        columns: `[n, features]` each, finite.
        labels: `[fits, n]`, int64 or float64; row 0 the true labels, which also choose the
            regularization for all.
        split: What is learned from and tested.
        family: Trains the probes.
        device: Where.
        tick: Told how much is done.
    """
    n, width = columns[0].shape
    numbers = labels.dtype.kind == "f"
    spread = 1 if numbers else int(labels.max()) + 1
    of_fit = (n + width) * split.cells * spread
    at_once = max(1, _ELEMENTS // (n * width + 2 * n * split.cells * len(labels) * spread))
    fits = max(1, min(len(labels), 2 * _ELEMENTS // of_fit))
    y = torch.from_numpy(np.ascontiguousarray(labels.T)).to(device)
    y = y.float() if numbers else y.long()
    train = torch.from_numpy(split.train).to(device)
    found: list[Evaluation] = []
    for start in range(0, len(columns), at_once):
        part = [standardized(x, split.learned) for x in columns[start : start + at_once]]
        z = torch.from_numpy(np.stack(part)).to(device)
        share = len(part) / len(columns)
        own = within(tick, start / len(columns), share)
        c = family.strengths(z, y[:, 0], train, within(own, 0.0, _CHOOSING))
        rest = within(own, _CHOOSING, 1 - _CHOOSING)
        turns = [
            _turn(family, z, y[:, i : i + fits], train, c, split, labels.dtype, told)
            for i in range(0, len(labels), fits)
            for told in [within(rest, i / len(labels), min(fits, len(labels) - i) / len(labels))]
        ]
        found += [
            Evaluation(
                np.concatenate([turn.held_out[i] for turn in turns]),
                np.concatenate([turn.scores[i] for turn in turns]),
                c[i].double().cpu().numpy(),
                sum(turn.unfinished[i] for turn in turns),
            )
            for i in range(len(z))
        ]
    return found


@dataclass(frozen=True, slots=True)
class _Turn:
    """What the probes of some columns and label vectors predict, by column."""

    held_out: list[Array]
    scores: Floats
    unfinished: list[int]


def _turn(
    family: Family,
    z: Tensor,
    y: Tensor,
    train: Tensor,
    c: Tensor,
    split: Split,
    kind: np.dtype[Any],
    tick: Tick,
) -> _Turn:
    fits = family.fit(z, y, train, c, tick)
    predicted = fits.predict(z)
    return _Turn(
        [_held_out(each, split, kind) for each in predicted],
        _train_scores(predicted, y, train),
        [int((~each).sum()) for each in fits.converged],
    )


def within(tick: Tick, start: float, share: float) -> Tick:
    """For a part of the work."""
    return lambda done: tick(start + share * min(done, 1.0))


def standardized(x: Array, learned: npt.NDArray[np.bool_]) -> npt.NDArray[np.float32]:
    """float32 `[n, features]`: zero mean and unit variance over the rows that are learned from.

    One scale serves all cells of a split: no label has a part in it, so under the null hypothesis
    the held-out labels stay exchangeable, and the probe and its controls see the same numbers.
    Features that are constant there say nothing and become 0 everywhere.
    """
    mean, scale = scaling(x[learned])
    factor = np.where(scale > 0, 1 / np.where(scale > 0, scale, 1.0), 0.0)
    scaled = x.astype(np.float32)
    with np.errstate(over="ignore", invalid="ignore"):
        scaled = (scaled - mean.astype(np.float32)) * factor.astype(np.float32)
    if not np.isfinite(scaled).all():
        scaled = ((x.astype(np.float64) - mean) * factor).astype(np.float32)
    return scaled


def scaling(x: Array) -> tuple[Floats, Floats]:
    """Mean and standard deviation of each feature, float64; 0 for a constant one."""
    mean = x.mean(0, dtype=np.float64)
    rest = x.astype(np.float32) - mean.astype(np.float32)
    size = np.abs(rest).max(0, initial=0.0).astype(np.float64)
    unit = np.where(size > 0, size, 1.0)
    rest /= unit.astype(np.float32)
    scale = np.sqrt(np.einsum("nf,nf->f", rest, rest).astype(np.float64) / max(len(x), 1)) * unit
    flat = scale <= 1e-7 * np.maximum(np.abs(mean), 1e-30)
    return mean, np.where(flat, 0.0, scale)


def majority_predictions(y: Ints, split: Split) -> Ints:
    """int64 `[n]`: the most frequent class of the training part, for each held-out sample."""
    predicted = np.zeros_like(y)
    for i in range(split.cells):
        predicted[split.cell == i] = np.bincount(y[split.train[i]]).argmax()
    return predicted


def mean_predictions(y: Array, split: Split) -> Floats:
    """float64 `[..., n]`: the mean of the training part, for each held-out sample."""
    predicted = np.zeros(y.shape, np.float64)
    for i in range(split.cells):
        middle = y[..., split.train[i]].mean(-1)
        predicted[..., split.cell == i] = np.asarray(middle)[..., None]
    return predicted


def _held_out(predicted: Tensor, split: Split, kind: np.dtype[Any]) -> Array:
    """`[fits, n]` of `[n, cells, fits]`."""
    cell = torch.from_numpy(np.maximum(split.cell, 0)).to(predicted.device)
    chosen = predicted[torch.arange(len(cell), device=cell.device), cell]
    return np.asarray(chosen.T.cpu().numpy().astype(kind))


def _train_scores(predicted: Tensor, y: Tensor, train: Tensor) -> Floats:
    """`[columns, fits]`: accuracy or R2 on the training rows, averaged over cells."""
    share = (train.float() / train.sum(1, keepdim=True)).T[None, :, :, None]
    if y.dtype.is_floating_point:
        mean = (share[0] * y[:, None]).sum(0)
        spread = (share[0] * (y[:, None] - mean).square()).sum(0)
        lost = (share * (predicted - y[:, None]).square()).sum(1)
        scores = (1 - lost / spread.clamp(min=1e-30)).mean(1)
    else:
        scores = ((predicted == y[:, None]) * share).sum(1).mean(1)
    return np.asarray(scores.double().cpu().numpy())
