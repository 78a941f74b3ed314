"""The tuned lens: one affine map per layer, trained to read like the final layer.

N. Belrose et al., "Eliciting latent predictions from transformers with the tuned lens" (2023,
arXiv 2303.08112): `lens(h) = readout(h + A h + b)`, trained on KL(final layer || lens).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from vlmlens._files import write_bytes
from vlmlens.errors import RunError
from vlmlens_plugins.analysis._statistics import bootstrap_weights, interval
from vlmlens_plugins.analysis.logit_lens.vocabulary import Floats, Hidden, Ints, Vocabulary, tensor

_EPOCHS = 60
_PATIENCE = 6
_BATCH = 64
_RATE = 0.1
_DECAY = 1e-2
_FORMAT = "vlmlens tuned lens 1"


@dataclass(frozen=True, slots=True)
class Translator:
    """`h -> h + h @ matrix.T + offset`.

    Args:
        matrix: float32 `[width, width]`.
        offset: float32 `[width]`.
    """

    matrix: Tensor
    offset: Tensor

    def __call__(self, hidden: Tensor) -> Tensor:
        """The rows as the readout is to see them, float32."""
        hidden = hidden.float()
        return hidden + hidden @ self.matrix.T.to(hidden.device) + self.offset.to(hidden.device)


LEAST_GROUPS = 5
"""A fifth of the groups is at least one."""


@dataclass(frozen=True, slots=True)
class Parts:
    """Numbers of samples to train on, to stop by, and to test on; no group stands in two."""

    train: Ints
    valid: Ints
    test: Ints


def split(groups: Sequence[str], rng: np.random.Generator) -> Parts:
    """Three fifths of the groups to train on, a fifth to stop by, a fifth to test on.

    Raises:
        ValueError: There are fewer than five groups.
    """
    names = sorted(set(groups))
    if len(names) < LEAST_GROUPS:
        raise ValueError(f"a tuned lens needs at least five groups of samples, not {len(names)}")
    order = rng.permutation(len(names))
    fifth = len(names) // 5
    part = np.zeros(len(names), dtype=np.int64)
    part[order[:fifth]], part[order[fifth : 2 * fifth]] = 2, 1
    of = dict(zip(names, part.tolist(), strict=True))
    found = np.array([of[group] for group in groups])
    train, valid, test = (np.flatnonzero(found == i) for i in range(3))
    return Parts(train, valid, test)


def train(
    vocabulary: Vocabulary,
    layer: tuple[Hidden, Hidden],
    final: tuple[Hidden, Hidden],
    *,
    norm: bool,
    rng: np.random.Generator,
) -> Translator:
    """The translator of one layer.

    It begins as the plain lens, and the epoch that is best on the rows to stop by is kept, the
    beginning included. Features are scaled by their spread while it learns.

    Args:
        vocabulary: Final norm and unembedding; they stay as they are.
        layer: Rows `[n, width]` to train on, and to stop by.
        final: The final layer's rows of the same positions.
        norm: Whether the lens applies the final norm.
        rng: Orders the rows.
    """
    device = vocabulary.device
    x, stop = (tensor(part).float().to(device) for part in layer)
    y, stop_at = (tensor(part).to(device) for part in final)
    scale = x.std(0, correction=0).clamp(min=1e-3 * float(x.pow(2).mean().sqrt()) + 1e-12)
    width = x.shape[1]
    free = [torch.zeros((width, width), device=device), torch.zeros(width, device=device)]
    for each in free:
        each.requires_grad_(True)

    def moved(rows: Tensor, weights: Sequence[Tensor]) -> Tensor:
        return rows + scale * ((rows / scale) @ weights[0].T + weights[1])

    def loss(rows: Tensor, target: Tensor) -> Tensor:
        return _divergence(vocabulary, moved(rows, free), target, norm)

    optimizer = torch.optim.AdamW(free, lr=_RATE / width, weight_decay=_DECAY)
    best, kept = _mean(loss, stop, stop_at), [each.detach().clone() for each in free]
    waited = 0
    for _ in range(_EPOCHS):
        _epoch(loss, optimizer, free, x, y, rng)
        now = _mean(loss, stop, stop_at)
        waited = 0 if now < best else waited + 1
        if now < best:
            best, kept = now, [each.detach().clone() for each in free]
        if waited == _PATIENCE:
            break
    return Translator(scale[:, None] * kept[0] / scale[None, :], scale * kept[1])


def save(path: Path, translators: Mapping[str, Translator], about: Mapping[str, Any]) -> None:
    """Write translators by column as safetensors: `COLUMN.matrix`, `COLUMN.offset`.

    Args:
        path: The file; replaced in one step.
        translators: By column.
        about: Kept as JSON in the file's metadata.
    """
    from safetensors.numpy import save as to_bytes

    arrays: dict[str, npt.NDArray[np.float32]] = {}
    for column, each in translators.items():
        arrays[f"{column}.matrix"] = each.matrix.cpu().numpy()
        arrays[f"{column}.offset"] = each.offset.cpu().numpy()
    path.parent.mkdir(parents=True, exist_ok=True)
    metadata = {"format": _FORMAT, "about": json.dumps(dict(about), ensure_ascii=False)}
    write_bytes(path, to_bytes(arrays, metadata=metadata))


def load(path: Path) -> tuple[dict[str, Translator], dict[str, Any]]:
    """Translators by column, and what was said about them.

    Raises:
        RunError: The file holds none.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            if metadata.get("format") != _FORMAT:
                raise RunError(f"{path} holds no tuned lens.", subject=str(path))
            names = [name.removesuffix(".matrix") for name in file.keys() if name.endswith("x")]  # noqa: SIM118  it is no mapping
            found = {
                name: Translator(
                    file.get_tensor(f"{name}.matrix"), file.get_tensor(f"{name}.offset")
                )
                for name in names
            }
    except (OSError, SafetensorError) as error:
        raise RunError(f"{path} holds no tuned lens ({error}).", subject=str(path)) from error
    return found, json.loads(metadata["about"])


