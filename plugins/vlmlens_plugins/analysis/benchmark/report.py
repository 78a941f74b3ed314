"""What benchmark says: findings, the overview, notes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from vlmlens._display import count
from vlmlens.results import Cell, Figure, Finding, Glance, Series, Verdict
from vlmlens_plugins.analysis._results import slug
from vlmlens_plugins.analysis._tasks import ALL
from vlmlens_plugins.analysis.benchmark.asking import Answered
from vlmlens_plugins.analysis.benchmark.parsers import Reading
from vlmlens_plugins.analysis.benchmark.scores import Score
from vlmlens_plugins.analysis.benchmark.words import (
    beside,
    interval,
    known,
    number,
    quoted,
    sentence,
    unit_of,
)
from vlmlens_plugins.benchmarks.card import Card

_REFERENCES = 3


@dataclass(frozen=True)
class Scored:
    """Everything that is known of one set.

    Args:
        answered: The set with its answers.
        parser: The chosen rule.
        scores: Of the set, then of its tasks.
        readings: What all rules read, the chosen one first.
        left_out: Which rules cannot read, and why.
        alone: Whether the run has no other set.
    """

    answered: Answered
    parser: str
    scores: Sequence[Score]
    readings: Sequence[Reading]
    left_out: Sequence[str] = ()
    alone: bool = True

    @property
    def card(self) -> Card:
        """The set's card."""
        return self.answered.asked.card

    @property
    def whole(self) -> Score:
        """The score of the whole set."""
        return self.scores[0]

    @property
    def setting(self) -> str:
        """Everything that the score depends on beside the model, in one line."""
        return f"{self.answered.setting}; parser {self.parser!r}"

    def subject(self, score: Score) -> str:
        """What a score is of: a task, or the set where it has several, or the run has others."""
        if score.task == ALL:
            return self.card.title if len(self.scores) > 1 or not self.alone else ALL
        return score.task if self.alone else f"{self.card.title}, {score.task}"

    def against(self, score: Score) -> dict[str, float | None]:
        """The headline of what a score is to be held against, by its name."""
        name = score.headline
        said: dict[str, float | None] = {}
        if score.constant is not None:
            said[f"always {quoted(score.constant.text, 40)}"] = score.constant.scores[name]
        if score.prior is not None:
            said["by the object's name"] = score.prior[name]
        if score.blind is not None:
            said[f"blind ({self.answered.blank})"] = score.blind[name].value
        return said


def findings(found: Scored) -> list[Finding]:
    """The score first, with its setting; then the parsers, tasks, and what was published."""
    first, *tasks = [_finding(found, score) for score in found.scores]
    return [first, *_parsers(found), *tasks, *_published(found)]


def _finding(found: Scored, score: Score) -> Finding:
    card, metric, best = found.card, score.headline, score.best
    ends = interval(card, metric, best)
    said = f" (95 % interval {ends})" if ends else ""
    where = card.title if score.task == ALL else f"{card.title}, {score.task}"
    text = (
        f"{where}: {metric} {number(card, metric, best.value)}{said}, "
        f"{count(len(score.samples), 'question')} in {count(score.groups, 'group')}"
    )
    if others := beside(card, metric, found.against(score)):
        text += f"; {others}"
    if score.task == ALL:
        text += f" [{found.setting}]"
    return Finding(
        sentence(text),
        verdict(score),
        subject=found.subject(score),
        values=_values(found, score),
        notable=score.task == ALL,
    )


def _values(found: Scored, score: Score) -> dict[str, Cell]:
    values: dict[str, Cell] = {"questions": len(score.samples), "groups": score.groups}
    for name, each in score.metrics.items():
        values |= {name: known(each.value), f"{name}_low": known(each.low)}
        values[f"{name}_high"] = known(each.high)
    values |= {name: known(value) for name, value in found.against(score).items()}
    if score.gain is not None:
        values |= {"gain": known(score.gain.value), "gain_low": known(score.gain.low)}
        values["gain_high"] = known(score.gain.high)
    return values | {"unparsed": len(score.unparsed), "parser": found.parser}


def verdict(score: Score) -> Verdict:
    """Whether the score differs from that of the best constant answer."""
    if score.gain is None or not math.isfinite(score.gain.low):
        return Verdict.INFO
    return Verdict.DIFFERS if score.surely else Verdict.INCONCLUSIVE


