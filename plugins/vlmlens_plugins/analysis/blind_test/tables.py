"""The blind test's numbers as tables."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from vlmlens.results import Cell, Table
from vlmlens_plugins.analysis._results import table
from vlmlens_plugins.analysis._statistics import generator
from vlmlens_plugins.analysis.blind_test.answers import Blinded, Forms, TaskAnswers
from vlmlens_plugins.analysis.blind_test.comparison import Accuracy, Comparison, TaskScore
from vlmlens_plugins.analysis.blind_test.options import BlindOptions
from vlmlens_plugins.analysis.blind_test.resampling import Estimate, Groups

_ACCURACY = {
    "accuracy_image": "image",
    "accuracy_blind": "blind",
    "chance": "chance",
    "majority": "majority",
    "gain": "gain",
    "gain_p": "p",
    "gain_p_corrected": "corrected",
    "right_only_with_image": "only_image",
    "right_only_blind": "only_blind",
    "mcnemar_p": "mcnemar",
    "use": "use",
    "blind_above_chance": "leak",
    "right_also_blind": "shared",
}
_WITH_INTERVAL = frozenset({"image", "blind", "gain", "use", "leak"})


def tables(
    tasks: Sequence[TaskAnswers], scores: Sequence[TaskScore], options: BlindOptions, seed: int
) -> list[Table]:
    """The numbers per task and blank, the answers per sample and blank, and replies by form."""
    numbers = [row(score, each) for score in scores for each in score.comparisons]
    given = [
        _answer_row(answers, each, i)
        for answers in tasks
        for each in answers.blinded
        for i in range(len(answers.samples))
    ]
    made = [
        table("blind-tasks", "Answers with and without the image, by task", numbers),
        table("blind-answers", "The answers to every question", given),
    ]
    replies = [
        line
        for answers in tasks
        if answers.forms is not None
        for line in _reply_rows(answers, answers.forms, options, seed)
    ]
    if replies:
        title = "Preferred replies: letters or yes/no that are favoured whatever they stand for"
        made.append(table("blind-replies", title, replies, keys=("task", "reply")))
    return made


def row(score: TaskScore, each: Comparison) -> dict[str, Cell]:
    """All numbers of a task with one kind of blank."""
    found = score.information
    return {
        "task": score.task,
        "blank": each.blank,
        "verdict": each.verdict.value,
        "samples": score.samples,
        **_accuracy_cells(each.accuracy),
        **_interval_cells("flip_rate", each.flips),
        **_interval_cells("total_variation", each.tv),
        **_interval_cells("jensen_shannon", each.js),
        **_interval_cells("shift", each.shift.tv),
        "shift_p": each.shift.p,
        "shift_p_corrected": each.shift.corrected,
        **_interval_cells("shift_js", each.shift.js),
        "shift_js_p": each.shift.p_js,
        **_interval_cells("information", None if found is None else found.bits),
        "information_most": None if found is None else found.most,
        "follows_image": score.follows,
        "accuracy_exchanged": None if score.exchanged is None else score.exchanged.other,
        "exchange_p": None if score.exchanged is None else score.exchanged.p,
        "prior_certainty": each.certainty,
    }


def _accuracy_cells(found: Accuracy | None) -> dict[str, Cell]:
    cells: dict[str, Cell] = {}
    for name, field in _ACCURACY.items():
        value = getattr(found, field, None)
        cells |= _interval_cells(name, value) if field in _WITH_INTERVAL else {name: value}
    return cells


def _interval_cells(name: str, found: Estimate | None) -> dict[str, Cell]:
    if found is None:
        return {name: None, f"{name}_low": None, f"{name}_high": None}
    return {name: found.value, f"{name}_low": found.low, f"{name}_high": found.high}


def _answer_row(answers: TaskAnswers, each: Blinded, i: int) -> dict[str, Cell]:
    image, blank = int(answers.image.picks[i]), int(each.given.picks[i])
    sample = answers.samples[i]
    return {
        "sample": sample.id,
        "task": answers.task,
        "label": sample.label,
        "answer_image": answers.answers[image],
        "probability_image": None if answers.open else float(answers.image.p[i, image]),
        "blank": each.blank,
        "answer_blank": answers.answers[blank],
        "probability_blank": None if answers.open else float(each.given.p[i, blank]),
        "flipped": image != blank,
        "total_variation": float(each.tv[i]),
        "jensen_shannon": float(each.js[i]),
    }


def _reply_rows(
    answers: TaskAnswers, forms: Forms, options: BlindOptions, seed: int
) -> list[dict[str, Cell]]:
    rng = generator(seed, "blind-replies", answers.task)
    groups = Groups(answers.samples, options.resamples, rng)
    labelled = forms.right[answers.labelled]
    rows: list[dict[str, Cell]] = []
    for number, reply in enumerate(forms.replies):
        had = ~np.isnan(forms.excess[:, number])
        excess = np.where(had, forms.excess[:, number], 0.0)
        rows.append(
            {
                "task": answers.task,
                "reply": reply,
                **_interval_cells("excess", groups.ratio(excess, had.astype(np.float64))),
                "same_in_all_forms": float(forms.agree.mean()),
                "right_in_all_forms": float(labelled.mean()) if len(labelled) else None,
            }
        )
    return rows
