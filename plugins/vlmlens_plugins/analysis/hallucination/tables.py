"""Tables and figures of hallucination."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from vlmlens.results import Cell, Figure, Series, Table
from vlmlens_plugins.analysis._results import slug, table
from vlmlens_plugins.analysis._sweeps.scores import number
from vlmlens_plugins.analysis.hallucination.measured import Gain, Measured, Scored
from vlmlens_plugins.analysis.hallucination.places import Placed
from vlmlens_plugins.analysis.hallucination.signals import ANSWER

_COVERAGE = 20


def tables(found: Sequence[Measured], places: Sequence[Placed]) -> list[Table]:
    """A row per task; per task and signal; per sample; per place."""
    made = [
        table("hallucination-tasks", "Tasks", [_task(one) for one in found], ["task"]),
        table(
            "hallucination-signals",
            "What each signal tells, alone and beside the answer",
            [_signal(one.task, each) for one in found for each in one.scored],
            ["task", "signal"],
        ),
        table(
            "hallucination-samples",
            "Answers and simple signals per sample",
            [_sample(one, i) for one in found for i in range(len(one.cases))],
        ),
        table(
            "hallucination-places",
            "Where internal confidence is highest",
            [_place(one) for one in places],
            ["task", "norm"],
        ),
    ]
    return [each for each in made if len(each)]


def figures(found: Sequence[Measured]) -> list[Figure]:
    """Per task: signals as bars, risk against coverage, attention layer by layer."""
    made = []
    for one in found:
        if one.scored:
            made += [_bars(one), _risk(one)]
        if one.layers is not None:
            made.append(_layers(one, one.layers))
    return made


def _task(one: Measured) -> dict[str, Cell]:
    wrong = int(one.bad.sum())
    return {
        "task": one.task,
        "samples": len(one.cases),
        "bad": wrong,
        "base_rate": wrong / len(one.cases),
        "bad_compared": one.counts[0],
        "good_compared": one.counts[1],
        "objects": one.objects,
        "answer_auroc": number(one.answer),
        "shuffled_auroc": number(one.shuffled),
        "not_measured": one.why_not or None,
    }


def _signal(task: str, one: Scored) -> dict[str, Cell]:
    return {
        "task": task,
        "signal": one.signal.name,
        "auroc": number(one.auroc),
        "auroc_low": number(one.low),
        "auroc_high": number(one.high),
        "auroc_pooled": number(one.pooled),
        "average_precision": number(one.precision),
        "area_of_risk": number(one.risk),
        "balanced_accuracy": number(one.accuracy),
        **_told("gain", one.gain),
        **_told("gain_beside_object", one.beyond),
        "p": number(one.p),
    }


def _told(name: str, gain: Gain | None) -> dict[str, Cell]:
    if gain is None:
        return {name: None, f"{name}_low": None, f"{name}_high": None}
    return {
        name: number(gain.value),
        f"{name}_low": number(gain.low),
        f"{name}_high": number(gain.high),
    }


def _sample(one: Measured, row: int) -> dict[str, Cell]:
    case = one.cases[row]
    simple: dict[str, Cell] = {
        "sample": case.sample.id,
        "task": one.task,
        "label": case.sample.label,
        "answer": case.answer,
        "object": case.object,
        "bad": bool(case.bad),
        "sure": number(case.sure),
        "blind": number(case.blind),
        "entropy": number(case.inside["entropy"]),
    }
    for text in ("answer", "object"):
        told = case.inside[text]
        for k, norm in enumerate(("", "_normed")):
            value = None if told is None else number(told["confidence"][k])
            simple[f"{text}_confidence{norm}"] = value
    return simple


def _place(one: Placed) -> dict[str, Cell]:
    return {
        "task": one.task,
        "norm": "with" if one.normed else "without",
        "word": one.word,
        "samples": one.samples,
        "in_region": one.share,
        "in_region_low": one.low,
        "in_region_high": one.high,
        "chance": one.chance,
        "p": one.p,
    }


def _bars(one: Measured) -> Figure:
    """Each signal alone, and with the answer."""
    together = [number(one.answer if each.gain is None else each.gain.auroc) for each in one.scored]
    alone = Series(
        "alone",
        [number(each.auroc) for each in one.scored],
        [number(each.low) for each in one.scored],
        [number(each.high) for each in one.scored],
    )
    chance = Series("chance", [0.5] * len(one.scored), dashed=True)
    return Figure(
        slug(f"hallucination signals {one.task}"),
        f"{one.task}: what signals tell, alone and with the answer",
        "bar",
        x=[each.signal.name for each in one.scored],
        x_label="signal",
        y_label="AUROC",
        series=[alone, Series("with the answer", together), chance],
        y_range=(0.0, 1.0),
    )


def _risk(one: Measured) -> Figure:
    """Risk against coverage of the answer's probability and of the best other signal."""
    first = next(each for each in one.scored if each.signal.name == ANSWER)
    others = [each for each in one.scored if each is not first]
    best = min(others, key=lambda each: each.risk)
    shares = np.arange(1, _COVERAGE + 1) / _COVERAGE
    lines = [
        Series(each.signal.name, [float(each.curve[_kept(each, share)]) for share in shares])
        for each in (first, best)
    ]
    base = float(one.bad.mean())
    lines.append(Series("no signal", [base] * len(shares), dashed=True))
    return Figure(
        slug(f"hallucination risk {one.task}"),
        f"{one.task}: share of bad samples among those that are kept",
        "line",
        x=[f"{share:.0%}" for share in shares],
        x_label="coverage",
        y_label="risk",
        series=lines,
    )


def _kept(one: Scored, share: float) -> int:
    return max(0, round(share * len(one.curve)) - 1)


def _layers(one: Measured, areas: np.ndarray[tuple[int], np.dtype[np.float64]]) -> Figure:
    return Figure(
        slug(f"hallucination attention {one.task}"),
        f"{one.task}: AUROC of little attention to the image, by layer",
        "line",
        x=[str(layer) for layer in range(len(areas))],
        x_label="block with attention",
        y_label="AUROC",
        series=[
            Series("attention to the image", [number(area) for area in areas]),
            Series("chance", [0.5] * len(areas), dashed=True),
        ],
        y_range=(0.0, 1.0),
    )
