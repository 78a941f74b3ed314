"""Answers from elsewhere: a file of ids and texts, joined to the questions by id."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Any

from vlmlens._display import count
from vlmlens._files import expanded
from vlmlens.errors import DataError, DataNotFound, did_you_mean
from vlmlens.samples import Sample
from vlmlens_plugins.data._table_files import Row, is_table, read_rows

ANSWER = "answer"
"""The attribute with the text that was answered elsewhere."""

_IDS = ("id", "sample", "question_id", "image_id", "index")
_TEXTS = ("text", "answer", "prediction", "response", "output", "caption")
_FORMS = (
    'Give a table (JSON lines, JSON, CSV, TSV or Parquet) with a row for each question: {"id": '
    '"popular/1", "text": "Yes, there is."}. The ids are those of the samples, which the file '
    "samples.jsonl of a run lists."
)


class OwnAnswers:
    """The answers of a file, handed to the samples that they are for.

    Answers are never joined by their order: one line too few would shift all that follow.

    Args:
        path: The file.

    Raises:
        DataNotFound: There is no such file.
        DataError: It is no table, it has no column of ids or texts, or an id occurs twice.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        self._texts = _texts(path)
        self._lacking: list[str] = []
        self._used: set[str] = set()

    def joined(self, samples: Iterable[Sample]) -> Iterator[Sample]:
        """The samples with their answers as the attribute `answer`.

        Raises:
            DataError: At the end, if a sample has no answer, or an answer no sample.
        """
        for sample in samples:
            text = self._texts.get(sample.id)
            if text is None:
                self._lacking.append(sample.id)
                yield sample
                continue
            self._used.add(sample.id)
            yield replace(sample, attributes={**sample.attributes, ANSWER: text})
        self._check()

    @property
    def note(self) -> str:
        """What was done, in a sentence."""
        return f"{count(len(self._used), 'answer')} of {self.path} are joined by id"

    def _check(self) -> None:
        strange = [name for name in self._texts if name not in self._used]
        if not self._lacking and not strange:
            return
        said = []
        if self._lacking:
            said.append(
                f"{count(len(self._lacking), 'question')} without an answer (the first: "
                f"{self._lacking[0]!r})"
            )
        if strange:
            said.append(
                f"{count(len(strange), 'answer')} to unknown ids (the first: {strange[0]!r})"
            )
        near = did_you_mean(strange[0], self._lacking) if strange and self._lacking else ""
        raise DataError(
            f"The answers in {self.path!r} and the questions do not match: {' and '.join(said)}.",
            subject=(strange or self._lacking)[0],
            hint=f"{near} {_FORMS}".strip(),
        )


def _texts(path: str) -> dict[str, str]:
    """The answers by id."""
    file = expanded(path)
    if not file.is_file():
        raise DataNotFound(f"There is no file of answers {path!r}.", subject=path, hint=_FORMS)
    if not is_table(file):
        raise DataError(f"The answers {path!r} are in no table.", subject=path, hint=_FORMS)
    rows = read_rows(file)
    name, text = (
        _column(_IDS, rows.columns, path, "ids"),
        _column(_TEXTS, rows.columns, path, "texts"),
    )
    found: dict[str, str] = {}
    for row in rows.rows:
        one = _cell(row, name, path)
        if not one or one in found:
            what = "is given twice" if one else "is empty"
            raise DataError(
                f"{path}, {row.place}: the id {one!r} {what}.", subject=one, hint=_FORMS
            )
        found[one] = _cell(row, text, path)
    return found


def _column(known: Sequence[str], columns: Sequence[str], path: str, what: str) -> str:
    for name in known:
        if name in columns:
            return name
    raise DataError(
        f"The answers {path!r} have no column of {what}: expected one of {', '.join(known)}, found "
        f"{', '.join(columns) or 'none'}.",
        subject=path,
        hint=_FORMS,
    )


def _cell(row: Row, column: str, path: str) -> str:
    value: Any = row.cells.get(column)
    if isinstance(value, str):
        return value
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    if isinstance(value, float) and math.isfinite(value):
        return str(int(value)) if value.is_integer() else str(value)
    raise DataError(
        f"{path}, {row.place}: expected text in the column {column!r}, got {str(value)[:60]!r}.",
        subject=column,
        hint="An empty answer is the empty text. " + _FORMS,
    )