def _divergence(vocabulary: Vocabulary, rows: Tensor, target: Tensor, norm: bool) -> Tensor:
    """Mean KL(final || lens) in nats, through which gradients run back to the rows."""
    with torch.no_grad():
        p = vocabulary.readout(target).log_softmax(-1)
    logs = vocabulary.readout(rows, norm=norm).log_softmax(-1)
    return (p.exp() * (p - logs)).sum(-1).mean()


def _epoch(
    loss: Callable[[Tensor, Tensor], Tensor],
    optimizer: torch.optim.Optimizer,
    free: Sequence[Tensor],
    x: Tensor,
    y: Tensor,
    rng: np.random.Generator,
) -> None:
    for rows in torch.from_numpy(rng.permutation(len(x))).to(x.device).split(_BATCH):
        for each, gradient in zip(
            free, torch.autograd.grad(loss(x[rows], y[rows]), free), strict=True
        ):
            each.grad = gradient
        optimizer.step()


def _mean(loss: Callable[[Tensor, Tensor], Tensor], x: Tensor, y: Tensor) -> float:
    with torch.no_grad():
        parts = [
            float(loss(a, b)) * len(a)
            for a, b in zip(x.split(_BATCH), y.split(_BATCH), strict=True)
        ]
    return sum(parts) / len(x)


def gain(
    plain: Floats, tuned: Floats, groups: Sequence[str], rng: np.random.Generator, draws: int = 2000
) -> tuple[float, float, float]:
    """How far the divergence falls, and a 95 % interval by resampling whole groups.

    Args:
        plain: float32 `[n]`, KL of the plain lens on held-out positions.
        tuned: Likewise of the learned one.
        groups: Of each position.
        rng: Draws.
        draws: How many resamples.
    """
    _, place = np.unique(np.array(groups), return_inverse=True)
    change = (plain - tuned).astype(np.float64)
    sums, counts = np.bincount(place, change), np.bincount(place)
    weights = bootstrap_weights(len(counts), draws, rng)
    low, high = interval((weights @ sums) / (weights @ counts))
    return float(change.mean()), float(low), float(high)
