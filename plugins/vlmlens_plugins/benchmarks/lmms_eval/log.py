"""lmms-eval's logs of samples, as its versions wrote them.

* 0.1 and 0.2.0: `TASK.json`, an object with the list `logs`; the prompt is the first argument;
* 0.2.2 to 0.3: `DATE_samples_TASK.jsonl` (also `samples_TASK_DATE.jsonl`), with `doc` and `input`;
* 0.4 to 0.6: without `doc` and `arguments`, and without `resps` where these are `filtered_resps`;
* since 0.7: a single answer is a text, not a list of one.

What was scored is `filtered_resps`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vlmlens.errors import DataError, DataNotFound
from vlmlens_plugins.data._paths import existing
from vlmlens_plugins.data._table_files import Row, is_table, kind_of, read_rows

_NAME = re.compile(r"(?:.*_)?samples_(?P<task>.+?)(?:_\d{4}[-_.\dT]*)?")
_IDS = ("question_id", "questionId", "id", "index", "pid", "sample_id", "qid", "image_id")
_LIKELIHOOD = 2
_DEEPEST = 4
"""Answers are in lists of lists at most."""


@dataclass(frozen=True, slots=True)
class Logged:
    """One answer.

    Args:
        task: The task's name.
        number: `doc_id`: the row's number in the split that the task reads.
        ids: What the log says of the question's own id, the likeliest first.
        doc: The row, without its images; empty in newer versions.
        asked: The prompt; "" where it is not kept.
        target: The right answer as the task gives it.
        answer: What was scored; of several answers the first.
        answers: How many there are.
        place: For messages.
    """

    task: str
    number: int
    ids: tuple[str, ...]
    doc: Mapping[str, Any]
    asked: str
    target: str
    answer: str
    answers: int
    place: str


def log_files(source: str) -> list[Path]:
    """The log, or the logs of a folder.

    Raises:
        DataNotFound: There is none.
        DataError: Two of them are of the same task.
    """
    if not source.strip():
        raise DataNotFound(
            "lmms-eval needs a source.", subject="lmms-eval", hint="--data lmms-eval:PATH"
        )
    path = existing(source)
    if path.is_file():
        if not is_table(path) or kind_of(path) not in (".jsonl", ".json"):
            raise DataNotFound(
                f"{source!r} is no log of lmms-eval.",
                subject=source,
                hint="Give a file *_samples_*.jsonl (lmms-eval writes it with --log_samples).",
            )
        return [path]
    found = sorted(path.glob("*samples_*.jsonl"))
    if not found:
        raise DataNotFound(
            f"The folder {source!r} has no file *_samples_*.jsonl.",
            subject=source,
            hint="lmms-eval writes them with --log_samples, in a folder named for the model.",
        )
    tasks: dict[str, Path] = {}
    for each in found:
        if (known := tasks.setdefault(task_in(each), each)) != each:
            raise DataError(
                f"{known.name} and {each.name} are both logs of {task_in(each)}.",
                subject=source,
                hint="Give the file of one run.",
            )
    return found


def task_in(path: Path) -> str:
    """The task that a file's name says.

    >>> task_in(Path("20250102_030405_samples_pope_adv.jsonl"))
    'pope_adv'
    >>> task_in(Path("samples_mme_2024-09-01T12-00-00.5.jsonl")), task_in(Path("pope.json"))
    ('mme', 'pope')
    """
    stem = path.name.removesuffix(".gz").rpartition(".")[0]
    found = _NAME.fullmatch(stem)
    return found["task"] if found else stem


def logged(path: Path) -> list[Logged]:
    """The answers of a log, in its order.

    Raises:
        ManifestError: It is no JSON.
        DataError: A line has no `doc_id` or no answer, or two answers are to one question.
    """
    rows = read_rows(path, "logs" if kind_of(path) == ".json" else None).rows
    found = [_logged(task_in(path), row, f"{path}, {row.place}") for row in rows]
    seen: dict[int, Logged] = {}
    for each in found:
        if seen.setdefault(each.number, each) is not each:
            raise DataError(
                f"{each.place}: a second answer to doc_id {each.number}; the first is in "
                f"{seen[each.number].place.rpartition(', ')[2]}.",
                subject=each.place,
                hint="Logs of several runs or filters are in one file: keep one of them.",
            )
    return found


def _logged(task: str, row: Row, where: str) -> Logged:
    number = row.cells.get("doc_id")
    if isinstance(number, bool) or not isinstance(number, int):
        listed = ", ".join(row.cells)
        raise DataError(
            f"{where}: no doc_id; there are {listed or 'no fields'}.",
            subject=where,
            hint="Give a log of lmms-eval: a file *_samples_*.jsonl.",
        )
    doc = row.cells.get("doc")
    doc = doc if isinstance(doc, dict) else {}
    answers = _answers(row, where)
    target = row.cells.get("target")
    return Logged(
        task,
        number,
        tuple(_ids(row, doc)),
        doc,
        _asked(row),
        "" if target is None else str(target),
        answers[0],
        len(answers),
        where,
    )


def _answers(row: Row, where: str) -> list[str]:
    """All answers to a question, those that were scored."""
    given = row.cells.get("filtered_resps")
    given = row.cells.get("resps") if given in (None, []) else given
    texts = list(_flat(given))
    likelihood = [each for each in _pairs(given) if each[1] in ("True", "False", True, False)]
    if not texts or likelihood or not all(isinstance(text, str) for text in texts):
        raise DataError(
            f"{where}: filtered_resps is {str(given)[:60]!r}, expected a text.",
            subject=where,
            hint="Only answers that were written are read (generate_until), no log-likelihoods.",
        )
    return texts


def _flat(given: Any, depth: int = 0) -> Iterator[Any]:
    if isinstance(given, list) and depth < _DEEPEST:
        for each in given:
            yield from _flat(each, depth + 1)
    elif given is not None:
        yield given


def _pairs(given: Any, depth: int = 0) -> Iterator[Sequence[Any]]:
    """Lists of two in lists: (log-probability, whether it is the most probable)."""
    if isinstance(given, list) and depth < _DEEPEST:
        if len(given) == _LIKELIHOOD and not any(isinstance(each, list) for each in given):
            yield given
        for each in given:
            yield from _pairs(each, depth + 1)


def _ids(row: Row, doc: Mapping[str, Any]) -> Iterator[str]:
    """The ids in the row, and in what the metrics keep of it."""
    kept = (value for value in row.cells.values() if isinstance(value, dict) and value is not doc)
    seen = set()
    for known in (doc, *kept):
        for name in _IDS:
            value = known.get(name)
            if isinstance(value, str | int) and not isinstance(value, bool):
                text = str(value).strip()
                if text and text not in seen:
                    seen.add(text)
                    yield text


def _asked(row: Row) -> str:
    """The prompt: `input`, or the first text of the first request's arguments."""
    given = row.cells.get("input")
    if given is None:
        given = row.cells.get("arguments")
    while isinstance(given, list | dict) and given:
        given = next(iter(given.values())) if isinstance(given, dict) else given[0]
    return given if isinstance(given, str) else ""
