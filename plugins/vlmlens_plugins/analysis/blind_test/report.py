"""What the blind test found, as findings, tables and figures."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np

from vlmlens.results import Cell, Figure, Finding, Series, Table, Verdict
from vlmlens_plugins.analysis._names import slug
from vlmlens_plugins.analysis.blind_test.answers import TaskAnswers
from vlmlens_plugins.analysis.blind_test.options import BlindOptions
from vlmlens_plugins.analysis.blind_test.scores import Accuracy, TaskScore

_SHOWN = 20
_PHRASES = {
    Verdict.USES_IMAGE: "the model uses the image",
    Verdict.IGNORES_IMAGE: "the model ignores the image",
    Verdict.INCONCLUSIVE: "it is inconclusive whether the model uses the image",
}


def findings(scores: Sequence[TaskScore]) -> list[Finding]:
    """One finding per task."""
    return [Finding(_sentence(score), score.verdict, score.task, _row(score)) for score in scores]


def tables(tasks: Sequence[TaskAnswers], scores: Sequence[TaskScore]) -> list[Table]:
    """The numbers per task, and the answers per sample."""
    rows = [_row(score) for score in scores]
    numbers = {name: [row[name] for row in rows] for name in rows[0]}
    return [
        Table("blind-tasks", "Answers with and without the image, by task", numbers),
        _answer_table(tasks),
    ]


def figures(tasks: Sequence[TaskAnswers], scores: Sequence[TaskScore]) -> list[Figure]:
    """Accuracies by task (where there are labels), and each task's mean answers."""
    accuracy = _accuracy_figure(scores)
    distributions = [_distribution_figure(answers) for answers in tasks]
    return [*([accuracy] if accuracy else []), *distributions]


_WRITTEN = (
    "Choices are compared by the log-probability of their tokens after the prompt, summed, and "
    "normalized over the choices; without choices, the distribution of the first token counts."
)
_COMPARED = (
    "The model writes nothing: each choice, after the prompt, is a text, and the similarities of "
    "these texts to the image, at the model's own temperature, are normalized over the choices. "
    "The blank image is compared with the same texts."
)


def notes(options: BlindOptions, *, by_choice: bool = False) -> list[str]:
    """How the numbers were made.

    Args:
        options: Of the test.
        by_choice: Whether the model compared choices instead of writing.
    """
    blank = (
        "no image at all"
        if options.blank == "none"
        else f"a blank image ({options.blank}) of the same size"
    )
    return [
        f"Every question is asked twice: with its image, and with {blank}.",
        _COMPARED if by_choice else _WRITTEN,
        "Distances between the two answers to a question: total variation and Jensen-Shannon "
        "distance (base 2), averaged over samples. A flip is another most probable answer. "
        "Intervals are 95 % percentile bootstraps over groups.",
        "Permutation tests: under the null, the answers with the image and with the blank are "
        f"exchangeable, so they are swapped at random group by group ({options.draws} draws). "
        "Shift: total variation between the two mean answer distributions. Gain: accuracy with "
        "the image minus accuracy blind, one-sided. Both corrected over tasks (Holm 1979). The "
        "shift alone could come from the blank's strangeness; the gain cannot.",
        "Uses the image: the interval of the flip rate lies above "
        f"{options.min_flips:g} or that of the mean total variation above "
        f"{options.min_distance:g}, and the gain (without labels: the shift) is significant at "
        f"{options.alpha:g}. Ignores the image: both intervals end below these thresholds. "
        "Inconclusive: anything else.",
    ]


def _sentence(score: TaskScore) -> str:
    accuracy = score.accuracy
    numbers = (
        f"{score.flips:.0%} of the answers flip without it, mean total variation {score.tv:.2f}"
    )
    if accuracy is None:
        return (
            f"{score.task}: {_PHRASES[score.verdict]} ({numbers}; shift of the mean answers "
            f"{score.shift:.2f}, corrected p = {score.corrected:.2g})."
        )
    chance = "" if accuracy.chance is None else f"chance {accuracy.chance:.2f}, "
    return (
        f"{score.task}: {_PHRASES[score.verdict]} (accuracy {accuracy.image:.2f} with it, "
        f"{accuracy.blind:.2f} blind, {chance}majority {accuracy.majority:.2f}; gain "
        f"{accuracy.gain:.2f} [{accuracy.low:.2f}, {accuracy.high:.2f}], corrected "
        f"p = {accuracy.corrected:.2g}; {numbers})."
    )


