"""Fitted linear probes: what all kinds of them share."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

_LARGE = 512
_OUTPUTS = 8_000_000
"""Numbers that outputs of fitted probes may have at a time."""


@dataclass(frozen=True, slots=True)
class Fold:
    """The training rows of every cell, as torch indices.

    Args:
        train: bool `[cells, n]`.
        rows: int64 `[cells, most]`, numbers of the training rows, padded with 0.
        used: float32 `[cells, most]`, 0 for padding.
    """

    train: Tensor
    rows: Tensor
    used: Tensor

    @classmethod
    def of(cls, train: Tensor) -> Fold:
        """From the training masks alone."""
        counts = train.sum(1)
        order = torch.argsort(train.to(torch.int8), dim=1, descending=True, stable=True)
        rows = order[:, : int(counts.max())]
        used = torch.arange(rows.shape[1], device=train.device)[None] < counts[:, None]
        return cls(train, torch.where(used, rows, 0), used.to(torch.float32))

    def part(self, cells: slice) -> Fold:
        """Some of the cells."""
        return Fold(self.train[cells], self.rows[cells], self.used[cells])


@dataclass(frozen=True, slots=True)
class LinearFits:
    """Fitted linear probes of some columns.

    Args:
        weights: `[columns, features, cells, outputs, fits]`; one output for a number, and for
            class 1 of two; else one per class.
        bias: `[columns, cells, outputs, fits]`.
        converged: bool `[columns, cells, fits]`.
        objective: `[columns, cells, fits]`, `sum(loss) + ||W||^2 / (2 C)`; None where there is no
            such thing.
        steps: Steps taken.
        numbers: Whether outputs are numbers and not scores of classes.
    """

    weights: Tensor
    bias: Tensor
    converged: Tensor
    objective: Tensor | None = None
    steps: int = 0
    numbers: bool = field(default=False, kw_only=True)

    def outputs(self, z: Tensor) -> Tensor:
        """`[columns, n, cells, outputs, fits]` of `z` `[columns, n, features]`."""
        flat = z @ self.weights.flatten(2)
        shape = (*flat.shape[:2], *self.weights.shape[2:])
        return flat.view(shape).add_(self.bias[:, None])

    def predict(self, z: Tensor) -> Tensor:
        """`[columns, n, cells, fits]`: int64 classes, or float numbers, of every row."""
        found = []
        for part in self.parts(z.shape[1]):
            out = part.outputs(z)
            found.append(out[:, :, :, 0] if self.numbers else classes_of(out))
        return torch.cat(found, 2)

    def parts(self, rows: int) -> Iterator[LinearFits]:
        """The fits of some cells at a time, so few that the outputs of `rows` rows are small."""
        columns, _, cells, outputs, fits = self.weights.shape
        size = max(1, _OUTPUTS // (columns * rows * outputs * fits))
        for start in range(0, cells, size):
            some = slice(start, start + size)
            yield replace(
                self,
                weights=self.weights[:, :, some],
                bias=self.bias[:, some],
                converged=self.converged[:, some],
                objective=None if self.objective is None else self.objective[:, some],
            )

    def tensors(self) -> dict[str, Tensor]:
        """Weights `[features, outputs]` and bias `[outputs]` of the first column, cell and fit."""
        return {"weights": self.weights[0, :, 0, :, 0], "bias": self.bias[0, 0, :, 0]}


def joined(parts: Sequence[LinearFits], *, cells: bool) -> LinearFits:
    """The fits of parts of the cells, or of parts of the columns, as one."""
    objectives = [part.objective for part in parts if part.objective is not None]
    along = 1 if cells else 0
    return LinearFits(
        torch.cat([part.weights for part in parts], 2 * along),
        torch.cat([part.bias for part in parts], along),
        torch.cat([part.converged for part in parts], along),
        torch.cat(objectives, along) if objectives else None,
        max(part.steps for part in parts),
        numbers=parts[0].numbers,
    )


def classes_of(out: Tensor) -> Tensor:
    """int64 `[..., fits]`: classes of scores `[..., outputs, fits]`; a single output is binary."""
    if out.shape[-2] == 1:
        return (out[..., 0, :] > 0).long()
    return out.max(-2).indices


def one_hot(y: Tensor, classes: int) -> Tensor:
    """float32 `[..., outputs, fits]` of class numbers `[..., fits]`; one output for two classes."""
    outputs = torch.arange(1, 2) if classes == 2 else torch.arange(classes)
    return (y[..., None, :] == outputs.to(y.device)[:, None]).to(torch.float32)


def gram(x: Tensor) -> Tensor:
    """`x @ x.mT`; on a CPU by numpy, whose BLAS computes one triangle only."""
    if x.device.type != "cpu" or x.shape[-2] < _LARGE:
        return x @ x.mT
    arrays = x.numpy()
    if arrays.ndim == 2:
        return torch.from_numpy(arrays @ arrays.T)
    return torch.stack([torch.from_numpy(a @ a.T) for a in arrays])
