"""What the probe found, as tables."""

from __future__ import annotations

from collections.abc import Sequence

from vlmlens.results import Cell, Table
from vlmlens_plugins.analysis.probe.layers import Place, plateau_start
from vlmlens_plugins.analysis.probe.probing import Probed
from vlmlens_plugins.analysis.probe.scores import Score
from vlmlens_plugins.analysis.probe.targets import Target


def tables(probed: Sequence[Probed]) -> list[Table]:
    """The complete numbers."""
    columns = [_complete(item, score) for item in probed for score in item.scored.scores]
    layers = [_layer(item, i) for item in probed for i in range(len(item.places))]
    found = [
        _table("probe-columns", "Probe accuracy and controls by target and column", columns),
        _table("probe-layers", "Which layer to take: columns ranked by accuracy", layers),
        _table("probe-shortcuts", "What does without the layers", _shortcuts(probed), "shortcut"),
        _table("probe-stages", "From the picture to the answer", _stages(probed), "stage"),
        _table("probe-targets", "What was probed for", [_target(item) for item in probed]),
    ]
    return [table for table in found if len(table)]


def row(target: Target, score: Score) -> dict[str, Cell]:
    """The numbers that carry a finding."""
    return {
        "target": target.name,
        "column": score.column,
        "verdict": score.verdict.value,
        "accuracy": score.accuracy,
        "control": score.control,
        "majority": score.majority,
        "selectivity": score.selectivity,
        "selectivity_low": score.low,
        "selectivity_high": score.high,
        "gap": score.gap,
        "gap_low": score.gap_low,
        "gap_high": score.gap_high,
        "p": score.p,
        "p_corrected": score.corrected,
        "train_accuracy": score.train_accuracy,
        "train_control": score.train_control,
        "control_sd": score.control_sd,
        "control_task": score.control_task,
        "train_control_task": score.train_control_task,
        "detectable_gap": score.detectable,
        "samples_needed": score.samples_needed,
    }


def _complete(item: Probed, score: Score) -> dict[str, Cell]:
    low, high = score.accuracy_low, score.accuracy_high
    numbers = row(item.target, score)
    return {**numbers, "accuracy_low": low, "accuracy_high": high, "C": score.strength}


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
            "explains": found.explains,
        }
        for item in probed
        for found in item.shortcuts
    ]


def _stages(probed: Sequence[Probed]) -> list[dict[str, Cell]]:
    rows: list[dict[str, Cell]] = []
    for item in probed:
        for best in item.stages:
            above = best.over_answers or (None, None, None)
            rows.append(
                {
                    "target": item.target.name,
                    "stage": best.stage.value,
                    "column": best.score.column,
                    "verdict": best.verdict.value,
                    "accuracy": best.score.accuracy,
                    "accuracy_low": best.score.accuracy_low,
                    "accuracy_high": best.score.accuracy_high,
                    "above_answers": above[0],
                    "above_low": above[1],
                    "above_high": above[2],
                }
            )
        if item.answered is not None:
            said = item.answered
            rows.append(
                {
                    "target": item.target.name,
                    "stage": "the model's answers",
                    "column": None,
                    "verdict": said.heard.value,
                    "accuracy": said.accuracy,
                    "accuracy_low": said.low,
                    "accuracy_high": said.high,
                    "above_answers": None,
                    "above_low": None,
                    "above_high": None,
                }
            )
    return rows


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


def _table(name: str, title: str, rows: Sequence[dict[str, Cell]], beside: str = "") -> Table:
    """A row is about a target, and about the column named `beside` where there is one."""
    headers = list(rows[0]) if rows else []
    keys = ("target", beside) if beside else ()
    return Table(name, title, {header: [r[header] for r in rows] for header in headers}, keys)
