"""All that is known of one question."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from vlmlens.pairs import ROLES
from vlmlens.samples import Sample
from vlmlens_plugins.analysis.look.against import Traced
from vlmlens_plugins.analysis.look.answers import Answer
from vlmlens_plugins.analysis.look.components import Components
from vlmlens_plugins.analysis.look.evidence import Evidence
from vlmlens_plugins.analysis.look.layers import Layers


@dataclass(frozen=True, slots=True)
class Looked:
    """One question from all sides; None is what cannot be told of this model.

    Args:
        sample: The question.
        answer: What the model answers.
        evidence: What that rests on.
        layers: Where it forms.
        components: What carries it.
        other: What it is compared to.
        traced: What makes the difference to that.
    """

    sample: Sample
    answer: Answer
    evidence: Evidence | None
    layers: Layers | None
    components: Components | None
    other: Sample | None
    traced: Traced | None


def asked(samples: Sequence[Sample]) -> list[tuple[Sample, Sample | None]]:
    """The questions with pictures, each with the one that it is compared to, if there is one.

    Of a pair, the clean sample is looked at, and compared to the corrupted one.
    """
    with_images = [sample for sample in samples if sample.images]
    clean, corrupted = ROLES
    others = {
        _pair(sample): sample
        for sample in with_images
        if sample.attributes.get("role") == corrupted and sample.attributes.get("pair")
    }
    return [
        (sample, others.get(_pair(sample)) if sample.attributes.get("role") == clean else None)
        for sample in with_images
        if _pair(sample) not in others or sample.attributes.get("role") == clean
    ]


def _pair(sample: Sample) -> tuple[object, str | None]:
    return sample.attributes.get("pair"), sample.task
