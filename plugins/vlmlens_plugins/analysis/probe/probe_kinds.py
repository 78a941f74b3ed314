"""The kinds of probe, and how strongly to regularize them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch import Tensor

from vlmlens_plugins.analysis.probe.closed_form import fit_centroids, fit_ridge
from vlmlens_plugins.analysis.probe.cross_validation import Family, Fits, Tick, silent, within
from vlmlens_plugins.analysis.probe.linear import gram
from vlmlens_plugins.analysis.probe.logistic import ROUGH, Kernels, fit_logistic
from vlmlens_plugins.analysis.probe.mlp import MlpFits, MlpSettings, fit_mlp
from vlmlens_plugins.analysis.probe.options import ProbeOptions
from vlmlens_plugins.analysis.probe.splits import inner_folds
from vlmlens_plugins.analysis.probe.targets import Target

_INNER = 3
_STOPPING = 0.1


def family(options: ProbeOptions, target: Target, seed: int) -> Family:
    """The kind of probe that the options ask for, for one target."""
    classes = len(target.classes)
    if options.model == "mlp":
        settings = MlpSettings(
            hidden=options.hidden,
            epochs=options.epochs,
            patience=options.patience,
            learning_rate=options.learning_rate,
            seed=seed,
        )
        return _Mlp(classes, settings, torch.from_numpy(target.groups), seed)
    if options.model == "centroid":
        return _Centroid(classes)
    inner = torch.from_numpy(inner_folds(target.y, target.groups, _INNER, seed))
    if options.model == "ridge":
        return _Ridge(tuple(options.C), inner)
    return _Logistic(tuple(options.C), inner, classes)


def known_strength(c: float, z: Tensor, train: Tensor) -> Tensor:
    """The same inverse strength `[columns, cells]` everywhere."""
    return z.new_full((len(z), len(train)), c)


@dataclass(frozen=True, slots=True)
class _Logistic:
    grid: tuple[float, ...]
    inner: Tensor
    classes: int

    def fit(self, z: Tensor, y: Tensor, train: Tensor, c: Tensor, tick: Tick = silent) -> Fits:
        return fit_logistic(z, y, train, c, classes=self.classes, tick=tick)

    def strengths(self, z: Tensor, y: Tensor, train: Tensor, tick: Tick = silent) -> Tensor:
        kernels = Kernels(gram(z), keep=True) if z.shape[1] < z.shape[2] else None
        losses = partial(self._losses, kernels=kernels)
        return _search(losses, self.grid, self.inner, z, y, train, tick)

    def _losses(
        self, z: Tensor, y: Tensor, train: Tensor, c: Tensor, tick: Tick, kernels: Kernels | None
    ) -> Tensor:
        """`[columns, n, cells]`: the cross-entropy of every row."""
        fits = fit_logistic(
            z, y[:, None], train, c, classes=self.classes, tolerance=ROUGH, kernels=kernels,
            tick=tick,
        )  # fmt: skip
        parts = fits.parts(z.shape[1])
        return torch.cat([self._cross_entropy(part.outputs(z)[..., 0], y) for part in parts], 2)

    def _cross_entropy(self, out: Tensor, y: Tensor) -> Tensor:
        """`[columns, n, cells]` of outputs `[columns, n, cells, outputs]`."""
        if self.classes == 2:
            sign = (1 - 2 * y.to(out.dtype))[:, None]
            return torch.nn.functional.softplus(sign * out[..., 0])
        index = y[None, :, None, None].expand(*out.shape[:3], 1)
        return -out.log_softmax(-1).gather(-1, index)[..., 0]


@dataclass(frozen=True, slots=True)
class _Ridge:
    grid: tuple[float, ...]
    inner: Tensor

    def fit(self, z: Tensor, y: Tensor, train: Tensor, c: Tensor, tick: Tick = silent) -> Fits:
        del tick
        return fit_ridge(z, y, train, c)

    def strengths(self, z: Tensor, y: Tensor, train: Tensor, tick: Tick = silent) -> Tensor:
        return _search(self._losses, self.grid, self.inner, z, y, train, tick)

    def _losses(self, z: Tensor, y: Tensor, train: Tensor, c: Tensor, tick: Tick) -> Tensor:
        """`[columns, n, cells]`: the squared error of every row."""
        del tick
        found = fit_ridge(z, y[:, None], train, c).predict(z)[..., 0]
        return (found - y[:, None]).square()


@dataclass(frozen=True, slots=True)
class _Centroid:
    classes: int

    def fit(self, z: Tensor, y: Tensor, train: Tensor, c: Tensor, tick: Tick = silent) -> Fits:
        del c, tick
        return fit_centroids(z, y, train, classes=self.classes)

    def strengths(self, z: Tensor, y: Tensor, train: Tensor, tick: Tick = silent) -> Tensor:
        del y, tick
        return known_strength(1.0, z, train)


@dataclass(frozen=True, slots=True)
class _Mlp:
    classes: int
    settings: MlpSettings
    groups: Tensor
    seed: int

    def fit(self, z: Tensor, y: Tensor, train: Tensor, c: Tensor, tick: Tick = silent) -> Fits:
        del c
        groups = self.groups[: train.shape[1]]
        stopping = stopping_rows(train, groups, _STOPPING, self.seed)
        labels = y.expand(len(train), *y.shape)
        fits = [
            fit_mlp(
                x.expand(len(train), *x.shape),
                labels,
                train,
                stopping,
                classes=self.classes,
                settings=self.settings,
                tick=within(tick, i / len(z), 1 / len(z)),
            )
            for i, x in enumerate(z)
        ]
        return MlpFits.joined(fits)

    def strengths(self, z: Tensor, y: Tensor, train: Tensor, tick: Tick = silent) -> Tensor:
        del y, tick
        return known_strength(1.0, z, train)


def stopping_rows(train: Tensor, groups: Tensor, fraction: float, seed: int) -> Tensor:
    """Bool `[cells, n]`: whole groups with about `fraction` of each cell's training groups."""
    order = np.random.default_rng(seed).permutation(int(groups.max()) + 1)
    names = groups.cpu().numpy()
    rows = []
    for learned in train.cpu().numpy():
        there = order[np.isin(order, names[learned])]
        chosen = there[: max(1, round(fraction * len(there)))]
        rows.append(np.isin(names, chosen) & learned)
    return torch.from_numpy(np.stack(rows)).to(train.device)


def _search(
    losses: Callable[[Tensor, Tensor, Tensor, Tensor, Tick], Tensor],
    grid: tuple[float, ...],
    inner: Tensor,
    z: Tensor,
    y: Tensor,
    train: Tensor,
    tick: Tick,
) -> Tensor:
    """`[columns, cells]`: the inverse strength with the least loss on inner held-out parts.

    From the strongest regularization on; stops where a weaker one is worse everywhere.
    """
    best = known_strength(grid[0], z, train)
    if len(grid) == 1:
        return best
    parts = torch.arange(int(inner.max()) + 1, device=train.device)
    held = inner.to(train.device)[None] == parts[:, None]
    learn = (train[:, None] & ~held).flatten(0, 1)
    check = (train[:, None] & held).flatten(0, 1).T.to(z.dtype)
    least = torch.full_like(best, torch.inf)
    for number, c in enumerate(sorted(grid)):
        told = within(tick, number / len(grid), 1 / len(grid))
        loss = losses(z, y, learn, known_strength(c, z, learn), told) * check
        summed = loss.sum(1).unflatten(1, (len(train), -1)).sum(-1)
        better = summed < least
        if not bool(better.any()):
            break
        best, least = torch.where(better, c, best), torch.where(better, summed, least)
    return best
