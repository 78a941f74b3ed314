"""The two bottlenecks of charts: what the representation lacks, and what is not taken out of it.

"On the perception bottleneck of VLMs for chart understanding" (arXiv 2503.18435): the vision
encoder's bottleneck is what its representation lacks, the extraction bottleneck is what the
language model fails to take out of it. There, the representation is measured by image-text
retrieval with the encoder's own text tower. A model that compares texts with images (CLIP) answers
by retrieval, so here its answers are that measure. Another vision tower has no text side: there, a
linear probe of it, held out by group, stands for retrieval.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from vlmlens_plugins.analysis._estimates import NOTHING, Estimate, Resampled
from vlmlens_plugins.analysis._statistics import generator
from vlmlens_plugins.analysis.bottleneck.asked import Case
from vlmlens_plugins.analysis.bottleneck.options import BottleneckOptions
from vlmlens_plugins.analysis.bottleneck.reading import Question
from vlmlens_plugins.analysis.bottleneck.work import TOWER

RETRIEVAL, PROBE = "image-text retrieval", "linear probe of the vision tower"


@dataclass(frozen=True, slots=True)
class Bottlenecks:
    """The two bottlenecks of a question; all shares are of the same samples.

    Args:
        question: What is asked.
        samples: How many.
        measure: How the representation is measured: `RETRIEVAL` or `PROBE`.
        held: Accuracy of that measure.
        answered: Accuracy of the answers from the image; nothing where they are the retrieval.
        encoder: What the representation lacks: 1 - held.
        extraction: What is not taken out: held - answered. Below 0 where answers are better than a
            linear reading.
        probe: Accuracy of a linear probe where `held` is retrieval.
    """

    question: str
    samples: int
    measure: str
    held: Estimate
    answered: Estimate
    encoder: Estimate
    extraction: Estimate
    probe: Estimate


def bottlenecks(
    cases: Sequence[Case],
    questions: Sequence[Question],
    options: BottleneckOptions,
    seed: int,
    *,
    retrieves: bool,
) -> list[Bottlenecks]:
    """The bottlenecks of each question whose vision tower is probed.

    Args:
        cases: Of one task.
        questions: What probes read of them.
        options: How often to resample.
        seed: Of resamples.
        retrieves: Whether the model compares texts with images.
    """
    made = []
    for question in questions:
        read = (question.stages or {}).get(TOWER)
        if read is None:
            continue
        own = [cases[question.rows[k]] for k in question.probed]
        groups = [case.sample.split_group for case in own]
        resampled = Resampled(groups, options.draws, generator(seed, "bottleneck-charts"))
        probed = read.hits.astype(np.float64)
        answers = np.array([not case.wrong for case in own], np.float64)
        held = answers if retrieves else probed
        made.append(
            Bottlenecks(
                question.name,
                len(own),
                RETRIEVAL if retrieves else PROBE,
                resampled.share(held),
                NOTHING if retrieves else resampled.share(answers),
                resampled.share(1 - held),
                NOTHING if retrieves else resampled.mean(held - answers),
                resampled.share(probed) if retrieves else NOTHING,
            )
        )
    return made
