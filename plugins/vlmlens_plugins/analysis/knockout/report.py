"""What the knockout found: sentences, tables and figures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from vlmlens.results import Cell, Figure, Finding, Glance, Result, Table, Verdict
from vlmlens_plugins.analysis._results import slug, table
from vlmlens_plugins.analysis._sweeps import Swept
from vlmlens_plugins.analysis._sweeps.effects import (
    ALPHA,
    Effects,
    control_changes,
    too_few,
    without_controls,
)
from vlmlens_plugins.analysis._sweeps.followed import Followed
from vlmlens_plugins.analysis._sweeps.pictures import heat_map
from vlmlens_plugins.analysis._sweeps.rows import LATER
from vlmlens_plugins.analysis._sweeps.scores import (
    PERCENT,
    Scores,
    number,
    row_of,
    scores,
    tested,
)
from vlmlens_plugins.analysis.knockout.options import KnockoutOptions
from vlmlens_plugins.analysis.knockout.routes import ALL_LAYERS

_TENTH = 10.0
_NAMES = ("route", "center")
_CONTROLS = {"keys": "other rows are read", "readers": "other rows read", "": ""}


@dataclass(frozen=True, slots=True)
class _Task:
    """The effects in one task.

    Args:
        name: The task.
        members: The numbers of its items.
        swept: The sweep without controls.
        found: The scores of its items.
        measured: Its effects, by metric.
        least: The smallest change that counts, in %.
        few: A warning that nothing can be significant, or "".
    """

    name: str
    members: Sequence[int]
    swept: Swept
    found: Scores
    measured: dict[str, Effects]
    least: float
    few: str

    @property
    def routes(self) -> list[str]:
        """The routes, in order."""
        return list(dict.fromkeys(cell.about["route"] for cell in self.swept.cells))

    @property
    def change(self) -> Effects:
        """The change of the answer's probability, in %."""
        return self.measured[PERCENT]

    def whole(self, route: str) -> int:
        """The number of the cell that cuts a route in all layers."""
        return self.swept.numbers(route=route, center=ALL_LAYERS)[0]

    def windows(self, route: str) -> list[int]:
        """The numbers of the cells that cut a route in windows, in order of depth."""
        whole = self.whole(route)
        return [i for i in self.swept.numbers(route=route) if i != whole]

    def differs(self, cell: int) -> bool:
        """Whether a cut changes the answer's probability, significantly and not just a little."""
        change = self.change
        return bool(change.p[cell] <= ALPHA and abs(change.value[cell]) >= self.least)

    def does_little(self, cell: int) -> bool:
        """Whether the interval excludes a change of the probability by a tenth."""
        little = self.change.low[cell] > -_TENTH and self.change.high[cell] < _TENTH
        return bool(little and not self.few)

    def verdict(self, cell: int) -> Verdict:
        """Whether a cut does something."""
        if self.differs(cell):
            return Verdict.DIFFERS
        return Verdict.NO_DIFFERENCE if self.does_little(cell) else Verdict.INCONCLUSIVE

    def layers(self, cell: int) -> str:
        """The layers of a cell."""
        return self.swept.cells[cell].about["layers"]

    def hurts(self, cell: int) -> bool:
        """Whether it lowers the probability, more than the control does."""
        value, control = self.change.value[cell], self.change.control[cell]
        return self.differs(cell) and bool(value < (0.0 if np.isnan(control) else min(control, 0)))

    def most(self, route: str) -> int:
        """The window in which cutting a route lowers the probability most."""
        return min(self.windows(route), key=lambda i: float(self.change.value[i]))


def report(
    swept: Swept,
    chosen: Followed,
    options: KnockoutOptions,
    width: int,
    seed: int,
    warnings: Sequence[str],
) -> Result:
    """The result.

    Args:
        swept: The sweep, with its controls.
        chosen: The samples that were followed.
        options: Of the knockout.
        width: Of the windows.
        seed: Of the resampling.
        warnings: What was left out.
    """
    drawn = {c.about["route"]: c.about["control"] for c in swept.cells if "control" in c.about}
    tasks = _tasks(swept, chosen, seed, options)
    return Result(
        analysis="knockout",
        title="Which rows must read which",
        findings=[each for task in tasks for each in _findings(task)],
        tables=[_routes(tasks, drawn), _layers(tasks, drawn), _samples(tasks)],
        figures=[_figure(task, several=len(tasks) > 1) for task in tasks],
        options=options.model_dump(mode="json"),
        notes=[*_notes(width, options), *chosen.notes],
        warnings=[*warnings, *(task.few for task in tasks if task.few)],
        overview=[_glance(task) for task in tasks],
    )


