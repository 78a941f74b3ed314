"""Figures of sweeps: a heat map of layers and rows, and single patches over the picture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from vlmlens.abc import ModelAdapter
from vlmlens.results import Figure, Sheet
from vlmlens.samples import Sample
from vlmlens.sites import Axis
from vlmlens.tokens import Selector
from vlmlens_plugins.analysis._columns import short_names
from vlmlens_plugins.analysis._patches import Place, views

_IMAGE = Selector.parse("image")
Floats = npt.NDArray[np.float64]


def heat_map(
    name: str,
    title: str,
    values: Mapping[tuple[str, str], float],
    *,
    label: str,
    limits: tuple[float, float] | None = (0.0, 1.0),
) -> Figure:
    """Sites from left to right in the order given, rows of tokens from top to bottom.

    Args:
        name: File name without suffix.
        title: What it shows.
        values: By (site, rows).
        label: What the numbers are.
        limits: Of the colours.
    """
    sites = list(dict.fromkeys(site for site, _ in values))
    rows = list(dict.fromkeys(rows for _, rows in values))
    cells = [[_finite(values.get((site, row))) for site in sites] for row in rows]
    texts = [
        ["" if value is None else f"{round(value, 2) + 0:.2f}" for value in line] for line in cells
    ]
    return Figure(
        name,
        title,
        "heatmap",
        x=short_names(sites),
        x_label="site",
        y_label=label,
        y=rows,
        cells=cells,
        texts=texts,
        y_range=limits,
    )


def patch_sheets(
    vlm: ModelAdapter, samples: Sequence[Sample], axis: Axis, values: Sequence[Floats]
) -> list[Sheet]:
    """For each sample, a value per image row and layer over its picture; a sheet for each view.

    Args:
        vlm: The model.
        samples: The samples.
        axis: The axis whose image rows they are.
        values: Per sample, float64 `[layers, image rows]`.
    """
    found = []
    for sample, layers in zip(samples, values, strict=True):
        layout = vlm.encode([sample]).layouts[axis].samples[0]
        for view, where, grid in views(_IMAGE, layout, layers.shape[1]):
            place = Place(sample, view, grid, len(where))
            found.append(place.sheet(layers[:, where], (), (), {}))
    return found


def _finite(value: float | None) -> float | None:
    return None if value is None or not np.isfinite(value) else float(value)
