"""Spatial coherence: whether patches in which a feature fires lie beside each other."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import torch

from vlmlens.tokens import PatchGrid, TokenKind, TokenLayout
from vlmlens_plugins.analysis._statistics import generator
from vlmlens_plugins.analysis.sae.judging.material import Block

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
_VIEWS = 512
_SMALLEST = 2


class Coherence:
    """Moran's I of each feature on the grid of patches, averaged over views in which it fires.

    `I = (n / W) sum_ij w_ij (z_i - m)(z_j - m) / sum_i (z_i - m)^2` with `w_ij = 1` for patches
    that share an edge, of the n patches of a view, with mean code m. P. Moran, "Notes on continuous
    stochastic phenomena", Biometrika 37 (1950). Beside it stands the same after the patches of
    each view were permuted; its expectation is `-1 / (n - 1)`.

    The first 512 views are used. A feature whose code is equal in all patches has no I there.

    Args:
        features: How many features.
        seed: Of the permutations.
    """

    def __init__(self, features: int, seed: int = 0) -> None:
        self.views = np.zeros(features, np.int64)
        self._sum = np.zeros((2, features))
        self._rng = generator(seed, "patches")
        self._used = 0

    @property
    def value(self) -> Floats:
        """float64 `[features]`: Moran's I; NaN of features that fire in no view."""
        return self._mean(0)

    @property
    def permuted(self) -> Floats:
        """float64 `[features]`: the same with permuted patches."""
        return self._mean(1)

    def add(self, block: Block, code: torch.Tensor) -> None:
        """Count the views of some samples.

        Args:
            block: The samples.
            code: float `[n, features]`, the codes of their rows.
        """
        start = 0
        for layout, length in zip(block.layouts, block.lengths, strict=False):
            for where, neighbours in grids(layout):
                if self._used == _VIEWS:
                    return
                self._used += 1
                self._view(code[torch.from_numpy(start + where).to(code.device)], neighbours)
            start += length

    def _view(self, code: torch.Tensor, neighbours: Ints) -> None:
        fires = (code != 0).any(0).nonzero()[:, 0]
        values = code[:, fires].cpu().double().numpy()
        shuffled = values[self._rng.permutation(len(values))]
        found = np.stack([morans_i(each, neighbours) for each in (values, shuffled)])
        known = np.isfinite(found[0])
        places = fires.cpu().numpy()[known]
        self._sum[:, places] += found[:, known]
        self.views[places] += 1

    def _mean(self, which: int) -> Floats:
        found: Floats = np.where(
            self.views > 0, self._sum[which] / np.maximum(self.views, 1), np.nan
        )
        return found


def morans_i(values: Floats, neighbours: Ints) -> Floats:
    """Moran's I of columns of values.

    Args:
        values: `[patches, features]`.
        neighbours: int64 `[edges, 2]`: places of patches that share an edge, each pair once.

    Returns:
        float64 `[features]`; NaN where all values are equal.
    """
    away = values - values.mean(0)
    together = (away[neighbours[:, 0]] * away[neighbours[:, 1]]).sum(0)
    square = (away * away).sum(0)
    flat = np.ptp(values, 0) == 0
    with np.errstate(divide="ignore", invalid="ignore"):
        found: Floats = len(values) / len(neighbours) * together / square
    return np.where(flat, np.nan, found)


def grids(layout: TokenLayout) -> Iterator[tuple[Ints, Ints]]:
    """Each view of a sample's images, as places of its rows, and which of these are neighbours.

    Rows that stand for no region are left out, and views without neighbours, such as one patch.
    """
    if layout.patches is None:
        return
    grid, rows = layout.patches, layout.positions(TokenKind.IMAGE)
    placed = np.isfinite(grid.box.sum(1))
    views = list(zip(grid.image.tolist(), grid.view, strict=True))
    for view in dict.fromkeys(views):
        own = np.array([i for i, each in enumerate(views) if each == view and placed[i]], np.int64)
        edges = _edges(grid, own)
        if len(own) > _SMALLEST and len(edges):
            yield rows[own], edges


def _edges(grid: PatchGrid, own: Ints) -> Ints:
    place = {(int(grid.row[i]), int(grid.col[i])): n for n, i in enumerate(own)}
    pairs = [
        (n, other)
        for (row, col), n in place.items()
        for step in ((row + 1, col), (row, col + 1))
        if (other := place.get(step)) is not None
    ]
    return np.array(pairs, np.int64).reshape(-1, 2)
