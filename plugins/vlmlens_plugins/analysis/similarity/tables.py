"""Tables and figures of how alike columns are."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from vlmlens.results import Cell, Figure, Series, Table
from vlmlens_plugins.analysis._columns import short_names
from vlmlens_plugins.analysis._results import table
from vlmlens_plugins.analysis.similarity.compared import Compared, parting
from vlmlens_plugins.analysis.similarity.measures import CKA, NEIGHBOURS, RSA, Measure
from vlmlens_plugins.analysis.similarity.report import cell, values

_WORDS = {CKA: "linear CKA", RSA: "RSA", NEIGHBOURS: "mutual neighbours"}
_MOST_SHOWN = 64
"""Columns of a side in a heat map; tables have all."""

_PRINTED = 500
"""Cells of a heat map, up to which it prints numbers by itself."""


def tables(found: Compared, limit: float) -> list[Table]:
    """The path along the depth with all numbers, and all pairs."""
    rows = [_row(found, place) for place in found.path]
    if found.corresponding:
        p = parting(found, limit).p
        for row, value in zip(rows, p, strict=True):
            row[f"p_below_{limit:g}"] = cell(value)
    titles = {
        True: ("similarity-steps", "From layer to layer"),
        False: ("similarity-nearest", "Each column with the nearest one of the other run"),
    }
    name, title = titles[found.alone]
    if found.corresponding:
        name, title = "similarity-columns", "Each column with its counterpart in the other run"
    made = [
        table(name, title, rows, ("column",)),
        table("similarity-pairs", "All pairs of columns", _pairs(found), ("column", "other")),
    ]
    return [one for one in made if len(one)]


def figures(found: Compared) -> list[Figure]:
    """A heat map per measure, and the path along the depth."""
    maps = [_heatmap(found, measure) for measure in found.measures.values()]
    return [*([_along(found)] if len(found.path) > 1 else []), *maps]


def _row(found: Compared, place: tuple[int, int]) -> dict[str, Cell]:
    """A place along the depth; within a run, the later column is what the row is about."""
    row = values(found, place)
    if not found.alone:
        return row
    return {"column": row.pop("other"), "before": row.pop("column"), **row}


def _pairs(found: Compared) -> list[dict[str, Cell]]:
    """One row per pair; within one run each pair stands once."""
    rows = []
    for i, first in enumerate(found.first):
        for j in range(i + 1 if found.alone else 0, len(found.second)):
            row: dict[str, Cell] = {"column": first, "other": found.second[j]}
            for name, measure in found.measures.items():
                row[name] = cell(measure.value[i, j])
                row[f"{name}_error"] = cell(measure.error[i, j])
                row[f"{name}_permuted"] = cell(measure.permuted[i, j])
                row[f"{name}_p"] = cell(measure.p[i, j])
            rows.append(row)
    return rows


def _heatmap(found: Compared, measure: Measure) -> Figure:
    down, right = _shown(len(found.first)), _shown(len(found.second))
    near = set(found.nearest)
    many = len(down) * len(right) > _PRINTED
    first, second = short_names(found.first), short_names(found.second)
    runs = "" if found.alone else f" of {found.names[0]} (rows) and {found.names[1]}"
    return Figure(
        name=f"similarity-{measure.name}",
        title=f"{_WORDS[measure.name]} of the columns{runs}",
        kind="heatmap",
        x=[second[j] for j in right],
        y=[first[i] for i in down],
        x_label="" if found.alone else found.names[1],
        y_label=_WORDS[measure.name],
        cells=[[cell(measure.value[i, j]) for j in right] for i in down],
        texts=[["•" if (i, j) in near else "" for j in right] for i in down] if many else (),
        y_range=(0.0, 1.0),
    )


def _shown(count: int) -> list[int]:
    """Which of so many columns a heat map shows: all, or some evenly over the depth."""
    if count <= _MOST_SHOWN:
        return list(range(count))
    return [int(i) for i in np.linspace(0, count - 1, _MOST_SHOWN).round()]


def _along(found: Compared) -> Figure:
    path = found.path
    first, second = short_names(found.first), short_names(found.second)
    label, x = "", [first[i] for i, _ in path]
    if found.alone:
        title, x = "how alike each column is to the one before", [second[j] for _, j in path]
    elif found.corresponding:
        title = f"how alike {found.names[1]} is to {found.names[0]} at each column"
    else:
        title = f"how alike each column of {found.names[0]} is to the nearest of {found.names[1]}"
        x = [f"{first[i]} ~ {second[j]}" for i, j in path]
    return Figure(
        name="similarity-depth",
        title=title,
        kind="line",
        x=x,
        x_label=label,
        y_label="similarity",
        series=[*(_series(measure, path) for measure in found.measures.values()), _baseline(found)],
        y_range=(0.0, 1.0),
    )


def _series(measure: Measure, path: Sequence[tuple[int, int]]) -> Series:
    value, low, high = (
        [cell(part[place]) for place in path] for part in (measure.value, measure.low, measure.high)
    )
    return Series(_WORDS[measure.name], value, low, high)


def _baseline(found: Compared) -> Series:
    permuted = [cell(found.cka.permuted[place]) for place in found.path]
    return Series("linear CKA, rows permuted", permuted, dashed=True)
