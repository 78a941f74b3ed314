"""What must be known before a score is trusted."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from vlmlens._display import count
from vlmlens_plugins.analysis.benchmark.report import Scored
from vlmlens_plugins.analysis.benchmark.scores import Score
from vlmlens_plugins.analysis.benchmark.words import beside, number, quoted

_UNPARSED = 0.02
_FEW_GROUPS = 10
_EXAMPLES = 3
_NAMED = 5


def warnings(found: Scored) -> list[str]:
    """Sentences, the most important first; none if nothing is wrong."""
    return [
        *_subset(found),
        *_same_answers(found),
        *_undefined(found),
        *_unparsed(found),
        *_guessing(found),
        *_few(found),
    ]


def _subset(found: Scored) -> Iterator[str]:
    asked = found.answered.asked
    if asked.has_own_prompts:
        yield (
            f"{found.card.title}: --prompt replaces its questions, so its published figures are "
            "about something else."
        )
    elif asked.questions is not None and len(asked.samples) < asked.questions:
        yield (
            f"{found.card.title}: this is the score of {len(asked.samples):,} of its "
            f"{asked.questions:,} questions, not of the set."
        )


def _same_answers(found: Scored) -> Iterator[str]:
    title, texts = found.card.title, found.answered.texts
    if len(texts) < 2:
        return
    if len({text.strip() for text in texts}) == 1:
        yield f"{title}: all {len(texts):,} answers are the same text, {quoted(texts[0], 80)}."
        return
    said = {answer.said for answer in found.whole.answers} - {None}
    if len(said) == 1 and len(found.whole.unparsed) < len(texts):
        only = str(next(iter(said)))
        yield (
            f"{title}: every answer that can be read is {quoted(only, 80)}."
            if only
            else f"{title}: the parser finds nothing that counts in any of the answers."
        )
        return
    constant = [
        score.task
        for score in found.scores[1:]
        if len(score.answers) > 1 and len({answer.said for answer in score.answers}) == 1
    ]
    if constant:
        yield f"{title}: one and the same answer to every question of {_listed(constant)}."


def _undefined(found: Scored) -> Iterator[str]:
    if not math.isfinite(found.whole.best.value):
        yield (
            f"{found.card.title}: {found.whole.headline} is not defined for these questions and "
            "answers. See the other metrics (the table benchmark-scores), or take the whole set."
        )


def _unparsed(found: Scored) -> Iterator[str]:
    rows, texts = found.whole.unparsed, found.answered.texts
    if len(rows) <= _UNPARSED * len(texts):
        return
    distinct = dict.fromkeys(texts[i] for i in rows)
    some = ", ".join(quoted(text, 60) for text in list(distinct)[:_EXAMPLES])
    share = len(rows) / len(texts)
    yield (
        f"{found.card.title}: {len(rows):,} of {len(texts):,} answers ({share:.1%}) cannot be read "
        f"by the parser {found.parser!r} and count as wrong, for example {some}."
    )


def _guessing(found: Scored) -> Iterator[str]:
    lost = [score for score in found.scores if score.gain is not None and not score.surely]
    if not lost:
        return
    first = lost[0]
    what = first.constant.text if first.constant else ""
    yield (
        f"{found.card.title}: the score is not surely above the best constant answer"
        f"{_of(found, lost)}: {first.headline} "
        f"{number(found.card, first.headline, first.best.value)}, always {quoted(what, 40)} "
        f"{_constant(found, first)}."
    )


def _of(found: Scored, lost: Sequence[Score]) -> str:
    if len(found.scores) == 1:
        return ""
    return f" in {_listed([found.subject(score) for score in lost])}"


def _constant(found: Scored, score: Score) -> str:
    if score.constant is None:
        return ""
    return beside(found.card, score.headline, {"": score.constant.scores[score.headline]}).strip()


def _few(found: Scored) -> Iterator[str]:
    groups = found.whole.groups
    if groups < _FEW_GROUPS:
        yield (
            f"{found.card.title}: {count(len(found.whole.samples), 'question')} in "
            f"{count(groups, 'group')}: too few for an interval."
        )


def _listed(names: Sequence[str]) -> str:
    shown = ", ".join(names[:_NAMED])
    return f"{shown} and {len(names) - _NAMED} more" if len(names) > _NAMED else shown
