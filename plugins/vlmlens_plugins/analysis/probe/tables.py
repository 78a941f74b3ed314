"""What the probe found, as tables."""

from __future__ import annotations

from collections.abc import Sequence

from vlmlens.results import Cell, Table
from vlmlens_plugins.analysis._results import table
from vlmlens_plugins.analysis.probe.layer_ranking import Place, plateau_start
from vlmlens_plugins.analysis.probe.learning_curve import curves_table
from vlmlens_plugins.analysis.probe.prober import Probed
from vlmlens_plugins.analysis.probe.scores import Score
from vlmlens_plugins.analysis.probe.targets import Target

_NUMBERS = (
    "accuracy", "control", "majority", "selectivity", "selectivity_low", "selectivity_high",
    "gap", "gap_low", "gap_high", "p", "p_corrected", "train_accuracy", "train_control",
    "control_sd", "control_task", "train_control_task", "detectable_gap", "samples_needed",
)  # fmt: skip

_STAGE = (
    "target", "stage", "column", "verdict", "accuracy", "accuracy_low", "accuracy_high",
    "above_answers", "above_low", "above_high", "samples",
)  # fmt: skip
_NONE = (None, None, None)


def tables(probed: Sequence[Probed]) -> list[Table]:
    """The complete numbers."""
    columns = [_complete(item, score) for item in probed for score in item.scored.scores]
    layers = [_layer(item, i) for item in probed for i in range(len(item.places))]
    found = [
        table("probe-columns", "Probe accuracy and controls by target and column", columns),
        table("probe-layers", "Which layer to use: columns ranked by accuracy", layers),
        table(
            "probe-shortcuts",
            "Baselines without activations (shortcuts)",
            _shortcuts(probed),
            ("target", "shortcut"),
        ),
        table(
            "probe-stages",
            "The best layer of each stage, and the model's answers",
            _stages(probed),
            ("target", "stage"),
        ),
        curves_table([(item.target.name, item.curve) for item in probed if item.curve is not None]),
        table("probe-targets", "What was probed for", [_target(item) for item in probed]),
    ]
    return [each for each in found if len(each)]


def row(target: Target, score: Score) -> dict[str, Cell]:
    """The numbers that carry a finding."""
    numbers = {name: getattr(score, name) for name in _NUMBERS}
    return {
        "target": target.name,
        "column": score.column,
        "verdict": score.verdict.value,
        **numbers,
    }


def _complete(item: Probed, score: Score) -> dict[str, Cell]:
    low, high = score.accuracy_low, score.accuracy_high
    numbers = row(item.target, score)
    ends = {"accuracy_low": low, "accuracy_high": high}
    return {**numbers, **ends, "C": score.strength, "samples": len(item.target.y)}


def _layer(item: Probed, index: int) -> dict[str, Cell]:
    place: Place = item.places[index]
    score = item.scored.scores[index]
    return {
        "target": item.target.name,
        "column": place.column,
        "rank": place.rank,
        "rank_low": place.rank_low,
        "rank_high": place.rank_high,
        "accuracy": score.accuracy,
        "accuracy_low": score.accuracy_low,
        "accuracy_high": score.accuracy_high,
        "behind_best": place.behind,
        "behind_low": place.behind_low,
        "behind_high": place.behind_high,
        "samples": len(item.target.y),
        "not_worse": place.not_worse,
        "plateau_start": place is plateau_start(item.places),
    }


def _shortcuts(probed: Sequence[Probed]) -> list[dict[str, Cell]]:
    return [
        {
            "target": item.target.name,
            "shortcut": found.name,
            "accuracy": found.accuracy,
            "accuracy_low": found.low,
            "accuracy_high": found.high,
            "best_column_above": found.behind,
            "above_low": found.behind_low,
            "above_high": found.behind_high,
            "samples": len(item.target.y),
            "explains": found.explains,
        }
        for item in probed
        for found in item.shortcuts
    ]


def _stages(probed: Sequence[Probed]) -> list[dict[str, Cell]]:
    rows: list[tuple[Cell, ...]] = []
    for item in probed:
        name = item.target.name
        for stage in item.stages:
            best, above = stage.score, stage.over_answers or _NONE
            ends = best.accuracy, best.accuracy_low, best.accuracy_high
            numbers = *ends, *above, len(item.target.y)
            rows.append((name, stage.stage.value, best.column, stage.verdict.value, *numbers))
        if item.answered is not None:
            said = item.answered
            ends = said.accuracy, said.low, said.high
            numbers = *ends, *_NONE, len(item.target.y)
            rows.append((name, "the model's answers", None, said.outcome.value, *numbers))
    return [dict(zip(_STAGE, cells, strict=True)) for cells in rows]


def _target(item: Probed) -> dict[str, Cell]:
    target, split = item.target, item.trial.split
    return {
        "target": target.name,
        "samples": len(target.y),
        "groups": len(set(target.groups.tolist())),
        "tested": int(split.tested.sum()),
        "cells": split.cells,
        "classes": ", ".join(target.classes) or "numbers",
    }
