"""Whether an error of HallusionBench is one of language, of sight, or of both.

By the rules of the authors' script (arXiv 2310.14566), where a judge decides whether two answers
are the same; here they are if they say the same word. It is asked only for answers that say one.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from vlmlens.samples import Sample
from vlmlens_plugins.benchmarks.card import Answer

LANGUAGE, VISUAL, MIXED = "language", "visual", "mixed"
BLAMES: Final = (LANGUAGE, VISUAL, MIXED)
UNKNOWN: Final = "without_original"
RIGHT, WRONG, UNCLEAR = "right", "wrong", "unclear"


def outcomes(answers: Sequence[Answer]) -> list[str]:
    """Of each answer: right, wrong, or unclear where it says neither yes nor no."""
    return [
        UNCLEAR if answer.said is None else RIGHT if answer.credit >= 1 else WRONG
        for answer in answers
    ]


def blamed(
    samples: Sequence[Sample], answers: Sequence[Answer], found: Sequence[str]
) -> list[str | None]:
    """What each error is put down to; None: it is no error, `UNKNOWN`: its original is missing.

    Args:
        samples: With the attributes `pair`, `figure`, `category` and `seen`.
        answers: One for each.
        found: Their `outcomes`.
    """
    originals = {
        str(sample.attributes["pair"]): (answer.said, outcome)
        for sample, answer, outcome in zip(samples, answers, found, strict=True)
        if _is_original(sample)
    }
    return [
        _cause(sample, answer, outcome, originals.get(str(sample.attributes["pair"])))
        for sample, answer, outcome in zip(samples, answers, found, strict=True)
    ]


def _is_original(sample: Sample) -> bool:
    return str(sample.attributes["figure"]).endswith("/0")


def _cause(
    sample: Sample, answer: Answer, outcome: str, original: tuple[str | None, str] | None
) -> str | None:
    if outcome == RIGHT:
        return None
    if original is None:
        return UNKNOWN
    said, before = original
    needed = sample.attributes["category"] == "VD"
    if _is_original(sample):
        return VISUAL if needed else LANGUAGE if outcome == WRONG else None
    if needed:
        same = outcome == WRONG and answer.said == said
        return MIXED if before == RIGHT and same else VISUAL
    return _supplemented(outcome, before, answer.said == said, sample.attributes["seen"])


def _supplemented(outcome: str, before: str, same: bool, seen: object) -> str:
    """The cause of an error with a figure, by what was said without one (VS)."""
    if before == WRONG:
        return LANGUAGE if outcome == WRONG and same else MIXED
    overruled = before == RIGHT and outcome == WRONG and seen == "edited" and same
    return LANGUAGE if overruled else VISUAL
