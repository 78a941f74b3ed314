"""Tables and figures of the evidence analysis."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from vlmlens.results import Cell, Figure, Sheet, Table
from vlmlens_plugins.analysis._altered import Area, Canvas
from vlmlens_plugins.analysis._estimates import Estimate
from vlmlens_plugins.analysis._patches import rounded
from vlmlens_plugins.analysis._results import table
from vlmlens_plugins.analysis.evidence.cases import Case
from vlmlens_plugins.analysis.evidence.conditions import CONDITIONS, DIFFERENT, FULL, HIDDEN, NONE
from vlmlens_plugins.analysis.evidence.measured import Scores, TaskNumbers
from vlmlens_plugins.analysis.evidence.report import number
from vlmlens_plugins.analysis.evidence.verdict import Judged

_GRID = 8
_INTERVALS = ("effect", "need", "enough", "specificity", "background")
_RATES = ("follows", "flips", "keeps", "to_background", "pull", "vision", "text", "neither")


def tables(
    tasks: Sequence[TaskNumbers],
    judged: Sequence[Judged],
    cases: Sequence[Case],
    every: Sequence[Scores],
) -> list[Table]:
    """A row per task, per condition of a task, and per sample."""
    return [_tasks(tasks, judged), _conditions(tasks), _samples(tasks, cases, every)]


def figures(
    tasks: Sequence[TaskNumbers], cases: Sequence[Case], every: Sequence[Scores], pictures: int
) -> list[Figure]:
    """What is left of the image's effect under each condition; maps over single pictures."""
    return [_retained(tasks), *_maps(tasks, cases, every, pictures)]


def _tasks(tasks: Sequence[TaskNumbers], judged: Sequence[Judged]) -> Table:
    rows = []
    for task, each in zip(tasks, judged, strict=True):
        row: dict[str, Cell] = {
            "task": task.name,
            "verdict": str(each.verdict),
            "samples": len(task.rows),
            "with_region": int(np.isfinite(task.quantities.need).sum()),
            "exchanged": int(np.isfinite(task.quantities.flips).sum()),
        }
        for name in _INTERVALS:
            row |= _interval(name, task.means[name])
        row["random"] = number(task.means["random"].value)
        row["prior"] = number(task.means["prior"].value)
        for name in ("need", "enough", "random", "specificity", "background"):
            row |= _interval(f"{name}_share", task.shares.get(name))
        for name in _RATES:
            row |= _interval(name, task.means[name])
        row |= {
            "preference": number(task.preference),
            "image_alone": number(task.means["right"].value),
            "hint_alone": number(task.means["hint_alone"].value),
            "no_image": number(task.means["blind"].value),
            "p": number(task.corrected),
        }
        rows.append(row)
    title = "What the answers rest on (scores in nats, shares of what the image does, rates)"
    return table("evidence", title, rows, keys=("task",))


def _conditions(tasks: Sequence[TaskNumbers]) -> Table:
    rows = [
        {
            "task": task.name,
            "condition": name,
            "samples": sum(np.isfinite(one.of(name)) for one in task.scores),
            **_interval("score", score),
            **_interval("right", right),
        }
        for task in tasks
        for name, (score, right) in task.conditions.items()
    ]
    title = "Score and share of right answers (of the full image) under each condition"
    return table("evidence-conditions", title, rows, keys=("task", "condition"))


