"""CLEVR's questions: their types, from the last step of their programs, and the 28 answers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from sys import intern
from typing import Any, Final, NamedTuple

from vlmlens.errors import ManifestError
from vlmlens_plugins.benchmarks.clevr.files import items_in
from vlmlens_plugins.data._question_sets import CLEVR_VALUES

_YES_NO: Final = ("yes", "no")
_COUNTS: Final = tuple(str(number) for number in range(11))
VALUES: Final[Mapping[str, tuple[str, ...]]] = {
    "size": ("large", "small"),
    **{name: CLEVR_VALUES[name] for name in ("color", "material", "shape")},
}
"""The values of each attribute."""
_CLOSED: Final = (_YES_NO, _COUNTS, *VALUES.values())
ANSWERS: Final = tuple(answer for answers in _CLOSED for answer in answers)
"""The 28 answers."""
_TYPES: Final[Mapping[str, str]] = {
    "exist": "exist",
    "count": "count",
    "equal_integer": "compare_integer",
    "less_than": "compare_integer",
    "greater_than": "compare_integer",
    **{f"query_{name}": "query_attribute" for name in VALUES},
    **{f"equal_{name}": "compare_attribute" for name in VALUES},
}
"""The five types of the paper, by the last function of a program."""


class Asked(NamedTuple):
    """One question.

    Args:
        key: Its `question_index`, else its number from 0.
        question: The question.
        answer: None where the split has no answers.
        function: The last one of its program; "" where there is none.
        image: The picture's file name.
        place: Where it stands, for messages.
    """

    key: str
    question: str
    answer: str | None
    function: str
    image: str
    place: str

    @property
    def task(self) -> str | None:
        """The type; None where the program is not known."""
        return _TYPES[self.function] if self.function else None

    @property
    def choices(self) -> tuple[str, ...]:
        """The possible answers, by the program or by the answer; () if neither is known."""
        if self.function == "count":
            return _COUNTS
        if self.function.startswith("query_"):
            return VALUES[self.function.removeprefix("query_")]
        if self.function:
            return _YES_NO
        return next((known for known in _CLOSED if self.answer in known), ())


def asked_in(path: Path) -> Iterator[Asked]:
    """The questions of a file.

    Raises:
        ManifestError: The file is broken; names the question.
    """
    for number, item in enumerate(items_in(path, "questions")):
        where = f"{path}, item {number + 1}"
        answer = item.get("answer")
        if isinstance(answer, int) and not isinstance(answer, bool):
            answer = str(answer)
        if answer is not None and answer not in ANSWERS:
            raise _wrong(where, "answer", answer, f"one of CLEVR's {len(ANSWERS)} answers")
        yield Asked(
            str(item.get("question_index", number)),
            _text(item, "question", where),
            intern(answer) if answer is not None else None,
            intern(_function(item.get("program"), where)),
            intern(_text(item, "image_filename", where)),
            where,
        )


def _function(program: Any, where: str) -> str:
    """The last step: the set writes `function`, its generator `type`."""
    if not program:
        return ""
    last = program[-1] if isinstance(program, list) else None
    name = last.get("function") or last.get("type") if isinstance(last, dict) else None
    if name not in _TYPES:
        raise _wrong(where, "program", program, f"steps that end in {', '.join(_TYPES)}")
    return str(name)


def _text(item: Mapping[str, Any], name: str, where: str) -> str:
    value = item.get(name)
    if not isinstance(value, str) or not value.strip():
        raise _wrong(where, name, value, "text")
    return value


def _wrong(where: str, name: str, value: Any, expected: str) -> ManifestError:
    return ManifestError(
        f"{where}: {name} is {str(value)[:60]!r}, where {expected} is expected.",
        subject=where,
        hint="Take the file as the set's authors give it.",
    )
