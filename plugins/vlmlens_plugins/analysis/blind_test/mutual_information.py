"""How much an answer tells about the image."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from vlmlens.samples import Sample
from vlmlens_plugins.analysis._statistics import entropy, interval
from vlmlens_plugins.analysis.blind_test.resampling import Estimate, Groups

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Information:
    """Mutual information between image and answer, given the question.

    Args:
        bits: With the image.
        most: Bits that it could be: the entropy of the answers to the same question.
        samples: Samples whose question is asked about other images, too.
    """

    bits: Estimate
    most: float
    samples: int


def repeated(samples: Sequence[Sample]) -> list[list[int]]:
    """Numbers of the samples of each question that is asked about images of several groups."""
    found: dict[tuple[str, tuple[str, ...]], list[int]] = {}
    for i, sample in enumerate(samples):
        found.setdefault((sample.prompt, sample.choices), []).append(i)
    return [rows for rows in found.values() if len({samples[i].split_group for i in rows}) > 1]


def information(p: Floats, questions: Sequence[Sequence[int]], groups: Groups) -> Information:
    """How much answers tell about which image was shown, every image as probable as another.

    I(image; answer | question) = H(mean answer distribution) - mean H(answer distribution), per
    question, weighted by its samples; the generalized Jensen-Shannon divergence of J. Lin,
    "Divergence measures based on the Shannon entropy", IEEE Trans. Inf. Theory 37 (1991). It is 0
    just where a question has the same answers whatever the image. The interval is a bootstrap over
    groups.

    Args:
        p: float64 `[n, answers]`, the answers' probabilities.
        questions: From `repeated`; at least one.
        groups: Of the samples.
    """
    gained, most = 0.0, 0.0
    drawn, sizes = np.zeros((2, len(groups.weights)))
    for rows in questions:
        members = np.asarray(rows)
        weights = groups.weights[:, groups.of[members]]
        inner = entropy(p[members])
        whole = float(entropy(p[members].mean(0)))
        gained += len(members) * (whole - float(inner.mean()))
        most += len(members) * whole
        size = weights.sum(1)
        mean = (weights @ p[members]) / np.maximum(size, 1)[:, None]
        drawn += size * entropy(mean) - weights @ inner
        sizes += size
    count = sum(map(len, questions))
    low, high = interval(np.maximum(drawn, 0.0) / np.maximum(sizes, 1))
    bits = Estimate(max(gained / count, 0.0), float(low), float(high))
    return Information(bits, most / count, count)