def _samples(tasks: Sequence[TaskNumbers], cases: Sequence[Case], every: Sequence[Scores]) -> Table:
    rows = []
    for task in tasks:
        for place, i in enumerate(task.rows):
            case, found, own = cases[i], every[i], task.quantities
            said = {name: found.says.get(name, ()) for name in (FULL, NONE, DIFFERENT)}
            answer = {
                name: case.answers[numbers[0]] if numbers else None
                for name, numbers in said.items()
            }
            rows.append(
                {
                    "sample": case.known.sample.id,
                    "task": task.name,
                    "label": case.known.label,
                    "region": " + ".join(case.known.key) or None,
                    "answer": answer[FULL],
                    "without_image": answer[NONE],
                    "rival": None if found.rival is None else case.answers[found.rival],
                    "full": number(found.of(FULL)),
                    **{
                        name: number(getattr(own, name)[place])
                        for name in (
                            "prior", "need", "enough", "random", "specificity", "background",
                        )
                    },
                    "exchanged_for": case.different.sample.id if case.different else None,
                    "exchanged_label": case.different.label if case.different else None,
                    "exchanged_answer": answer[DIFFERENT],
                    "pull": number(own.pull[place]),
                }
            )  # fmt: skip
    return table("evidence-samples", "Each sample: scores in nats, and answers", rows)


def _retained(tasks: Sequence[TaskNumbers]) -> Figure:
    cells = [[task.left.get(name) for name in CONDITIONS] for task in tasks]
    texts = [["" if v is None else f"{round(v, 2) + 0:.2f}" for v in row] for row in cells]
    return Figure(
        "evidence",
        "Score under each condition, from no image (0) to the full image (1), same samples",
        "heatmap",
        x=list(CONDITIONS),
        x_label="condition",
        y_label="share of what the image does",
        y=[task.name for task in tasks],
        cells=cells,
        texts=texts,
        y_range=(0.0, 1.0),
    )


def _maps(
    tasks: Sequence[TaskNumbers], cases: Sequence[Case], every: Sequence[Scores], pictures: int
) -> list[Figure]:
    sheets = []
    for task in tasks:
        having = [i for i in task.rows if cases[i].known.key][:pictures]
        sheets += [sheet for i in having for sheet in _sheets(cases[i], every[i])]
    if not sheets:
        return []
    return [
        Figure(
            "evidence-regions",
            "Fall of the score when the key region is hidden, and when random regions are",
            "patches",
            x=[],
            y=["random regions", "key region"],
            y_label="fall of the score",
            sheets=sheets,
        )
    ]


def _sheets(case: Case, found: Scores) -> list[Sheet]:
    """A grid over each picture with a key region."""
    canvas = Canvas(case.known.sample)
    area = Area(regions=case.known.key)
    key = canvas.inside(area)
    full, need = found.of(FULL), found.of(FULL) - found.of(HIDDEN)
    sheets = []
    for image, inside in enumerate(key):
        if not inside.any():
            continue
        covered = _cells(inside)
        falls = np.zeros_like(covered)
        weight = np.zeros_like(covered)
        for (right, down), score in zip(case.places.shifts, found.places, strict=True):
            there = _cells(np.roll(inside, (down, right), (0, 1)))
            falls += there * (full - score)
            weight += there
        others = np.where(weight > 0.5, falls / np.maximum(weight, 1e-9), np.nan)
        values = np.stack([others, np.where(covered > 0.5, need, np.nan)])
        edges = [(c / _GRID, r / _GRID, (c + 1) / _GRID, (r + 1) / _GRID)
                 for r in range(_GRID) for c in range(_GRID)]  # fmt: skip
        name = case.known.sample.id
        sheets.append(Sheet(name, rounded(values), boxes=edges, image=image))
    return sheets


def _cells(inside: npt.NDArray[np.bool_]) -> npt.NDArray[np.float64]:
    """float64 `[cells]`: which share of each cell of a grid over the image is inside."""
    rows = np.array_split(inside.astype(np.float64), _GRID, 0)
    parts = [part for row in rows for part in np.array_split(row, _GRID, 1)]
    return np.array([part.mean() if part.size else 0.0 for part in parts])


def _interval(name: str, found: Estimate | None) -> dict[str, Cell]:
    if found is None:
        return {name: None, f"{name}_low": None, f"{name}_high": None}
    return {
        name: number(found.value),
        f"{name}_low": number(found.low),
        f"{name}_high": number(found.high),
    }
