"""What a sample of MMMU carries beside its question: the texts of options, the right answers."""

from __future__ import annotations

from vlmlens.samples import Sample
from vlmlens_plugins.benchmarks.lettered import texts_in

ANSWERS, NUMBERS = "answers", "image_numbers"
"""Attributes: several right answers, numbers of images; lists in JSON."""
DISCIPLINE = "discipline"


def answers_of(sample: Sample) -> tuple[str, ...]:
    """The right answers of an open question; () where none is known."""
    several = texts_in(sample.attributes, ANSWERS)
    return several or (() if sample.label is None else (sample.label,))
