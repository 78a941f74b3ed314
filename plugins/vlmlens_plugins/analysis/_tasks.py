"""Samples by task, under the same names in all analyses."""

from __future__ import annotations

from collections.abc import Sequence

from vlmlens.samples import Sample

ALL = "all samples"
"""What samples without a task are called together."""


def rows_by_task(samples: Sequence[Sample]) -> dict[str, list[int]]:
    """The numbers of each task's samples, tasks in order of appearance."""
    found: dict[str, list[int]] = {}
    for i, sample in enumerate(samples):
        found.setdefault(sample.task or ALL, []).append(i)
    return found


def first_of_tasks(
    samples: Sequence[Sample], most: int, analysis: str
) -> tuple[list[Sample], list[str]]:
    """At most so many samples of each task, the first ones; and what is said of the others.

    Args:
        samples: All samples.
        most: The option `samples` of the analysis.
        analysis: Its name.
    """
    tasks = rows_by_task(samples)
    said = [
        f"{task}: only the first {most} of {len(rows)} samples are used; set "
        f"analysis.{analysis}.samples for more."
        for task, rows in tasks.items()
        if len(rows) > most
    ]
    return [samples[i] for rows in tasks.values() for i in rows[:most]], said
