"""All rules of a set on the same answers: their scores, and where they disagree."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from vlmlens.errors import MissingDependency
from vlmlens_plugins.analysis.benchmark.asking import Answered
from vlmlens_plugins.analysis.benchmark.scores import headline_of
from vlmlens_plugins.benchmarks.card import Answer, Rule
from vlmlens_plugins.benchmarks.scoring import answered, scored


@dataclass(frozen=True)
class Reading:
    """What one rule makes of all answers.

    Args:
        parser: The rule's name.
        rule: The rule.
        answers: What it reads, per sample.
        scores: Its metrics over all samples.
        headline: The metric that counts.
        differs: The numbers of the samples that it reads otherwise than the chosen rule.
    """

    parser: str
    rule: Rule
    answers: Sequence[Answer]
    scores: Mapping[str, float]
    headline: str
    differs: Sequence[int]

    @property
    def unparsed(self) -> int:
        """How many answers it does not read."""
        return sum(answer.said is None for answer in self.answers)


def readings(found: Answered, parser: str) -> tuple[list[Reading], list[str]]:
    """What each rule of the set reads, the chosen one first; and why others cannot read.

    Args:
        found: The answers.
        parser: The chosen rule.

    Raises:
        MissingDependency: The chosen rule needs what is not installed.
    """
    card, samples = found.asked.card, found.asked.samples
    card.rules[parser].check(samples)
    names, left_out = [parser], []
    for name in card.rules:
        if name != parser:
            try:
                card.rules[name].check(samples)
            except MissingDependency as error:
                left_out.append(f"Not read by the parser {name}: {error.message} {error.hint}")
            else:
                names.append(name)
    read = {name: answered(found.texts, samples, card.rules[name]) for name in names}
    made = []
    for name in names:
        rule = card.rules[name]
        values = scored(rule.metrics or card.metrics, samples, read[name])
        pairs = zip(read[name], read[parser], strict=True)
        differs = [i for i, (own, chosen) in enumerate(pairs) if not _same(own, chosen)]
        headline = headline_of(card, list(values))
        made.append(Reading(name, rule, read[name], values, headline, differs))
    return made, left_out


def _same(one: Answer, other: Answer) -> bool:
    """Whether two rules read the same, in whatever case."""
    if one.said is None or other.said is None:
        return one.said is other.said
    return one.said.casefold() == other.said.casefold()
