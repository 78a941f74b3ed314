"""Who is trained on, who stops the training, and who is tested; no group on two sides."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from vlmlens.errors import MissingAnnotation
from vlmlens.samples import Sample
from vlmlens_plugins.analysis._statistics import generator

_HELD = 0.2
_LEAST = 8


@dataclass(frozen=True, slots=True)
class Parts:
    """The samples of one task, divided.

    Args:
        train: Trained on.
        held: Their loss ends the training.
        test: What all numbers are from.
    """

    train: Sequence[Sample]
    held: Sequence[Sample]
    test: Sequence[Sample]

    @property
    def labelled(self) -> list[Sample]:
        """All samples whose labels are used to learn: of trainings, and of the direct readout."""
        return [*self.train, *self.held]


def divided(samples: Sequence[Sample], *, tested: float, labelled: int, seed: int) -> Parts:
    """Divide samples by their groups, at random.

    Args:
        samples: Of one task, with labels.
        tested: The share of groups that is tested.
        labelled: At most so many of the others are used.
        seed: Of the order of groups.

    Raises:
        MissingAnnotation: There are too few samples or groups, or all have the same label.
    """
    groups = list(dict.fromkeys(sample.split_group for sample in samples))
    if len(groups) < 3 or len(samples) < 3 * _LEAST:
        raise _too_few(samples, groups)
    order = generator(seed, "bottleneck", "divided").permutation(len(groups))
    cut = min(max(round(tested * len(groups)), 1), len(groups) - 2)
    place = {groups[int(number)]: rank for rank, number in enumerate(order)}
    rank = [place[sample.split_group] for sample in samples]
    test = [sample for sample, at in zip(samples, rank, strict=True) if at < cut]
    rest = [i for i in np.argsort(rank, kind="stable") if rank[i] >= cut][:labelled]
    ends = sorted({rank[i] for i in rest})
    edge = ends[min(max(round((1 - _HELD) * len(ends)), 1), len(ends) - 1)]
    train = [samples[i] for i in rest if rank[i] < edge]
    held = [samples[i] for i in rest if rank[i] >= edge]
    if min(len(train), len(held), len(test)) < 2 or len({one.label for one in train}) < 2:
        raise _too_few(samples, groups)
    return Parts(train, held, test)


def _too_few(samples: Sequence[Sample], groups: Sequence[str]) -> MissingAnnotation:
    labels = Counter(str(sample.label) for sample in samples)
    said = ", ".join(f"{label} ({number})" for label, number in labels.most_common(4))
    return MissingAnnotation(
        f"bottleneck: {len(samples)} samples in {len(groups)} groups are too few to train on some "
        f"and test others (labels: {said}).",
        subject="tune",
        hint=f"Give at least {3 * _LEAST} samples in three groups, with two labels; or leave "
        "`tune` out.",
    )
