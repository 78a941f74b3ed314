"""The overview puts together what analyses answer, by task and question, and knows none by name."""

from __future__ import annotations

import json

from vlmlens.report.files import to_json
from vlmlens.report.overview import overview_of
from vlmlens.results import Finding, Glance, Result, Verdict

PRISM = Result(
    analysis="prism",
    title="Prism",
    findings=[Finding("red: split.", notable=True), Finding("blue: whole.")],
    overview=[
        Glance("red", "is split at", "block 2", Verdict.ENCODED, 0.9, "chance 0.50", (0.5, 0.9)),
        Glance("blue", "is split at", "nowhere", Verdict.NOT_ENCODED),
    ],
)
MIRROR = Result(
    analysis="mirror",
    title="Mirror",
    overview=[Glance("red", "is mirrored", "yes"), Glance("green", "is mirrored", "no")],
)


def test_a_row_per_task_and_columns_per_question() -> None:
    made = overview_of([PRISM, MIRROR])
    (table,) = made.tables
    assert table.columns["task"] == ["red", "blue", "green"]
    assert table.columns["is split at"] == ["block 2", "nowhere", None]
    assert table.columns["is split at (value)"] == [0.9, None, None]
    assert table.columns["is split at (verdict)"] == ["encoded", "not encoded", None]
    assert table.columns["is mirrored"] == ["yes", None, "no"]


def test_only_what_is_notable_is_repeated() -> None:
    assert [found.text for found in overview_of([PRISM, MIRROR]).findings] == ["red: split."]


def test_one_notable_finding_per_subject() -> None:
    found = [Finding(f"{name}: split.", subject=name, notable=True) for name in "aab"]
    made = overview_of([Result("one", "One", found[:1]), Result("two", "Two", found[1:])])
    assert [finding.subject for finding in made.findings] == ["a", "b"]


def test_nothing_to_say_is_no_table() -> None:
    assert not overview_of([Result("bare", "Bare")]).tables


def test_it_comes_back_from_json() -> None:
    made = overview_of([PRISM, MIRROR])
    back = Result.from_dict(json.loads(to_json(made)))
    assert list(back.overview) == list(made.overview)
    assert back.findings == made.findings
