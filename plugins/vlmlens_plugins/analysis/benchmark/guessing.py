"""What answers gain that do not depend on the image: one answer for all, and the object's name."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from vlmlens.samples import Sample
from vlmlens_plugins.benchmarks.card import Answer, Card, Metrics, Rule
from vlmlens_plugins.benchmarks.scoring import answered, scored

OBJECT = "object"
"""The attribute with what a question is about."""

MOST_LABELS, FEW_LABELS = 30, 5
"""If there are more labels than the first, as in open questions, only the most frequent ones are
scored as constant answers: the second says how many."""


@dataclass(frozen=True)
class Constant:
    """One answer to all questions.

    Args:
        text: The answer.
        answers: What the rule reads in it, per sample.
        scores: Its metrics.
        headline: The metric by which it is the best.
    """

    text: str
    answers: Sequence[Answer]
    scores: dict[str, float]
    headline: str


def constants(card: Card, rule: Rule, samples: Sequence[Sample]) -> dict[str, list[Answer]]:
    """Answers that are the same for all samples, as a rule reads them.

    They are those of the card; else the labels, of very many the most frequent ones.
    """
    counted = Counter(str(sample.label) for sample in samples if sample.label is not None)
    labels = sorted(counted, key=lambda label: (-counted[label], label))
    few = labels if len(labels) <= MOST_LABELS else labels[:FEW_LABELS]
    texts = card.constants or few
    return {text: answered([text] * len(samples), samples, rule) for text in texts}


def best_constant(
    card: Card,
    metrics: Metrics,
    headline: str,
    samples: Sequence[Sample],
    found: dict[str, list[Answer]],
) -> Constant | None:
    """The constant answer with the best headline; the first of equal ones; None if there is none.

    Args:
        card: Says whether less is better.
        metrics: The metrics.
        headline: The one that decides.
        samples: The samples.
        found: From `constants`, for these samples.
    """
    sign = -1 if headline in card.lower_is_better else 1
    all_of_them = [Constant(t, a, scored(metrics, samples, a), headline) for t, a in found.items()]
    defined = [one for one in all_of_them if one.scores[headline] == one.scores[headline]]
    return max(defined, key=lambda one: sign * one.scores[headline], default=None)


def by_object(samples: Sequence[Sample]) -> list[str] | None:
    """For each sample, the label that most samples of other groups about its object have.

    Ties, and objects that are in no other group, get the label that is more frequent in all other
    groups. None if a sample has no attribute `object`, or no label.
    """
    objects = [sample.attributes.get(OBJECT) for sample in samples]
    if not samples or any(not name for name in objects):
        return None
    if any(sample.label is None for sample in samples):
        return None
    labels = [str(sample.label) for sample in samples]
    groups = [sample.split_group for sample in samples]
    names = [str(name) for name in objects]
    of_object: dict[str, Counter[str]] = defaultdict(Counter)
    own: dict[tuple[str, str], Counter[str]] = defaultdict(Counter)
    in_group: dict[str, Counter[str]] = defaultdict(Counter)
    for name, label, group in zip(names, labels, groups, strict=True):
        of_object[name][label] += 1
        own[name, group][label] += 1
        in_group[group][label] += 1
    every = Counter(labels)
    known: dict[tuple[str, str], str] = {}
    for key in own:
        name, group = key
        there = {label: of_object[name][label] - own[key][label] for label in every}
        rest = {label: every[label] - in_group[group][label] for label in every}
        known[key] = max(sorted(every), key=lambda label: (there[label], rest[label]))
    return [known[key] for key in zip(names, groups, strict=True)]