def _tasks(swept: Swept, chosen: Followed, seed: int, options: KnockoutOptions) -> list[_Task]:
    kept = without_controls(swept)
    every = scores(swept, chosen.rivals)
    found = scores(swept.take(kept), chosen.rivals)
    tasks = []
    for name, members in chosen.by_task().items():
        own = every.of(members)
        controls = {
            metric: control_changes(swept, values, _NAMES) for metric, values in own.changes.items()
        }
        groups = [swept.items[i].group for i in members]
        measured = tested(found.of(members), groups, controls, seed=seed, draws=options.draws)
        own = found.of(members)
        few = too_few(name, len(set(groups)), len(kept))
        tasks.append(_Task(name, members, swept.take(kept), own, measured, options.min_change, few))
    return tasks


def _findings(task: _Task) -> list[Finding]:
    """The ways of the image together, then each route."""
    every = [_finding(task, route) for route in task.routes]
    ways = _ways(task)
    if len(ways) < 2 or not all(way.startswith("image") for way in ways):
        return every
    used = [way for way in ways if task.hurts(task.whole(way))]
    closed = [way for way in ways if way not in used and task.does_little(task.whole(way))]
    unclear = [way for way in ways if way not in used and way not in closed]
    parts = [
        ("passes through ", [f"{way} (most in {task.layers(task.most(way))})" for way in used]),
        ("does not pass through ", closed),
        ("may pass through ", unclear),
    ]
    text = f"{task.name}: what the answer takes from the image " + ", ".join(
        f"{words}{' and '.join(those)}" for words, those in parts if those
    )
    text += "."
    return [
        Finding(text, subject=task.name, values={"used": len(used)}, notable=bool(used)),
        *every,
    ]


def _ways(task: _Task) -> list[str]:
    """Single ways of the image (else: of anything), without the cut of all of them."""
    ways = [each for each in task.routes if not each.endswith(f"-> {LATER}")] or task.routes
    return [each for each in ways if each.startswith("image")] or ways


def _finding(task: _Task, route: str) -> Finding:
    whole, most = task.whole(route), task.most(route)
    change = task.change
    control = change.control[whole]
    beside = f" (as many other rows: {_percent(control)})" if np.isfinite(control) else ""
    windows = (
        f"; of the windows, {task.layers(most)} does most: {_percent(change.value[most])}"
        if len(task.windows(route)) > 1 and task.differs(most)
        else ""
    )
    text = (
        f"{task.name}: with {route} cut in all layers, the answer's probability changes by "
        f"{_percent(change.value[whole])} [{_percent(change.low[whole])}, "
        f"{_percent(change.high[whole])}]{beside}{windows}."
    )
    if not task.found.divergence[whole].any():
        text += " No logit changed at all."
    values: dict[str, Cell] = {
        "route": route,
        "all_layers": number(change.value[whole]),
        "control": number(control),
        "p": number(change.p[whole]),
        "strongest": task.layers(most),
        "there": number(change.value[most]),
    }
    return Finding(text, task.verdict(whole), task.name, values)


def _glance(task: _Task) -> Glance:
    """The way whose cut hurts most."""
    route = min(_ways(task), key=lambda each: float(task.change.value[task.whole(each)]))
    whole, most = task.whole(route), task.most(route)
    hurts = task.hurts(whole)
    where = task.layers(most)
    curve = [number(task.change.value[i]) for i in task.windows(route)]
    return Glance(
        task.name,
        "answer passes through",
        f"{route}, {where}" if hurts else "not shown",
        task.verdict(whole),
        value=number(task.change.value[whole] / 100),
        curve=curve,
    )


