"""What patching found, in words, tables and figures."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import takewhile

import numpy as np

from vlmlens.results import Cell, Figure, Finding, Glance, Series, Table, Verdict
from vlmlens_plugins.analysis._results import slug, table
from vlmlens_plugins.analysis._sweeps.effects import ALPHA, too_few
from vlmlens_plugins.analysis._sweeps.pictures import heat_map
from vlmlens_plugins.analysis.patching.grid import parts_of
from vlmlens_plugins.analysis.patching.measured import Grid
from vlmlens_plugins.analysis.patching.options import PatchingOptions

_HALF = 0.5
_LITTLE = 0.1
"""An interval within this, on both sides of 0, says that there is no effect to speak of."""
_KEPT = 12
_NAMED = 3
_NOTHING = 0.02
"""A smaller effect is called none."""
_WORDS = {
    "denoise": ("from the clean run into the corrupted one", "brings back"),
    "noise": ("from the corrupted run into the clean one", "takes away"),
    "trace": ("from the run without noise into the one with noise", "brings back"),
}


def findings(grids: Sequence[Grid], options: PatchingOptions) -> list[Finding]:
    """Per task and direction: where the answer passes over, then what each group of rows does."""
    found = []
    for grid in grids:
        handover = _handover(grid)
        if handover is not None:
            found.append(handover)
        found += [_of_rows(grid, rows) for rows in dict.fromkeys(grid.rows)]
    del options
    return found


def tables(grids: Sequence[Grid]) -> list[Table]:
    """The complete numbers, and those of single samples."""
    rows = [row for grid in grids for row in _rows(grid)]
    single = [row for grid in grids for row in _single(grid)]
    keys = ("task", "direction", "site", "rows")
    return [
        table("patching", "What each site and rows carry", rows, keys),
        table("patching-samples", "The same for each sample", single, keys),
    ]


def figures(grids: Sequence[Grid]) -> list[Figure]:
    """A heat map and lines over the sites, per task and direction."""
    made = []
    for grid in grids:
        name = slug(f"patching {grid.direction} {grid.task}")
        title = f"{grid.task}: patched {_WORDS[grid.direction][0]}"
        values = {
            key: float(value)
            for key, value in zip(
                zip(grid.places, grid.rows, strict=True), grid.effect.value, strict=True
            )
        }
        made.append(heat_map(name, title, values, label="share of the effect"))
        made.append(_lines(f"{name}-lines", title, grid))
    return made


def overview(grids: Sequence[Grid]) -> list[Glance]:
    """Per task, where the last row takes over; of the first direction."""
    glances = []
    for grid in grids:
        if grid.direction != grids[0].direction:
            continue
        where = _crossing(grid)
        if where is None:
            continue
        _, last, first = where
        curve = [grid.value(place, "last") for place in _sites(grid, "last")]
        text = first if last is None else f"{last} to {first}"
        value = grid.value(first, "last")
        glances.append(Glance(grid.task, "reaches the last row at", text, value=value, curve=curve))
    return glances


def notes(options: PatchingOptions) -> list[str]:
    """How the numbers were made."""
    what = "probability" if options.mode == "trace" else "logit difference"
    found = [
        "The effect of a cell is (patched - unpatched) / (source - unpatched), each the mean "
        f"{what} over samples: 0 is no effect, 1 what exchanging everything does; it may leave "
        "0 to 1. The ratio of means is stable where a single pair's two runs hardly differ.",
        "Intervals: percentile bootstrap over groups. p: sign flips of groups, against the control "
        "(other rows of equal number, drawn at random) where the samples have as many, else "
        "against 0; corrected for all cells of a task by Holm (1979).",
        "denoise shows what is enough to bring the answer back, noise what is needed to keep it. "
        "Parts that do the same job show only under denoise, parts that need each other only under "
        "noise (Heimersheim and Nanda 2024, arXiv 2404.15255).",
        "Logit differences are preferred to probabilities, which hide parts that work against the "
        "answer (Zhang and Nanda 2024, arXiv 2309.16042).",
        "Where later parts make up for what was taken away, an effect is a lower bound.",
    ]
    if options.mode == "trace":
        found.append(
            f"Causal tracing (Meng et al. 2022, arXiv 2202.05262) with noise of {options.sigma:g} "
            f"standard deviations of each dimension at {options.noise_at}, measured over the same "
            f"samples, {options.noises} draws each. Noise says that some content is missing, a "
            "pair which content."
        )
    return found


def _handover(grid: Grid) -> Finding | None:
    where = _crossing(grid)
    if where is None:
        return None
    source, last, first = where
    reached = grid.value(first, "last") or 0.0
    said = f"from {first} on, the last row does ({reached:.0%})"
    if last is None:
        text = f"{grid.task}: {said}; {source} rows carry it at no patched site."
    else:
        carried = grid.value(last, source) or 0.0
        text = (
            f"{grid.task}: up to {last}, {source} rows carry the answer ({carried:.0%}); {said}. "
            f"Patched {_WORDS[grid.direction][0]}."
        )
    values: dict[str, Cell] = {
        "direction": grid.direction, "pairs": grid.pairs, "last_site_image": last,
        "first_site_last": first, "last_effect": reached,
    }  # fmt: skip
    return Finding(text, subject=grid.task, values=values, notable=True)


def _crossing(grid: Grid) -> tuple[str, str | None, str] | None:
    """Image rows, the last site where they carry half of the answer, and where `last` begins to.

    None: at the last site the last row does not; or nothing else was patched.
    """
    source = _source(grid)
    if not source:
        return None
    places = _sites(grid, "last")
    reach = list(takewhile(lambda place: _carries(grid, place, "last"), reversed(places)))
    carry = [place for place in _sites(grid, source) if _carries(grid, place, source)]
    return (source, carry[-1] if carry else None, reach[-1]) if reach else None


def _carries(grid: Grid, place: str, rows: str) -> bool:
    """Whether rows carry half of the answer at a site."""
    return (grid.value(place, rows) or 0) >= _HALF


def _source(grid: Grid) -> str:
    """The rows from which the answer comes; "" where only the last row is patched."""
    others = [rows for rows in grid.rows if "last" not in parts_of(rows)]
    return "image" if "image" in others else next(iter(others), "")


def _sites(grid: Grid, rows: str) -> list[str]:
    return [place for place, name in zip(grid.places, grid.rows, strict=True) if name == rows]


def _of_rows(grid: Grid, rows: str) -> Finding:
    cells = [i for i, name in enumerate(grid.rows) if name == rows]
    effect = grid.effect
    best = max(cells, key=lambda i: abs(effect.value[i]))
    value, control = float(effect.value[best]), float(effect.control[best])
    beside = "" if np.isnan(control) else f", other rows of equal number {_percent(control)}"
    noun = "sample" if grid.direction == "trace" else "pair"
    counted = f"{grid.pairs} {noun}{'' if grid.pairs == 1 else 's'}"
    ends = f"{_percent(effect.low[best])} to {_percent(effect.high[best])}"
    does = _WORDS[grid.direction][1]
    if abs(value) < _NOTHING:
        text = f"{grid.task}: {rows} {does} nothing at any site (at most {_percent(value)} of the "
        text += f"answer{beside}; {counted})."
    else:
        text = (
            f"{grid.task}: {rows} {does} at most {_percent(value)} of the answer, at "
            f"{grid.places[best]} (95 % interval {ends}{beside}; {counted})."
        )
    idle = [grid.places[i] for i in cells if grid.idle[i] == 1]
    if idle and abs(value) >= _NOTHING:
        more = " ..." if len(idle) > _NAMED else ""
        text += f" At {', '.join(idle[:_NAMED])}{more} nothing changed at all."
    values: dict[str, Cell] = {
        "direction": grid.direction, "rows": rows, "site": grid.places[best], "effect": value,
        "effect_low": float(effect.low[best]), "effect_high": float(effect.high[best]),
        "control": None if np.isnan(control) else control, "p": float(effect.p[best]),
    }  # fmt: skip
    more_than_control = abs(value) > (0 if np.isnan(control) else abs(control))
    sure = effect.p[best] <= ALPHA and more_than_control and abs(value) >= _NOTHING
    return Finding(text, Verdict.DIFFERS if sure else _unsure(grid, cells), grid.task, values)


def _unsure(grid: Grid, cells: Sequence[int]) -> Verdict:
    """No effect only where the intervals of all sites exclude more than little."""
    effect = grid.effect
    ends = np.abs(np.stack([effect.low[cells], effect.high[cells]]))
    few = too_few(grid.task, effect.groups, len(effect.value))
    little = bool((ends < _LITTLE).all()) and not few
    return Verdict.NO_DIFFERENCE if little else Verdict.INCONCLUSIVE


def _percent(share: float) -> str:
    """A share as a percentage, without a minus before 0."""
    return f"{round(100 * share) + 0:.0f}%"


def _rows(grid: Grid) -> Iterator[dict[str, Cell]]:
    effect = grid.effect
    for i, (place, rows) in enumerate(zip(grid.places, grid.rows, strict=True)):
        control = float(effect.control[i])
        yield {
            "task": grid.task,
            "direction": grid.direction,
            "site": place,
            "rows": rows,
            "pairs": grid.pairs,
            "effect": float(effect.value[i]),
            "effect_low": float(effect.low[i]),
            "effect_high": float(effect.high[i]),
            "control": None if np.isnan(control) else control,
            "p_holm": float(effect.p[i]),
            "probability_change": float(grid.probability[i]),
            "kl_recovery": _number(grid.divergence[i]),
            "flips": float(grid.flips[i]),
            "unchanged": float(grid.idle[i]),
        }


def _single(grid: Grid) -> Iterator[dict[str, Cell]]:
    for i, (place, rows) in enumerate(zip(grid.places, grid.rows, strict=True)):
        for sample, changed, scale in zip(
            grid.items, grid.effect.per_item[i], grid.scale, strict=True
        ):
            yield {
                "sample": sample,
                "task": grid.task,
                "direction": grid.direction,
                "site": place,
                "rows": rows,
                "change": float(changed),
                "whole": float(scale),
            }


def _lines(name: str, title: str, grid: Grid) -> Figure:
    sites = list(dict.fromkeys(grid.places))
    series = []
    for rows in dict.fromkeys(grid.rows):
        by_site = {
            place: i
            for i, (place, own) in enumerate(zip(grid.places, grid.rows, strict=True))
            if own == rows
        }
        at = [by_site.get(site) for site in sites]
        lines = (grid.effect.value, grid.effect.low, grid.effect.high)
        y, low, high = ([None if i is None else float(line[i]) for i in at] for line in lines)
        series.append(Series(rows, y, low, high))
    return Figure(
        name, f"{title}, by rows", "line", x=sites, x_label="site", y_label="share of the effect",
        series=series[:_KEPT],
    )  # fmt: skip


def _number(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None
