"""Choices for samples that have none, for models that only compare choices."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from vlmlens.errors import MissingAnnotation
from vlmlens.samples import Sample
from vlmlens_plugins.analysis._tasks import ALL, rows_by_task


def samples_by_task(samples: Sequence[Sample]) -> dict[str, list[Sample]]:
    """The samples of each task, in order."""
    return {task: [samples[i] for i in rows] for task, rows in rows_by_task(samples).items()}


def with_choices(samples: Sequence[Sample]) -> tuple[list[Sample], list[str]]:
    """The samples, each with choices: its own, else the labels of its task; and what to warn of.

    Raises:
        MissingAnnotation: A task lacks choices and has fewer than two labels.
    """
    labels = {task: _labels(task, members) for task, members in samples_by_task(samples).items()}
    closed = [
        sample if sample.choices else replace(sample, choices=labels[sample.task or ALL])
        for sample in samples
    ]
    bare = sum(not sample.choices for sample in samples)
    said = (
        f"{bare} samples have no choices, which this model needs: it chose among the labels of "
        "their task."
    )
    return closed, [said] if bare else []


def _labels(task: str, samples: Sequence[Sample]) -> tuple[str, ...]:
    labels = tuple(sorted({sample.label for sample in samples if sample.label is not None}))
    if len(labels) < 2 and not all(sample.choices for sample in samples):
        raise MissingAnnotation(
            f"{task}: the model only compares choices, and the data have neither choices nor two "
            "different labels.",
            subject=task,
            hint="Give the data a column of choices, or at least two different labels.",
        )
    return labels
