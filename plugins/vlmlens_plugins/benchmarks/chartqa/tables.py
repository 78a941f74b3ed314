"""ChartQA in tables: the hub's columns of two owners, and VLMEvalKit's table."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Final

from vlmlens_plugins.benchmarks.chartqa.asked import AUGMENTED, HUMAN, Asked
from vlmlens_plugins.benchmarks.forms import HeldImages, missing, text_in, wrong_form
from vlmlens_plugins.benchmarks.sources import Source
from vlmlens_plugins.data._embedded import Stored
from vlmlens_plugins.data._table_files import Row

TITLE: Final = "ChartQA"
FILES: Final = ("ChartQA_TEST.tsv",)
_M4 = ("image", "query", "label", "human_or_machine")
_LMMS = ("type", "question", "answer", "image")
_TSV = ("index", "question", "answer", "image", "split")
FORMS: Final = {
    "official files": "test/ with test_human.json, test_augmented.json, png/ and tables/",
    "hub columns of HuggingFaceM4": ", ".join(_M4),
    "hub columns of lmms-lab": ", ".join(_LMMS),
    "VLMEvalKit table": "ChartQA_TEST.tsv with " + ", ".join(_TSV),
}
_MACHINE = {"0": HUMAN, "1": AUGMENTED, "human": HUMAN, "machine": AUGMENTED}

_Made = Callable[[Row, Source], Asked]


def form_of(source: Source, given: str) -> tuple[str, Iterator[Asked]]:
    """Which form a table has, and its questions.

    Raises:
        DataError: None of them.
        ManifestError: A row is broken (while the questions are taken).
    """
    if source.has(*_M4):
        return "hub columns of HuggingFaceM4", _read(source, _m4)
    if source.has(*_LMMS):
        return "hub columns of lmms-lab", _read(source, _lmms)
    if source.has(*_TSV):
        held = HeldImages(source)
        return "VLMEvalKit table", _read(source, lambda row, where: _tsv(row, where, held))
    raise wrong_form(TITLE, given, source.columns, FORMS)


def _read(source: Source, made: _Made) -> Iterator[Asked]:
    for row in source.rows:
        asked = made(row, source)
        if not isinstance(asked.image, Stored):
            raise missing(row, "image", "an embedded image", source)
        yield asked


def _m4(row: Row, source: Source) -> Asked:
    part = _MACHINE.get(str(row.cells.get("human_or_machine")).strip().lower())
    if part is None:
        raise missing(row, "human_or_machine", "0 (human) or 1 (machine)", source)
    label = row.cells.get("label")
    if isinstance(label, list) and label and all(isinstance(each, str) for each in label):
        label = label[0] if len(label) == 1 else json.dumps(label, ensure_ascii=False)
    if not isinstance(label, str) or not label:
        raise missing(row, "label", "a list of answers", source)
    return _asked(row, source, part, "query", label)


def _lmms(row: Row, source: Source) -> Asked:
    part = _part(row, "type", source)
    return _asked(row, source, part, "question", text_in(row, "answer", source))


def _tsv(row: Row, source: Source, held: HeldImages) -> Asked:
    part = _part(row, "split", source)
    asked = _asked(row, source, part, "question", text_in(row, "answer", source))
    return asked._replace(image=held.cell(row), own=text_in(row, "index", source))


def _part(row: Row, column: str, source: Source) -> str:
    said = str(row.cells.get(column)).lower()
    if HUMAN in said:
        return HUMAN
    if AUGMENTED in said or "machine" in said:
        return AUGMENTED
    raise missing(row, column, "human or augmented", source)


def _asked(row: Row, source: Source, part: str, question: str, label: str) -> Asked:
    where = f"{source.name}, {row.place}"
    asked = text_in(row, question, source)
    return Asked(part, asked, label, row.cells.get("image"), "", "", where)
