"""Tables of the analysis of attention; runs are compared by them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from vlmlens.abc.model_work import JSON
from vlmlens.results import Cell, Table
from vlmlens_plugins.analysis._results import slug, table
from vlmlens_plugins.analysis._sweeps.effects import Effects
from vlmlens_plugins.analysis.attention.measured import Floats, Measured, mean, with_interval
from vlmlens_plugins.analysis.attention.options import AttentionOptions
from vlmlens_plugins.analysis.attention.work import SHARES

_WITH_INTERVAL = ("image", "region", "sinks", "entropy")
_OF_SAMPLES = ("image", "region", "sinks", "entropy")
_KEYS = ("task", "column")


def tables(
    one: Measured,
    tasks: Mapping[str, Sequence[int]],
    tests: Mapping[str, Effects | None],
    options: AttentionOptions,
    seed: int,
) -> list[Table]:
    """By task and block; by head, too; and by sample.

    Args:
        one: The numbers of a query.
        tasks: Numbers of the samples of each task.
        tests: By task, see `Measured.tested`.
        options: The analysis's options.
        seed: Of resampling.
    """
    name = slug(one.query)
    blocks = [
        row
        for task, rows in tasks.items()
        for row in _blocks(one, task, rows, tests[task], options, seed)
    ]
    heads = [row for task, rows in tasks.items() for row in _heads(one, task, rows, options, seed)]
    singles = [row for task, rows in tasks.items() for row in _samples(one, task, rows)]
    return [
        table(f"attention-{name}", "Where attention goes, mean over heads", _known(blocks), _KEYS),
        table(
            f"attention-{name}-heads",
            "Where attention goes, by head",
            _known(heads),
            (*_KEYS, "head"),
        ),
        table(
            f"attention-{name}-samples",
            "Where attention goes, by sample, mean over heads",
            _known(singles),
            _KEYS,
        ),
    ]


def map_table(
    shares: Mapping[str, Mapping[str, Floats]], areas: Mapping[str, float]
) -> Table | None:
    """By task and method, how much of a map lies in the key region; None where nothing is known.

    Args:
        shares: By task and method, float64 `[samples]`; NaN where it is not known.
        areas: By task, the mean area of the region.
    """
    rows: list[dict[str, Cell]] = [
        {
            "task": task,
            "method": method,
            "samples": int(np.isfinite(values).sum()),
            "region": float(mean(values, 0)),
            "area": areas[task],
        }
        for task, by_method in shares.items()
        for method, values in by_method.items()
        if np.isfinite(values).any()
    ]
    title = "How much of each map lies in the key region"
    return table("attention-maps", title, rows, ("task", "method")) if rows else None


def in_region(maps: Sequence[Mapping[str, JSON]], rows: Sequence[int]) -> dict[str, Floats]:
    """By method, the share of the map's positive part in the key region: float64 `[samples]`."""
    names = dict.fromkeys(name for i in rows for name in maps[i]["region"])
    return {name: np.array([_number(maps[i]["region"].get(name)) for i in rows]) for name in names}


def _blocks(
    one: Measured,
    task: str,
    rows: Sequence[int],
    test: Effects | None,
    options: AttentionOptions,
    seed: int,
) -> Iterator[dict[str, Cell]]:
    own = {name: one.over_heads(name)[:, rows] for name in SHARES}
    ends = {
        name: with_interval(own[name], one.groups(rows), seed, options.draws)
        for name in _WITH_INTERVAL
    }
    area = float(mean(one.area[rows], 0))
    for block, column in enumerate(one.columns):
        row: dict[str, Cell] = {"task": task, "column": column, "samples": len(rows)}
        for name in SHARES:
            row[name] = _cell(mean(own[name][block], 0))
            if name in ends:
                row[f"{name}_low"], row[f"{name}_high"] = (
                    _cell(ends[name][end][block]) for end in (1, 2)
                )
        row["region_area"] = _cell(area)
        row["region_p_holm"] = None if test is None else float(test.p[block])
        yield row


def _heads(
    one: Measured, task: str, rows: Sequence[int], options: AttentionOptions, seed: int
) -> Iterator[dict[str, Cell]]:
    groups = one.groups(rows)
    blocks, heads, _ = one.values["image"].shape
    flat = {name: one.values[name][..., rows].reshape(blocks * heads, -1) for name in SHARES}
    ends = {name: with_interval(flat[name], groups, seed, options.draws) for name in _WITH_INTERVAL}
    means = {name: mean(values, 1) for name, values in flat.items()}
    for cell in range(blocks * heads):
        if not np.isfinite(means["image"][cell]):
            continue
        row: dict[str, Cell] = {
            "task": task,
            "column": one.columns[cell // heads],
            "head": cell % heads,
            "samples": len(rows),
        }
        for name in SHARES:
            row[name] = _cell(means[name][cell])
            if name in ends:
                row[f"{name}_low"], row[f"{name}_high"] = (
                    _cell(ends[name][end][cell]) for end in (1, 2)
                )
        yield row


def _samples(one: Measured, task: str, rows: Sequence[int]) -> Iterator[dict[str, Cell]]:
    own = {name: one.over_heads(name) for name in _OF_SAMPLES}
    for i in rows:
        for block, column in enumerate(one.columns):
            numbers = {name: _cell(values[block, i]) for name, values in own.items()}
            yield {"sample": one.samples[i].id, "task": task, "column": column, **numbers}


def _known(rows: Sequence[dict[str, Cell]]) -> list[dict[str, Cell]]:
    """Without columns in which nothing is known."""
    names = [name for name in rows[0] if any(row[name] is not None for row in rows)]
    return [{name: row[name] for name in names} for row in rows]


def _cell(value: float | Floats) -> float | None:
    return float(value) if np.isfinite(value) else None


def _number(value: float | None) -> float:
    return np.nan if value is None else value
