"""What the ablation found: sentences, tables and figures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from vlmlens.results import Cell, Figure, Finding, Glance, Result, Series, Table, Verdict
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
from vlmlens_plugins.analysis._sweeps.scores import (
    NAMES,
    PERCENT,
    Scores,
    number,
    row_of,
    scores,
    tested,
)
from vlmlens_plugins.analysis.ablation.components import Component, Rows
from vlmlens_plugins.analysis.ablation.greedy import Order
from vlmlens_plugins.analysis.ablation.options import AblationOptions

_SHOWN = 5
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class _Task:
    """The effects in one task.

    Args:
        name: The task.
        members: The numbers of its items.
        every: The components.
        found: The scores of its items, by component.
        measured: Effects by metric.
        still: Bool per component: it changed the logits of no sample.
        least: The smallest effect that counts.
        few: A warning that nothing can be significant, or "".
    """

    name: str
    members: Sequence[int]
    every: Sequence[Component]
    found: Scores
    measured: dict[str, Effects]
    still: npt.NDArray[np.bool_]
    least: float
    few: str

    @property
    def effect(self) -> Effects:
        """The effects in the metric that saturates least."""
        return self.measured[self.found.best]

    @property
    def order(self) -> list[int]:
        """The numbers of the components, the most harmful ablation first."""
        return [int(i) for i in self.effect.value.argsort(kind="stable")]

    def needed(self, i: int) -> bool:
        """Whether an ablation harms, significantly more than most others do."""
        effect, control = self.effect, self.effect.control[i]
        beyond = effect.value[i] < (0.0 if np.isnan(control) else control)
        return bool(effect.p[i] <= ALPHA and beyond and effect.value[i] <= -self.least)

    @property
    def verdict(self) -> Verdict:
        """Whether a component is needed; no difference where every interval excludes an effect."""
        if any(map(self.needed, range(len(self.every)))):
            return Verdict.DIFFERS
        little = bool((self.effect.low > -self.least).all()) and not self.few
        return Verdict.NO_DIFFERENCE if little else Verdict.INCONCLUSIVE


def report(
    swept: Swept,
    orders: Sequence[Order],
    every: Sequence[Component],
    chosen: Followed,
    rows: Rows,
    options: AblationOptions,
    seed: int,
    warnings: Sequence[str],
) -> Result:
    """The result.

    Args:
        swept: The components one by one.
        orders: The greedy orders, one per task, if asked for.
        every: The components.
        chosen: The samples that were followed.
        rows: Which rows were replaced.
        options: Of the ablation.
        seed: Of the resampling.
        warnings: What was left out.
    """
    tasks = _tasks(swept, every, chosen, seed, options)
    several = len(tasks) > 1
    greedy = [_removed(order, chosen, seed, options.draws) for order in orders]
    findings = [_finding(task) for task in tasks]
    findings += [_greedy_finding(order, rows) for order, rows in zip(orders, greedy, strict=True)]
    findings += [still for task in tasks if (still := _still(task)) is not None]
    tables = [_components(tasks), _samples(tasks, swept)]
    if orders:
        title = "Components removed together, the most harmful one in each step"
        lines = [line for each in greedy for line in each]
        tables.append(table("ablation-greedy", title, lines, keys=("task", "size")))
    figures = [figure for task in tasks for figure in _figures(task, several=several)]
    figures += [
        _curve(order, lines, several=several) for order, lines in zip(orders, greedy, strict=True)
    ]
    return Result(
        analysis="ablation",
        title="Which components the answer needs",
        findings=findings,
        tables=tables,
        figures=figures,
        options=options.model_dump(mode="json"),
        notes=[*_notes(options, rows, chosen), *chosen.notes],
        warnings=[*warnings, *(task.few for task in tasks if task.few)],
        overview=[_glance(task) for task in tasks],
    )


def _tasks(
    swept: Swept,
    every: Sequence[Component],
    chosen: Followed,
    seed: int,
    options: AblationOptions,
) -> list[_Task]:
    whole = scores(swept, chosen.rivals)
    parts = np.array([each.part for each in every])
    still = swept.unchanged() & (swept.divergence("base") == 0)
    tasks = []
    for name, members in chosen.by_task().items():
        own = whole.of(members)
        controls = {metric: _of_others(values, parts) for metric, values in own.changes.items()}
        groups = [swept.items[i].group for i in members]
        measured = tested(own, groups, controls, seed=seed, draws=options.draws)
        alone = still[:, members].all(1)
        few = too_few(name, len(set(groups)), len(every))
        tasks.append(_Task(name, members, every, own, measured, alone, options.min_effect, few))
    return tasks


def _of_others(changes: Floats, parts: npt.NDArray[np.str_]) -> list[Floats | None]:
    """Per component, the median over the others of the same part, `[1, items]`."""
    found: list[Floats | None] = []
    for i, part in enumerate(parts):
        others = np.flatnonzero((parts == part) & (np.arange(len(parts)) != i))
        found.append(np.median(changes[others], 0)[None] if len(others) else None)
    return found


def _finding(task: _Task) -> Finding:
    needed = [i for i in task.order if task.needed(i)]
    top = task.order[0]
    effect, metric = task.effect, NAMES[task.found.best]
    listed = ", ".join(
        f"{task.every[i].name} ({effect.value[i]:+.2f})" for i in (needed or [top])[:_SHOWN]
    )
    text = (
        f"{task.name}: the answer needs {listed}, more than the median of the others "
        f"({metric}; {len(needed)} of {len(task.every)} components do so much)."
        if needed
        else f"{task.name}: no single component does significantly more than the others; most does "
        f"{listed} ({metric})."
    )
    values: dict[str, Cell] = {
        "component": task.every[top].name,
        "effect": number(effect.value[top]),
        "p": number(effect.p[top]),
        "needed": len(needed),
        "components": len(task.every),
    }
    return Finding(text, task.verdict, task.name, values)


def _still(task: _Task) -> Finding | None:
    """Components whose ablation changed no value."""
    names = [each.name for each, still in zip(task.every, task.still, strict=True) if still]
    if not names:
        return None
    some = ", ".join(names[:_SHOWN]) + (", ..." if len(names) > _SHOWN else "")
    text = (
        f"{task.name}: ablating {some} changed no value of the logits in any sample "
        f"({len(names)} of {len(task.every)} components)."
    )
    return Finding(text, Verdict.INFO, task.name, {"changed_nothing": len(names)})


def _glance(task: _Task) -> Glance:
    top = next(filter(task.needed, task.order), None)
    shown = task.order[0] if top is None else top
    return Glance(
        task.name,
        "answer needs",
        "not shown" if top is None else task.every[top].name,
        task.verdict,
        value=number(task.effect.value[shown]),
        curve=_by_layer(task),
    )


def _by_layer(task: _Task) -> list[float | None]:
    """The most harmful ablation of each layer, in order of depth."""
    layers: dict[str, list[float]] = {}
    for each, value in zip(task.every, task.effect.value, strict=True):
        layers.setdefault(each.layer, []).append(float(value))
    return [min(values) for values in layers.values()]


def _components(tasks: Sequence[_Task]) -> Table:
    rows = [
        {
            "task": task.name,
            "component": each.name,
            "part": each.part,
            "layer": each.layer,
            **row_of(task.measured, task.found, i, task.found.best),
            "changed_nothing": bool(task.still[i]),
            "samples": len(task.members),
        }
        for task in tasks
        for i, each in enumerate(task.every)
    ]
    title = "What ablating each component does to the answer"
    return table("ablation", title, rows, keys=("task", "component", "part"))


def _samples(tasks: Sequence[_Task], swept: Swept) -> Table:
    rows = [
        {
            "sample": swept.items[member].target.id,
            "task": task.name,
            "label": swept.items[member].target.label,
            "component": task.every[i].name,
            "probability": float(task.found.scale[PERCENT][k]),
            "ablated": float(
                task.found.scale[PERCENT][k] + task.found.changes[PERCENT][i, k] / 100
            ),
            "effect": float(task.found.changes[task.found.best][i, k]),
            "flipped": bool(task.found.flipped[i, k]),
        }
        for task in tasks
        for k, member in enumerate(task.members)
        for i in task.order[:_SHOWN]
    ]
    title = f"Each sample's answer without the {_SHOWN} components that its task needs most"
    return table("ablation-samples", title, rows, keys=("component",))


def _removed(order: Order, chosen: Followed, seed: int, draws: int) -> list[dict[str, Cell]]:
    """The numbers of each size of a greedy order."""
    rivals = [chosen.rivals[i] for i in order.members]
    every = scores(order.swept, rivals)
    found = scores(order.swept.take(without_controls(order.swept)), rivals)
    controls = {
        metric: control_changes(order.swept, values, ("size",))
        for metric, values in every.changes.items()
    }
    groups = [item.group for item in order.swept.items]
    measured = tested(found, groups, controls, seed=seed, draws=draws)
    return [
        {
            "task": order.task,
            "size": size + 1,
            "component": each.name,
            **row_of(measured, found, size, found.best),
            "metric": found.best,
            "samples": len(order.members),
        }
        for size, each in enumerate(order.removed)
    ]


def _greedy_finding(order: Order, lines: Sequence[dict[str, Cell]]) -> Finding:
    last = lines[-1]
    metric = str(last["metric"])
    names = ", ".join(each.name for each in order.removed[:_SHOWN])
    more = ", ..." if len(order.removed) > _SHOWN else ""
    control = last["control"]
    beside = "" if control is None else f", {control:+.2f} without as many random ones"
    text = (
        f"{order.task}: without {names}{more} together ({len(order.removed)} removed one after the "
        f"other), {NAMES[metric]}: {last[metric]:+.2f}{beside}."
    )
    values = {name: last[name] for name in ("size", metric, "control", "p")}
    return Finding(text, Verdict.INFO, order.task, values)


def _curve(order: Order, lines: Sequence[dict[str, Cell]], *, several: bool) -> Figure:
    metric = str(lines[0]["metric"])
    value, low, high = (_numbers(lines, f"{metric}{end}") for end in ("", "_low", "_high"))
    random = _numbers(lines, "control")
    drawn = [] if random[0] is None else [Series("random", random, dashed=True)]
    own = Series("one after the other", value, low, high)
    return Figure(
        f"ablation-greedy-{slug(order.task)}" if several else "ablation-greedy",
        f"{order.task}: components removed together",
        "line",
        x=[str(line["size"]) for line in lines],
        x_label="components removed",
        y_label=NAMES[metric],
        series=[own, *drawn],
    )


def _numbers(lines: Sequence[dict[str, Cell]], name: str) -> list[float | None]:
    return [None if line[name] is None else float(line[name] or 0) for line in lines]


def _figures(task: _Task, *, several: bool) -> list[Figure]:
    """Layers x heads, and layers x other parts: their effects are of other sizes."""
    heads = [i for i, each in enumerate(task.every) if each.short.startswith("head ")]
    others = [i for i in range(len(task.every)) if i not in set(heads)]
    found = []
    for name, numbers in (("heads", heads), ("parts", others)):
        if not numbers:
            continue
        values = {
            (task.every[i].layer, task.every[i].short): -float(task.effect.value[i])
            for i in numbers
        }
        metric = NAMES[task.found.best].removeprefix("change of ")
        found.append(
            heat_map(
                f"ablation-{name}-{slug(task.name)}" if several else f"ablation-{name}",
                f"{task.name}: how much lower {metric} is, by what is ablated",
                values,
                label="loss",
                limits=(0.0, max(values.values(), default=0.0) or 1.0),
            )
        )
    return found


_HOW = {
    "mean": "their mean over the {n} followed samples, per kind of rows",
    "zero": "zeros, which a residual stream may never hold elsewhere",
    "resample": "the same rows of another followed sample with as many rows, chosen at random",
}


def _notes(options: AblationOptions, rows: Rows, chosen: Followed) -> list[str]:
    where = "; ".join(f"{axis.value}: {', '.join(names)}" for axis, names in rows.items())
    notes = [
        f"Ablated rows ({where}) are replaced by {_HOW[options.by].format(n=len(chosen.items))}. A "
        "head is a slice of the input of the output projection; attn and mlp are what they add to "
        "the residual stream; a block is both.",
        "An effect is a difference of means over samples, with the ablation minus without. Change "
        "is that of the probability, in % of the probability without.",
        "Control: the median over the other components of the same part. p: two-sided, of no "
        "difference to it, by flipping signs of groups, Holm-corrected in the task. Intervals are "
        "95 % percentile bootstraps over groups.",
        "Later components can make up for an ablated one (T. McGrath et al. 2023, arXiv "
        "2307.15771), so the effect of a single one is a lower bound.",
    ]
    if options.greedy:
        notes.append(
            "Removed together: in each step the component whose removal does most beside those "
            "removed before. It is chosen on the same samples on which it is measured, so the "
            "effect of the set is too large where samples are few. Control: random sets of equal "
            "size."
        )
    return notes
