"""How answers to VQAv2 are credited: by the ten answers of people, leaving one out at a time."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from functools import lru_cache, partial

from vlmlens.samples import Sample
from vlmlens_plugins.benchmarks.card import Credit, Rule
from vlmlens_plugins.benchmarks.vqav2.words import alike, plain

ANSWERS = "answers"
"""Attribute: the answers of people, a list in JSON."""
_ENOUGH = 3


@lru_cache(4096)
def _unlisted(text: str) -> tuple[str, ...]:
    return tuple(str(answer) for answer in json.loads(text))


def answers_of(sample: Sample) -> tuple[str, ...]:
    """The answers of people, ten as a rule; () where none is known."""
    text = sample.attributes.get(ANSWERS)
    return _unlisted(text) if isinstance(text, str) else ()


def vqa_accuracy(said: str, answers: Sequence[str]) -> float:
    """The mean, over the sets that leave out one answer, of min(matches / 3, 1).

    Source: the evaluation of VQA (arXiv 1505.00468, 1612.00837).

    >>> [round(vqa_accuracy("net", ["net"] * n + ["bag"] * (10 - n)), 2) for n in (1, 2, 3, 4)]
    [0.3, 0.6, 0.9, 1.0]
    """
    matches, n = sum(answer == said for answer in answers), len(answers)
    if not n:
        return 0.0
    without_match = min((matches - 1) / _ENOUGH, 1.0) if matches else 0.0
    without_other = min(matches / _ENOUGH, 1.0)
    return (matches * without_match + (n - matches) * without_other) / n


def _read(text: str, sample: Sample) -> str | None:
    del sample
    return plain(text) or None


def _strict_read(text: str, sample: Sample) -> str | None:
    del sample
    return plain(text).rstrip(".").strip() or None


def _official(said: str | None, sample: Sample) -> float:
    if said is None:
        return 0.0
    answers = [plain(answer) for answer in answers_of(sample)]
    if len(set(answers)) > 1:
        return vqa_accuracy(alike(said), [alike(answer) for answer in answers])
    return vqa_accuracy(said, answers)


def _always(said: str | None, sample: Sample, *, change: Callable[[str], str]) -> float:
    if said is None:
        return 0.0
    return vqa_accuracy(change(said), [change(plain(answer)) for answer in answers_of(sample)])


_lmms_eval: Credit = partial(_always, change=partial(alike, commas=True))
_strict: Credit = partial(_always, change=str.casefold)

RULES = {
    "strict": Rule(
        _strict_read,
        _strict,
        about="the whole answer, without a last dot, in whatever case, as people wrote it",
    ),
    "official": Rule(
        _read,
        _official,
        about="the evaluation of VQA. Punctuation, articles, number words and contractions are "
        "made alike only where the ten answers differ: where all say yes, Yes. is wrong",
    ),
    "lmms-eval": Rule(
        _read,
        _lmms_eval,
        about="makes answers alike at every question, also where the ten answers are the same",
    ),
}