def _parsers(found: Scored) -> list[Finding]:
    """Where rules disagree, and what that does to the score."""
    chosen, *others = found.readings
    differing = sorted({i for each in others for i in each.differs})
    if not others:
        return []
    said = ", ".join(
        f"{each.parser} {'' if each.headline == chosen.headline else f'{each.headline} '}"
        f"{number(found.card, each.headline, each.scores[each.headline])} "
        f"({len(each.differs)} read otherwise, {each.unparsed} unparsed)"
        for each in others
    )
    own = number(found.card, chosen.headline, chosen.scores[chosen.headline])
    text = (
        f"{found.card.title}: parsers disagree on {len(differing)} of {len(chosen.answers)} "
        f"answers; {chosen.headline} by {chosen.parser} {own} ({chosen.unparsed} unparsed), "
        f"by {said}"
    )
    if differing:
        i = differing[0]
        read = ", ".join(f"{each.parser}: {each.answers[i].said}" for each in found.readings)
        text += f". For example {quoted(found.answered.texts[i], 80)} ({read})"
    return [
        Finding(
            sentence(text),
            subject=found.card.title,
            values={"disagreements": len(differing), "unparsed": chosen.unparsed},
            samples=[found.whole.samples[i].id for i in differing[:_REFERENCES]],
        )
    ]


def _published(found: Scored) -> list[Finding]:
    references = found.card.references
    if not references:
        return []
    said = "; ".join(
        f"{one.model} {one.metric} {one.value:g} ({one.setting}; {one.source})"
        for one in references[:_REFERENCES]
    )
    rest = len(references) - _REFERENCES
    more = f"; {count(rest, 'more figure')} in the table" if rest > 0 else ""
    return [
        Finding(
            sentence(f"{found.card.title}, published, in their own settings: {said}{more}"),
            subject=found.card.title,
        )
    ]


def overview(found: Scored) -> list[Glance]:
    """The headline of the set and of each task."""
    made = []
    for score in found.scores:
        value = score.best.value
        percent = unit_of(found.card, score.headline) == "percent"
        ends = interval(found.card, score.headline, score.best)
        made.append(
            Glance(
                subject=found.subject(score),
                question="scores",
                text=f"{score.headline}{f' ({ends})' if ends else ''} by {found.parser}",
                verdict=verdict(score),
                value=known(value / 100 if percent else value),
                beside=beside(found.card, score.headline, found.against(score)),
            )
        )
    return made


def figures(found: Scored) -> list[Figure]:
    """The headline by task, beside what guessing gains; the setting is its title."""
    scores = [score for score in found.scores if score.headline == found.scores[-1].headline]
    if not any(math.isfinite(score.best.value) for score in scores):
        return []
    metric = scores[0].headline
    series = [
        Series(
            "score",
            [known(score.best.value) for score in scores],
            [known(score.best.low) for score in scores],
            [known(score.best.high) for score in scores],
        )
    ]
    series += [
        Series(name, values, dashed=True)
        for name, values in _references_of(found, scores, metric).items()
        if any(value is not None for value in values)
    ]
    return [
        Figure(
            f"benchmark-{slug(found.card.name)}",
            f"{found.card.title}: {metric} [{found.setting}]",
            "bar",
            x=[found.subject(score) for score in scores],
            x_label="task",
            y_label=f"{metric} ({unit_of(found.card, metric)})",
            series=series,
        )
    ]


def _references_of(
    found: Scored, scores: Sequence[Score], metric: str
) -> dict[str, list[float | None]]:
    """By name, what each score is to be held against; None where it has none."""
    return {
        "best constant answer": [
            known(each.constant.scores[metric]) if each.constant else None for each in scores
        ],
        "by the object's name": [
            known(each.prior[metric]) if each.prior else None for each in scores
        ],
        f"blind ({found.answered.blank})": [
            known(each.blind[metric].value) if each.blind else None for each in scores
        ],
    }


def notes(found: Scored, draws: int) -> list[str]:
    """How the numbers were made, and what is known of the set."""
    card, way = found.card, found.answered.way
    blind = {
        "given": "There is no blind score: the answers are from elsewhere, and no model was asked.",
        "write": "",
        "choose": "",
    }[way]
    if way != "given" and found.answered.blind is None:
        blind = "There is no blind score, since blank=skip."
    prior = (
        ""
        if found.whole.prior is not None
        else "Guessing from the object's name is not scored: samples have no attribute `object`."
    )
    texts = [
        f"{card.title} ({card.paper}); licence: {card.licence}",
        f"Setting: {found.setting}",
        f"Intervals are 95 % percentile intervals of {draws} resamples of groups; in a group are "
        f"the questions of {card.groups}. Whether a score is above the best constant answer is "
        "told by the difference on the same resamples, over all tasks together",
        "No parser guesses: an answer that it does not read is unparsed, and wrong",
        blind,
        prior,
        *found.left_out,
        *card.shortcuts,
        *card.faults,
    ]
    return [sentence(text) for text in texts if text.strip()]
