"""Figures of occlusion: maps over the image, and curves."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import numpy.typing as npt

from vlmlens.results import Figure, Series, Sheet
from vlmlens_plugins.analysis._columns import short_names
from vlmlens_plugins.analysis._maps import PatchMap
from vlmlens_plugins.analysis._patches import Place
from vlmlens_plugins.analysis._results import slug
from vlmlens_plugins.analysis.occlusion.measured import CENTRE, RANDOM, Maps, Measured

Floats = npt.NDArray[np.float64]
_OF_ITS_LARGEST = "share of the map's largest value"


def figures(measured: Measured, pictures: int) -> list[Figure]:
    """The maps of the first samples of each task; those of rows by site; the curves."""
    shown = [i for rows in measured.by_task().values() for i in rows[:pictures]]
    found = []
    if shown:
        sheets = [
            sheet
            for i in shown
            for method, maps in measured.maps.items()
            for sheet in _sheets(measured, i, {"": maps}, {"method": method})
        ]
        title = "Maps of what the answer rests on, by sample and method"
        found.append(_patches("maps", title, ["map"], sheets))
        if len(measured.layers) > 1:
            sheets = [sheet for i in shown for sheet in _sheets(measured, i, measured.layers, {})]
            title = "What replacing rows of patches by their mean takes from the answer, by site"
            found.append(
                _patches("rows-by-site", title, short_names(list(measured.layers)), sheets)
            )
    for task, rows in measured.by_task().items():
        found += [_curves(measured, task, rows, name) for name in ("deletion", "insertion")]
    return found


def _patches(name: str, title: str, layers: Sequence[str], sheets: Sequence[Sheet]) -> Figure:
    return Figure(
        name,
        title,
        "patches",
        x=(),
        y=layers,
        y_label=_OF_ITS_LARGEST,
        sheets=sheets,
        y_range=(0.0, 1.0),
    )


def _sheets(
    measured: Measured, number: int, layers: Maps, facets: Mapping[str, str]
) -> Iterator[Sheet]:
    """A sheet for each view of each image; with values of all layers."""
    aim = measured.aims[number]
    about = {"task": aim.task} if len(measured.by_task()) > 1 else {}
    maps = _aligned([own[number] for own in layers.values()])
    grid = maps[0].grid
    values = np.stack([one.values for one in maps])
    labels = [(int(image), view) for image, view in zip(grid.image, grid.view, strict=True)]
    for label in dict.fromkeys(labels):
        where = np.array([i for i, one in enumerate(labels) if one == label])
        place = Place(aim.sample, label[1], grid.take(where), len(where))
        tips = [[f"{value:.3g}" for value in line] for line in values[:, where]]
        yield place.sheet(_scaled(values)[:, where], (), tips, {**about, **facets})


def _aligned(maps: Sequence[PatchMap]) -> list[PatchMap]:
    """Maps of one sample at several sites with the patches that all of them have."""
    grids = [one.grid for one in maps]
    keys = [list(map(tuple, np.stack([g.image, g.row, g.col], 1))) for g in grids]
    shared = set(keys[0]).intersection(*keys[1:])
    kept = [np.array([i for i, key in enumerate(own) if key in shared]) for own in keys]
    return [
        PatchMap(one.values[own], one.grid.take(own)) for one, own in zip(maps, kept, strict=True)
    ]


def _scaled(values: Floats) -> Floats:
    """Each layer divided by its largest value; what lowers nothing stays at 0."""
    largest = values.max(1, keepdims=True)
    return np.where(largest > 0, values / np.where(largest > 0, largest, 1.0), 0.0)


def _curves(measured: Measured, task: str, rows: Sequence[int], name: str) -> Figure:
    several = [
        (method, np.mean([getattr(own[i], name) for i in rows], 0))
        for method, own in measured.curves.items()
    ]
    steps = len(several[0][1]) - 1
    what = "hidden, highest first" if name == "deletion" else "shown, highest first"
    return Figure(
        f"{name}-{slug(task)}",
        f"{name.capitalize()} of {task}: the probability of the answer",
        "line",
        x=[f"{k / steps:.0%}" for k in range(steps + 1)],
        x_label=f"cells {what}",
        y_label="probability",
        series=[
            Series(method, curve.tolist(), dashed=method in (RANDOM, CENTRE))
            for method, curve in several
        ],
        y_range=(0.0, 1.0),
    )
