"""The control of a training: labels that say nothing, so that only their frequency is learned."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from vlmlens.samples import Sample
from vlmlens_plugins.analysis._tasks import ALL


def with_shuffled_labels(samples: Sequence[Sample], rng: np.random.Generator) -> list[Sample]:
    """Samples among whom the labels of their task are dealt out anew.

    Labels are as frequent as before, and about as frequent among the samples of each true label.
    Labels that are exchanged at random have something to do with the true ones by chance: if the
    picture tells these easily, a training can learn them from few such labels.

    Closed questions get the number of the right choice from questions of as many choices, so that a
    label is still one of the choices.

    Args:
        samples: With labels.
        rng: Deals them out.
    """
    found = list(samples)
    kinds: dict[tuple[str, int], list[int]] = {}
    for i, one in enumerate(samples):
        kinds.setdefault((one.task or ALL, len(one.choices)), []).append(i)
    for rows in kinds.values():
        for i, answer in zip(rows, _dealt([_answer(samples[i]) for i in rows], rng), strict=True):
            found[i] = replace(samples[i], label=_label(samples[i], answer))
    return found


def _dealt(answers: Sequence[str | int], rng: np.random.Generator) -> list[str | int]:
    """The answers, dealt out evenly to the holders of each."""
    mixed = [int(i) for i in rng.permutation(len(answers))]
    holders = sorted(mixed, key=lambda i: str(answers[i]))
    places = [
        (place, answer)
        for answer, times in Counter(answers).items()
        for place in (np.arange(times) + rng.random()) / times
    ]
    given = [answer for _, answer in sorted(places, key=lambda each: each[0])]
    found: list[str | int] = list(answers)
    for i, answer in zip(holders, given, strict=True):
        found[i] = answer
    return found


def _answer(one: Sample) -> str | int:
    return one.choices.index(str(one.label)) if one.choices else str(one.label)


def _label(one: Sample, answer: str | int) -> str:
    return one.choices[answer] if isinstance(answer, int) else answer