def _routes(tasks: Sequence[_Task], drawn: dict[str, str]) -> Table:
    rows = []
    for task in tasks:
        for route in task.routes:
            whole, most = task.whole(route), task.most(route)
            rows.append(
                {
                    "task": task.name,
                    "route": route,
                    **_interval("all_layers", task.change, whole),
                    "strongest": task.layers(most),
                    **_interval("there", task.change, most),
                    "control": number(task.change.control[whole]),
                    "control_is": _CONTROLS[drawn.get(route, "")],
                    "p": number(task.change.p[whole]),
                    "samples": len(task.members),
                }
            )
    title = "Change of the answer's probability in %, by route: cut in all layers, and where most"
    return table("knockout-routes", title, rows, keys=("task", "route"))


def _layers(tasks: Sequence[_Task], drawn: dict[str, str]) -> Table:
    rows = []
    for task in tasks:
        for i, cell in enumerate(task.swept.cells):
            about = cell.about
            still = not task.found.divergence[i].any()
            rows.append(
                {
                    "task": task.name,
                    "route": about["route"],
                    "center": about["center"],
                    "layers": about["layers"],
                    **row_of(task.measured, task.found, i, PERCENT),
                    "control_is": _CONTROLS[drawn.get(about["route"], "")],
                    "changed_nothing": still,
                    "samples": len(task.members),
                }
            )
    title = "What cutting a route does to the answer, by layers"
    return table("knockout", title, rows, keys=("task", "route", "center"))


def _samples(tasks: Sequence[_Task]) -> Table:
    rows = []
    for task in tasks:
        before = task.found.scale[PERCENT]
        for k, member in enumerate(task.members):
            target = task.swept.items[member].target
            for route in task.routes:
                whole, windows = task.whole(route), task.windows(route)
                changes = task.found.changes[PERCENT][:, k] / 100
                most = windows[int(np.argmin(changes[windows]))]
                rows.append(
                    {
                        "sample": target.id,
                        "task": task.name,
                        "label": target.label,
                        "route": route,
                        "probability": float(before[k]),
                        "all_layers": float(before[k] + changes[whole]),
                        "flipped": bool(task.found.flipped[whole, k]),
                        "strongest": task.layers(most),
                        "there": float(before[k] + changes[most]),
                    }
                )
    title = "The probability of each sample's answer, without cuts and with them"
    return table("knockout-samples", title, rows, keys=("route",))


def _figure(task: _Task, *, several: bool) -> Figure:
    values = {
        (cell.about["center"], cell.about["route"]): -float(task.change.value[i]) / 100
        for i, cell in enumerate(task.swept.cells)
    }
    name, of = (f"knockout-{slug(task.name)}", f"{task.name}: ") if several else ("knockout", "")
    title = f"{of}Share of the answer's probability that is lost, with a route cut around a layer"
    return heat_map(name, title, values, label="share lost")


def _interval(name: str, found: Effects, cell: int) -> dict[str, Cell]:
    return {
        name: number(found.value[cell]),
        f"{name}_low": number(found.low[cell]),
        f"{name}_high": number(found.high[cell]),
    }


def _percent(value: float) -> str:
    return f"{round(value):+d} %" if np.isfinite(value) else "an unknown share"


def _notes(width: int, options: KnockoutOptions) -> list[str]:
    layers = "layer" if width == 1 else "layers"
    kept = (
        "Softmax spreads what was cut over the rows that are still read, so a cut is not the same "
        "as taking away what those rows contributed."
        if options.renormalise
        else "What was cut is lost: the rows that are still read get no more attention than before."
    )
    return [
        f"Cut: the rows behind the arrow may no longer read those before it, in windows of {width} "
        f"{layers} around each layer, cut off at the ends, and in all layers. A row keeps reading "
        "itself. `later` are all rows behind the first one that is cut, without the cut ones.",
        "Change: (p with the cut - p) / p in %, where p is the probability of the right answer "
        "(F. Zhang et al. 2024, arXiv 2411.18620), as the ratio of the means over samples. "
        "Attention knockout is by M. Geva et al. (2023, arXiv 2304.14767).",
        f"{kept} What earlier layers have copied stays copied.",
        "Control: as many other rows, drawn at random among those before the reading rows, are cut "
        "instead of the read ones; where there are not so many, the same rows are cut from as many "
        "other readers behind them; else there is none. p: two-sided, of no difference to the "
        "control (to 0 without one), by flipping signs of groups, Holm-corrected in the task.",
        "Intervals are 95 % percentile bootstraps over groups.",
    ]
