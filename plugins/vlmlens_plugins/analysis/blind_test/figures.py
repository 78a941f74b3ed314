"""The blind test's numbers as figures."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np

from vlmlens.results import Figure, Series
from vlmlens_plugins.analysis._results import slug
from vlmlens_plugins.analysis.blind_test.answers import TaskAnswers
from vlmlens_plugins.analysis.blind_test.comparison import Accuracy, TaskScore
from vlmlens_plugins.analysis.blind_test.resampling import Estimate

_SHOWN = 20


def figures(tasks: Sequence[TaskAnswers], scores: Sequence[TaskScore]) -> list[Figure]:
    """Accuracies by task (where there are labels), and each task's mean answers."""
    accuracy = _accuracy_figure(scores)
    distributions = [_distribution_figure(answers) for answers in tasks]
    return [*([accuracy] if accuracy else []), *distributions]


def _accuracy_figure(scores: Sequence[TaskScore]) -> Figure | None:
    kinds = [each.blank for each in scores[0].comparisons]
    known = {
        score.task: [each.accuracy for each in score.comparisons if each.accuracy is not None]
        for score in scores
    }
    known = {task: found for task, found in known.items() if found}
    if not known:
        return None
    first: list[Accuracy] = [found[0] for found in known.values()]
    return Figure(
        name="blind-accuracy",
        title="Accuracy with the image, without it, and by chance",
        kind="bar",
        x=list(known),
        x_label="task",
        y_label="accuracy",
        series=[
            _bars("with the image", [accuracy.image for accuracy in first]),
            *(
                _bars(_blind(kind, kinds), [found[k].blind for found in known.values()])
                for k, kind in enumerate(kinds)
            ),
            Series("chance", [accuracy.chance for accuracy in first], dashed=True),
            Series("majority", [accuracy.majority for accuracy in first], dashed=True),
        ],
        y_range=(0.0, 1.0),
    )


def _bars(name: str, found: Sequence[Estimate]) -> Series:
    values, low, high = zip(*((each.value, each.low, each.high) for each in found), strict=True)
    return Series(name, values, low, high)


def _distribution_figure(answers: TaskAnswers) -> Figure:
    kinds = [each.blank for each in answers.blinded]
    means = [answers.image.p.mean(0), *(each.given.p.mean(0) for each in answers.blinded)]
    shown = np.sort(np.argsort(-np.sum(means, axis=0), kind="stable")[:_SHOWN])
    labels = ["with the image", *(_blind(kind, kinds) for kind in kinds)]
    names = [answers.answers[i] for i in shown]
    series = [
        Series(label, [float(mean[i]) for i in shown])
        for label, mean in zip(labels, means, strict=True)
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
    )


def _blind(kind: str, kinds: Sequence[str]) -> str:
    return "blind" if len(kinds) == 1 else f"blind: {kind}"
