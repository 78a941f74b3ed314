"""The numbers of benchmark as tables."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from vlmlens.results import Cell, Table
from vlmlens_plugins.analysis._results import table
from vlmlens_plugins.analysis.benchmark.report import Scored
from vlmlens_plugins.analysis.benchmark.scores import Estimate, Score
from vlmlens_plugins.analysis.benchmark.words import known, unit_of

_LONGEST = 300
_Row = dict[str, Cell]


def tables(found: Sequence[Scored], examples: int) -> list[Table]:
    """All tables that have rows.

    Args:
        found: The sets.
        examples: How many examples a table shows of each set.
    """
    rows = {
        "scores": [row for each in found for row in _scores(each)],
        "parsers": [row for each in found for row in _parsers(each)],
        "parser-scores": [row for each in found for row in _parser_scores(each)],
        "disagreements": _filled([row for each in found for row in _disagree(each, examples)]),
        "unparsed": [row for each in found for row in _unparsed(each, examples)],
        "errors": [row for each in found for row in _errors(each, examples)],
        "references": [row for each in found for row in _references(each)],
    }
    titles = {
        "scores": "Scores with 95 % intervals, beside what guessing and blind answers gain",
        "parsers": "What each parser reads",
        "parser-scores": "The scores by each parser",
        "disagreements": "Answers that parsers read differently",
        "unparsed": "Answers that the chosen parser cannot read",
        "errors": "Wrong answers",
        "references": "Published figures, each in its own setting",
    }
    keys = {
        "scores": ("benchmark", "task", "metric"),
        "parsers": ("benchmark", "parser"),
        "parser-scores": ("benchmark", "parser", "metric"),
        "references": ("benchmark", "model", "metric", "setting"),
    }
    return [
        table(f"benchmark-{name}", titles[name], some, keys.get(name, ()))
        for name, some in rows.items()
        if some
    ]


def _scores(found: Scored) -> Iterator[_Row]:
    for score in found.scores:
        for name, each in score.metrics.items():
            constant = score.constant
            blind = None if score.blind is None else score.blind[name]
            gain = score.gain if name == score.headline else None
            yield {
                "benchmark": found.card.name,
                "task": score.task,
                "metric": name,
                "unit": unit_of(found.card, name),
                **_cells("value", each),
                "best_constant": None if constant is None else constant.text[:_LONGEST],
                "constant": None if constant is None else known(constant.scores[name]),
                **_cells("gain", gain),
                "by_object": None if score.prior is None else known(score.prior[name]),
                **_cells("blind", blind),
                "questions": len(score.samples),
                "groups": score.groups,
                "unparsed": len(score.unparsed),
                "parser": found.parser,
                "setting": found.setting,
            }


def _cells(name: str, found: Estimate | None) -> _Row:
    if found is None:
        return {name: None, f"{name}_low": None, f"{name}_high": None}
    return {
        name: known(found.value),
        f"{name}_low": known(found.low),
        f"{name}_high": known(found.high),
    }


def _parsers(found: Scored) -> Iterator[_Row]:
    for each in found.readings:
        yield {
            "benchmark": found.card.name,
            "parser": each.parser,
            "chosen": each.parser == found.parser,
            "metric": each.headline,
            "value": known(each.scores[each.headline]),
            "unparsed": each.unparsed,
            "differs": len(each.differs),
            "about": each.rule.about,
            "setting": found.answered.setting,
        }


def _parser_scores(found: Scored) -> Iterator[_Row]:
    for each in found.readings:
        for name, value in each.scores.items():
            yield {
                "benchmark": found.card.name,
                "parser": each.parser,
                "metric": name,
                "unit": unit_of(found.card, name),
                "value": known(value),
                "setting": found.answered.setting,
            }


def _disagree(found: Scored, examples: int) -> Iterator[_Row]:
    """Examples of each parser in turn, so that one that disagrees often hides no other."""
    taken: dict[int, None] = {}
    lists = [list(each.differs) for each in found.readings[1:]]
    for number in range(max(map(len, lists), default=0)):
        for rows in lists:
            if number < len(rows):
                taken.setdefault(rows[number])
        if len(taken) >= examples:
            break
    for i in list(taken)[:examples]:
        read = {each.parser: each.answers[i].said for each in found.readings}
        yield {**_sample(found.whole, i), "text": _text(found, i), **read}


def _unparsed(found: Scored, examples: int) -> Iterator[_Row]:
    for i in found.whole.unparsed[:examples]:
        yield {**_sample(found.whole, i), "text": _text(found, i)}


def _errors(found: Scored, examples: int) -> Iterator[_Row]:
    whole = found.whole
    wrong = [i for i, a in enumerate(whole.answers) if a.said is not None and a.credit < 1]
    for i in wrong[:examples]:
        read: _Row = {"parsed": whole.answers[i].said, "credit": whole.answers[i].credit}
        yield {**_sample(whole, i), "text": _text(found, i), **read}


def _sample(score: Score, i: int) -> _Row:
    sample = score.samples[i]
    return {"sample": sample.id, "task": sample.task, "label": _cut(sample.label)}


def _references(found: Scored) -> Iterator[_Row]:
    here = {
        name: each.value
        for score in found.scores
        for metric, each in score.metrics.items()
        for name in ([metric] if score is found.whole else [f"{score.task}: {metric}"])
    }
    for one in found.card.references:
        yield {
            "benchmark": found.card.name,
            "model": one.model,
            "metric": one.metric,
            "value": known(one.value),
            "here": known(here.get(one.metric)),
            "setting": one.setting,
            "source": one.source,
        }


def _filled(rows: Sequence[_Row]) -> list[_Row]:
    """Rows of sets with different parsers under the same columns."""
    columns = dict.fromkeys(name for row in rows for name in row)
    return [{name: row.get(name) for name in columns} for row in rows]


def _text(found: Scored, i: int) -> str | None:
    return _cut(found.answered.texts[i])


def _cut(text: str | None) -> str | None:
    return text if text is None or len(text) <= _LONGEST else f"{text[:_LONGEST]}..."
