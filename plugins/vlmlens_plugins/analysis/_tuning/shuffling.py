"""The control of a training: labels of other samples, so that only their frequency is learned."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from vlmlens.samples import Sample
from vlmlens_plugins.analysis._tasks import ALL


def with_shuffled_labels(samples: Sequence[Sample], rng: np.random.Generator) -> list[Sample]:
    """Samples that exchange labels with others of their task.

    Closed questions exchange the number of the right choice with questions of as many choices, so
    that a label is still one of the choices.

    Args:
        samples: With labels.
        rng: Draws who exchanges with whom.
    """
    found = list(samples)
    kinds: dict[tuple[str, int], list[int]] = {}
    for i, one in enumerate(samples):
        kinds.setdefault((one.task or ALL, len(one.choices)), []).append(i)
    for rows in kinds.values():
        for i, other in zip(rows, rng.permutation(rows), strict=True):
            given = samples[int(other)]
            label = given.label
            if found[i].choices:
                label = samples[i].choices[given.choices.index(str(given.label))]
            found[i] = replace(samples[i], label=label)
    return found