def _row(score: TaskScore) -> dict[str, Cell]:
    return {
        "task": score.task,
        "verdict": score.verdict.value,
        "samples": score.samples,
        **_accuracy_cells(score.accuracy),
        "flip_rate": score.flips,
        "flip_low": score.flips_interval[0],
        "flip_high": score.flips_interval[1],
        "total_variation": score.tv,
        "total_variation_low": score.tv_interval[0],
        "total_variation_high": score.tv_interval[1],
        "jensen_shannon": score.js,
        "shift": score.shift,
        "shift_p": score.p,
        "shift_p_corrected": score.corrected,
    }


def _accuracy_cells(accuracy: Accuracy | None) -> dict[str, Cell]:
    names = {
        "accuracy_image": "image",
        "accuracy_blind": "blind",
        "chance": "chance",
        "majority": "majority",
        "gain": "gain",
        "gain_low": "low",
        "gain_high": "high",
        "gain_p": "p",
        "gain_p_corrected": "corrected",
    }
    return {name: getattr(accuracy, field, None) for name, field in names.items()}


def _answer_table(tasks: Sequence[TaskAnswers]) -> Table:
    rows: list[dict[str, Cell]] = []
    for answers in tasks:
        for i, sample in enumerate(answers.samples):
            image, blank = int(answers.picks_image[i]), int(answers.picks_blank[i])
            rows.append(
                {
                    "sample": sample.id,
                    "task": answers.task,
                    "label": sample.label,
                    "answer_image": answers.answers[image],
                    "probability_image": _probability(answers, answers.image[i, image]),
                    "answer_blank": answers.answers[blank],
                    "probability_blank": _probability(answers, answers.blank[i, blank]),
                    "flipped": image != blank,
                    "total_variation": float(answers.tv[i]),
                    "jensen_shannon": float(answers.js[i]),
                }
            )
    columns = {name: [row[name] for row in rows] for name in rows[0]}
    return Table("blind-answers", "The two answers to every question", columns)


def _probability(answers: TaskAnswers, value: float) -> float | None:
    return None if answers.open else float(value)


def _accuracy_figure(scores: Sequence[TaskScore]) -> Figure | None:
    known = [(score.task, score.accuracy) for score in scores if score.accuracy is not None]
    if not known:
        return None
    return Figure(
        name="blind-accuracy",
        title="Accuracy with the image, without it, and by chance",
        kind="bar",
        x=[task for task, _ in known],
        x_label="task",
        y_label="accuracy",
        series=[
            Series("with the image", [accuracy.image for _, accuracy in known]),
            Series("blind", [accuracy.blind for _, accuracy in known]),
            Series("chance", [accuracy.chance for _, accuracy in known], dashed=True),
            Series("majority", [accuracy.majority for _, accuracy in known], dashed=True),
        ],
        y_range=(0.0, 1.0),
    )


def _distribution_figure(answers: TaskAnswers) -> Figure:
    image, blank = answers.image.mean(0), answers.blank.mean(0)
    shown = np.sort(np.argsort(-(image + blank), kind="stable")[:_SHOWN])
    names = [answers.answers[i] for i in shown]
    series = [
        Series("with the image", [float(image[i]) for i in shown]),
        Series("blind", [float(blank[i]) for i in shown]),
    ]
    counts = Counter(s.label for s in answers.samples if s.label is not None)
    if counts and not answers.open:
        total = sum(counts.values())
        series.append(Series("labels", [counts[name] / total for name in names], dashed=True))
    return Figure(
        name=f"blind-{slug(answers.task)}",
        title=f"What the model answers to {answers.task}, with the image and without it",
        kind="bar",
        x=names,
        x_label="answer",
        y_label="share of answers" if answers.open else "mean probability",
        series=series,
        y_range=(0.0, 1.0),
    )
