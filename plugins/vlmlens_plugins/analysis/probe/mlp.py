"""Many two-layer perceptrons at once: all folds and all label shufflings, with early stopping."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

import torch
from torch import Tensor

from vlmlens_plugins.analysis.probe.cross_validation import Tick, silent

Parameters: TypeAlias = tuple[Tensor, Tensor, Tensor, Tensor]


@dataclass(frozen=True, slots=True)
class MlpSettings:
    """How the perceptrons are trained.

    Args:
        hidden: Hidden units (ReLU).
        epochs: Most full-batch steps of Adam.
        patience: Steps without a lower loss on the stopping rows before a fit is finished.
        learning_rate: Adam's.
        decay: Weight decay (AdamW's).
        seed: Seed of the initial weights.
    """

    hidden: int = 64
    epochs: int = 300
    patience: int = 20
    learning_rate: float = 0.01
    decay: float = 0.01
    seed: int = 0


@dataclass(frozen=True, slots=True)
class MlpFits:
    """Fitted perceptrons, column by column.

    Args:
        parameters: Of each column: first weights `[cells, features, fits, hidden]`, first bias
            `[cells, 1, fits, hidden]`, second weights `[cells, fits, hidden, classes]`, second
            bias `[cells, 1, fits, classes]`.
        epochs: int64 `[columns, cells, fits]`, the step whose weights were kept.
    """

    parameters: tuple[Parameters, ...]
    epochs: Tensor

    @classmethod
    def joined(cls, fits: Sequence[MlpFits]) -> MlpFits:
        """The fits of several columns as one."""
        parameters = tuple(one for fit in fits for one in fit.parameters)
        return cls(parameters, torch.cat([fit.epochs for fit in fits]))

    @property
    def converged(self) -> Tensor:
        """True everywhere; training ends by early stopping or after the last epoch."""
        return torch.ones_like(self.epochs, dtype=torch.bool)

    def predict(self, z: Tensor) -> Tensor:
        """int64 `[columns, n, cells, fits]`: the classes of `z` `[columns, n, features]`."""
        cells = self.epochs.shape[1]
        with torch.no_grad():
            out = [
                _logits(of_column, x.expand(cells, *x.shape)).argmax(-1).movedim(0, 1)
                for of_column, x in zip(self.parameters, z, strict=True)
            ]
        return torch.stack(out)

    def tensors(self) -> dict[str, Tensor]:
        """Weights `[features, hidden]`, `[hidden, classes]` and biases of the first probe."""
        first, bias, second, out = self.parameters[0]
        return {
            "weights": first[0, :, 0],
            "bias": bias[0, 0, 0],
            "weights2": second[0, 0],
            "bias2": out[0, 0, 0],
        }


def fit_mlp(
    x: Tensor,
    y: Tensor,
    used: Tensor,
    stopping: Tensor,
    *,
    classes: int,
    settings: MlpSettings,
    tick: Tick = silent,
) -> MlpFits:
    """Train `folds x fits` perceptrons that share their rows fold by fold.

    Args:
        x: float `[folds, rows, features]`, already standardized.
        y: int64 `[folds, rows, fits]`, class numbers.
        used: bool `[folds, rows]`, the training rows.
        stopping: bool `[folds, rows]`, training rows that only decide when to stop.
        classes: Number of classes.
        settings: How.
        tick: Told the share of the epochs that are done.
    """
    parameters = _initial(x, y.shape[2], classes, settings)
    optimizer = torch.optim.AdamW(
        parameters, lr=settings.learning_rate, weight_decay=settings.decay, foreach=False
    )
    learn = _mean_weights(used & ~stopping, x.dtype)
    watch = _mean_weights(stopping, x.dtype)
    best = _Best(tuple(p.detach().clone() for p in parameters))
    for epoch in range(settings.epochs):
        loss = torch.nn.functional.cross_entropy(
            _logits(parameters, x).movedim(-1, 1), y, reduction="none"
        )
        best.offer(epoch, (loss.detach() * watch).sum(1), parameters)
        if best.stale(epoch) > settings.patience:
            break
        optimizer.zero_grad()
        (loss * learn).sum().backward()
        optimizer.step()
        tick((epoch + 1) / settings.epochs)
    first, bias, second, out = best.parameters
    return MlpFits(((first, bias, second, out),), best.epoch[None])


class _Best:
    """The parameters with the lowest loss on the stopping rows, fit by fit."""

    def __init__(self, parameters: tuple[Tensor, ...]) -> None:
        self.parameters = parameters
        self.loss = torch.full(parameters[1].shape[:1] + parameters[1].shape[2:3], torch.inf)
        self.loss = self.loss.to(parameters[0])
        self.epoch = torch.zeros_like(self.loss, dtype=torch.int64)

    def offer(self, epoch: int, loss: Tensor, parameters: tuple[Tensor, ...]) -> None:
        better = loss < self.loss
        self.loss = torch.where(better, loss, self.loss)
        self.epoch = torch.where(better, epoch, self.epoch)
        of_fit = better[:, None, :, None]
        along = (of_fit, of_fit, better[:, :, None, None], of_fit)
        self.parameters = tuple(
            torch.where(mask, new.detach(), old)
            for mask, new, old in zip(along, parameters, self.parameters, strict=True)
        )

    def stale(self, epoch: int) -> int:
        return epoch - int(self.epoch.max())


def _initial(x: Tensor, fits: int, classes: int, settings: MlpSettings) -> Parameters:
    """He's initialization; every fold starts alike."""
    draw = torch.Generator().manual_seed(settings.seed)
    features, hidden = x.shape[2], settings.hidden
    first = torch.randn(features, fits, hidden, generator=draw) * (2 / features) ** 0.5
    second = torch.randn(fits, hidden, classes, generator=draw) * (1 / hidden) ** 0.5
    shapes = (first, torch.zeros(1, fits, hidden), second, torch.zeros(1, fits, classes))
    made = [p.to(x).repeat(x.shape[0], 1, 1, 1).requires_grad_() for p in shapes]
    return made[0], made[1], made[2], made[3]


def _logits(parameters: Parameters, x: Tensor) -> Tensor:
    """`[folds, rows, fits, classes]`."""
    first, bias, second, out = parameters
    folds, rows, _ = x.shape
    hidden = (x @ first.flatten(2)).view(folds, rows, *first.shape[2:]) + bias
    return (hidden.relu().movedim(2, 1) @ second).movedim(1, 2) + out


def _mean_weights(rows: Tensor, dtype: torch.dtype) -> Tensor:
    weights = rows.to(dtype)
    return (weights / weights.sum(1, keepdim=True).clamp(min=1))[..., None]
