"""The rows of CDH-Bench: a pair each, with a direct question and one with options."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any, Final, NamedTuple

from vlmlens_plugins.benchmarks.cdh.parsing import CHOICE, QA
from vlmlens_plugins.benchmarks.forms import missing, text_in, wrong_form
from vlmlens_plugins.benchmarks.sources import Source
from vlmlens_plugins.data._table_files import Row

TITLE: Final = "CDH-Bench"
FILES: Final = ("benchmark.jsonl", "data/benchmark.jsonl", "CDH-Bench.jsonl")
COMMON, ODD = "commonsense", "counterfactual"
SIDES: Final = (COMMON, ODD)
_COLUMNS = ("pair_id", "category", "subcategory", "direct_qa", "multiple_choice")
FORMS: Final = {"official file": "benchmark.jsonl with " + ", ".join(_COLUMNS)}
_NAMES = ("pair_id", "category", "subcategory")
_FIELDS: Mapping[str, str] = {QA: "direct_qa", CHOICE: "multiple_choice"}
_LETTER = re.compile(r"\s*\(?([A-Za-z])[.):]")


class Asked(NamedTuple):
    """One question of a pair, and its right answer for each picture.

    Args:
        pair: "Pair 1".
        name: What the pair is about.
        category: Such as "Counting Anomalies".
        subcategory: Such as "Body Parts".
        kind: "qa" or "choice".
        question: Without options.
        options: As they are written; () of a direct question.
        labels: The right answer by side.
        place: Where it stands, for messages.
    """

    pair: str
    name: str
    category: str
    subcategory: str
    kind: str
    question: str
    options: tuple[str, ...]
    labels: Mapping[str, str]
    place: str

    @property
    def letters(self) -> tuple[str, ...]:
        """The options' letters, by their prefixes: an option may be cut in two at a comma."""
        found = (_LETTER.match(option) for option in self.options)
        return tuple(dict.fromkeys(each[1].upper() for each in found if each))


def asked_in(source: Source, given: str) -> Iterator[Asked]:
    """The questions of the file's rows, in their order.

    Raises:
        DataError: It is not the set's file.
        ManifestError: A row is broken (while the questions are taken).
    """
    if not source.has(*_COLUMNS):
        raise wrong_form(TITLE, given, source.columns, FORMS)
    return (each for row in source.rows for each in _of_row(row, source))


def _of_row(row: Row, source: Source) -> Iterator[Asked]:
    known = [text_in(row, name, source).strip() for name in _NAMES]
    if not all(known):
        raise missing(row, _NAMES[known.index("")], "text", source)
    name = row.cells.get("pair_name")
    found = 0
    for kind, field in _FIELDS.items():
        part = row.cells.get(field)
        if part in (None, {}):
            continue
        if not isinstance(part, dict):
            raise missing(row, field, "an object with question and answers", source)
        found += 1
        yield Asked(
            known[0],
            name if isinstance(name, str) else "",
            known[1],
            known[2],
            kind,
            _text(part, "question", row, source, field),
            _options(part, row, source) if kind == CHOICE else (),
            {side: _text(part, f"{side}_gt", row, source, field) for side in SIDES},
            f"{source.name}, {row.place}",
        )
    if not found:
        raise missing(row, "direct_qa", "an object with question and answers", source)


def _text(part: Mapping[str, Any], name: str, row: Row, source: Source, field: str) -> str:
    value = part.get(name)
    if isinstance(value, bool) or not isinstance(value, str | int) or not str(value).strip():
        raise missing(row, field, f"an object with the text {name}", source)
    return str(value)


def _options(part: Mapping[str, Any], row: Row, source: Source) -> tuple[str, ...]:
    options = part.get("options")
    if not isinstance(options, list) or not options:
        raise missing(row, "multiple_choice", "an object with a list of options", source)
    return tuple(str(option) for option in options)
