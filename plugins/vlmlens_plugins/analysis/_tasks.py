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
