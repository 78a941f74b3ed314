"""Figures of how SAEs were judged."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from vlmlens.results import Figure, Series
from vlmlens_plugins.analysis._results import slug
from vlmlens_plugins.analysis._sweeps.scores import number
from vlmlens_plugins.analysis.sae.judging.judged import Judged, Role

Floats = npt.NDArray[np.float64]
_STEP = 0.5
_SHARES = 10


def figures(judged: Judged) -> list[Figure]:
    """How often features fire, what single ones tell, and whether they are of images or of text.

    Args:
        judged: What was measured of one column.
    """
    made = [_density(judged)]
    if judged.concepts:
        made.append(_concepts(judged))
    if any(basis.image_share is not None for basis in judged.bases.values()):
        made.append(_shares(judged))
    return made


def histogram(density: Floats, rows: int) -> tuple[list[str], list[float]]:
    """The share of features by the logarithm of how often they fire.

    Args:
        density: float64 `[features]`.
        rows: How many rows were seen; nothing between 0 and one row of these can be seen.

    Returns:
        Names of the bins, "none" first, then half powers of ten; and the share in each.

    >>> histogram(np.array([0.0, 0.2, 0.02, 0.5]), 100)[1]
    [0.25, 0.25, 0.0, 0.25, 0.25]
    """
    lowest = int(np.floor(-np.log10(max(2, rows)) / _STEP))
    edges = np.arange(lowest, 1) * _STEP
    with np.errstate(divide="ignore"):
        places = np.floor(np.log10(density) / _STEP) - lowest
    places = np.where(density > 0, np.clip(places, 0, len(edges) - 2), -1).astype(int)
    counts = np.bincount(places + 1, minlength=len(edges))
    names = ["none", *(f"{10**low:.1g} to {10 ** (low + _STEP):.1g}" for low in edges[:-1])]
    return names, [float(count) / max(1, len(density)) for count in counts]


def _density(judged: Judged) -> Figure:
    bins = {name: histogram(each.density, judged.rows) for name, each in judged.bases.items()}
    return Figure(
        f"sae-density-{slug(judged.column)}",
        f"How often features of {judged.column} fire, in {judged.rows:,} held-out rows",
        "bar",
        x=next(iter(bins.values()))[0],
        x_label="share of rows in which a feature fires",
        y_label="share of features",
        series=[Series(name, shares) for name, (_, shares) in bins.items()],
    )


def _concepts(judged: Judged) -> Figure:
    names = [concept.name for concept in judged.concepts]
    series = []
    for basis in judged.bases.values():
        found = [basis.singles[name].auc for name in names]
        low, high = [number(each.low) for each in found], [number(each.high) for each in found]
        series.append(Series(basis.name, [number(each.value) for each in found], low, high))
    for basis in judged.bases.values():
        if basis.role is Role.UNTRAINED:
            values = [number(basis.unlimited[name].auc.value) for name in names]
            series.append(Series(f"{basis.name}, all firing", values, dashed=True))
    return Figure(
        f"sae-concepts-{slug(judged.column)}",
        f"What the best single features of {judged.column} tell, in held-out samples",
        "bar",
        x=names,
        y_label="AUC, mean over values",
        series=series,
        y_range=(0.0, 1.0),
    )


def _shares(judged: Judged) -> Figure:
    edges = np.linspace(0, 1, _SHARES + 1)
    series = []
    for basis in judged.bases.values():
        shares = basis.image_share
        if shares is None:
            continue
        counts = np.histogram(shares[np.isfinite(shares)], edges)[0]
        series.append(Series(basis.name, [float(n) / max(1, counts.sum()) for n in counts]))
    return Figure(
        f"sae-modality-{slug(judged.column)}",
        f"Whether features of {judged.column} fire in rows of images or of text",
        "bar",
        x=[f"{low:.1f} to {low + 1 / _SHARES:.1f}" for low in edges[:-1]],
        x_label="density in image rows, as a share of that in image rows and in text rows",
        y_label="share of features that fire",
        series=series,
    )
