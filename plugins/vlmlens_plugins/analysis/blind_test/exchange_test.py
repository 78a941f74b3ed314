"""Test whether an answer fits its own image better than other images; no blank is needed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from vlmlens_plugins.analysis._statistics import permutation_p

Ints = npt.NDArray[np.int64]
_CHUNK = 500


@dataclass(frozen=True, slots=True)
class Exchanged:
    """Accuracy beside that after exchanging answers between images, question by question.

    Args:
        samples: Questions, one per group, that are asked about several images.
        own: Accuracy of the answers.
        other: Its mean after random exchange: what answers get that know the question, and how
            often each answer is right, but not the image.
        p: One-sided p-value of `own`.
    """

    samples: int
    own: float
    other: float
    p: float

    @property
    def use(self) -> float:
        """The gain over `other`, as a share of what that leaves; 0 where it leaves nothing."""
        return (self.own - self.other) / (1 - self.other) if self.other < 1 else 0.0


def exchanged(
    picks: Ints,
    labels: Ints,
    questions: Sequence[Sequence[int]],
    groups: Ints,
    draws: int,
    rng: np.random.Generator,
) -> Exchanged | None:
    """Tests whether answers are right more often than after exchanging them between images.

    Null: given the question, the answer is independent of which of its images was shown. Answers
    to a question are permuted over groups, in the same way for all questions asked of the same
    groups; of several answers to one question in one group, the first counts. A blank that a model
    finds strange cannot bring this about, for there is none.

    Args:
        picks: int64 `[n]`, answers.
        labels: int64 `[n]`, right answers; -1 where not known.
        questions: Samples by question; each question asked of several groups.
        groups: int64 `[n]`, the group of each sample.
        draws: Permutations.
        rng: Draws them.

    Returns:
        None where less than half of the labels belong to questions whose images have several.
    """
    members = [_one_per_group(rows, labels, groups) for rows in questions]
    members = [rows for rows in members if len(np.unique(labels[rows])) > 1]
    if 2 * sum(map(len, members)) < np.count_nonzero(labels >= 0) or not members:
        return None
    null = np.zeros(draws)
    for start in range(0, draws, _CHUNK):
        part = null[start : start + _CHUNK]
        keys = rng.random((len(part), int(groups.max()) + 1))
        for rows in members:
            order = keys[:, groups[rows]].argsort(1)
            part += (picks[rows][order] == labels[rows]).sum(1)
    chosen = np.concatenate(members)
    right = int((picks[chosen] == labels[chosen]).sum())
    count = len(chosen)
    expected = sum(_expected(picks[rows], labels[rows]) for rows in members)
    return Exchanged(count, right / count, expected / count, permutation_p(right, null))


def _one_per_group(rows: Sequence[int], labels: Ints, groups: Ints) -> Ints:
    first = {int(groups[i]): i for i in reversed(rows) if labels[i] >= 0}
    return np.array(sorted(first.values()), np.int64)


def _expected(picks: Ints, labels: Ints) -> float:
    """Mean number of right answers over all permutations."""
    size = int(max(picks.max(), labels.max())) + 1
    counts = [np.bincount(each, minlength=size) for each in (picks, labels)]
    return float(counts[0] @ counts[1] / len(picks))
