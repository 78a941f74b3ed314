"""What is asked of the model, read from what the page's script sends."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from vlmlens.covers import Cover
from vlmlens.errors import DataError

MOST_BYTES = 64 * 1024
"""Of a question, as JSON."""

_MOST_TEXT = 8000
_MOST_LINE = 500
_MOST = {"choices": 64, "covers": 1024, "edits": 20}
_EDGES = 4
_DEEPEST = 8
_LARGEST = 10**9


@dataclass(frozen=True)
class LiveQuestion:
    """A question to the model.

    Args:
        text: The question.
        sample: The run and the sample (numbers from 0) whose pictures are shown; None: `upload`.
        upload: The name of an uploaded picture; None without one.
        choices: The answers to choose from; empty: the model writes.
        covers: Parts of the (first) picture that are covered in the changed run.
        edits: Edits of the changed run, as on the command line: `llm.block.3/image = zero`.
    """

    text: str
    sample: tuple[int, int] | None = None
    upload: str | None = None
    choices: tuple[str, ...] = ()
    covers: tuple[Cover, ...] = ()
    edits: tuple[str, ...] = ()

    @property
    def is_changed(self) -> bool:
        """Whether there is a changed run beside the plain one."""
        return bool(self.covers or self.edits)


@dataclass(frozen=True)
class Asked:
    """What a request asks for.

    Args:
        kind: Which view, see `routes`.
        question: The question; None for kinds without one.
    """

    kind: str
    question: LiveQuestion | None


def read_asked(body: bytes) -> Asked:
    """What a request's body asks for.

    Raises:
        DataError: It is no JSON of that form.
    """
    given = _object(_decoded(body), "the request", ("kind", "question"))
    kind = _text(given.get("kind"), "kind", 40)
    question = given.get("question")
    return Asked(kind, None if question is None else read_question(question))


def read_question(given: Any) -> LiveQuestion:
    """A question from JSON.

    Raises:
        DataError: It has another form.
    """
    names = ("text", "sample", "upload", "choices", "covers", "edits")
    values = _object(given, "question", names)
    upload = values.get("upload")
    question = LiveQuestion(
        text=_text(values.get("text"), "text", _MOST_TEXT),
        sample=_sample(values.get("sample")),
        upload=None if upload is None else _text(upload, "upload", 80),
        choices=_texts(values, "choices"),
        covers=tuple(_cover(each) for each in _list(values, "covers")),
        edits=_texts(values, "edits"),
    )
    if question.sample is not None and question.upload is not None:
        raise _wrong("question", "has a sample and an upload", "one of the two")
    return question


def _decoded(body: bytes) -> Any:
    try:
        found = json.loads(body, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise _wrong("the request", "is no JSON", "a JSON object in UTF-8") from error
    _check_depth(found, _DEEPEST)
    return found


def _no_constant(name: str) -> float:
    raise ValueError(name)


def _check_depth(value: Any, left: int) -> None:
    if not isinstance(value, dict | list):
        return
    if left == 0:
        raise _wrong("the request", "is nested too deeply", f"at most {_DEEPEST} levels")
    for each in value.values() if isinstance(value, dict) else value:
        _check_depth(each, left - 1)


def _object(given: Any, what: str, names: tuple[str, ...]) -> Mapping[str, Any]:
    if not isinstance(given, dict):
        raise _wrong(what, f"is {_kind(given)}", f"an object with {', '.join(names)}")
    if unknown := sorted(given.keys() - set(names)):
        raise _wrong(what, f"has an unknown key {_brief(unknown[0])}", ", ".join(names))
    return given


def _text(given: Any, what: str, most: int) -> str:
    if not isinstance(given, str):
        raise _wrong(what, f"is {_kind(given)}", "text")
    if len(given) > most:
        raise _wrong(what, f"has {len(given):,} characters", f"at most {most:,}")
    try:
        given.encode()
    except UnicodeEncodeError as error:
        raise _wrong(what, "holds half of a character (a lone surrogate)", "text") from error
    if "\0" in given:
        raise _wrong(what, "holds a NUL character", "text")
    return given


def _list(values: Mapping[str, Any], name: str) -> list[Any]:
    found = values.get(name)
    if found is None:
        return []
    if not isinstance(found, list):
        raise _wrong(name, f"is {_kind(found)}", "a list")
    if len(found) > _MOST[name]:
        raise _wrong(name, f"has {len(found):,} entries", f"at most {_MOST[name]:,}")
    return found


def _texts(values: Mapping[str, Any], name: str) -> tuple[str, ...]:
    return tuple(_text(each, name, _MOST_LINE) for each in _list(values, name))


def _sample(given: Any) -> tuple[int, int] | None:
    if given is None:
        return None
    if not isinstance(given, list) or len(given) != 2 or not all(map(_is_number, given)):
        raise _wrong("sample", f"is {_brief(given)}", "[run, number], both from 0")
    return given[0], given[1]


def _is_number(given: Any) -> bool:
    return isinstance(given, int) and not isinstance(given, bool) and 0 <= given < _LARGEST


def _cover(given: Any) -> Cover:
    is_four = isinstance(given, list) and len(given) == _EDGES
    if not is_four or not all(map(_is_fraction, given)):
        raise _wrong("covers", f"has {_brief(given)}", "[left, top, right, bottom] from 0 to 1")
    return Cover.of(given)


def _is_fraction(given: Any) -> bool:
    return isinstance(given, int | float) and not isinstance(given, bool) and 0 <= given <= 1


def _kind(given: Any) -> str:
    names = {"NoneType": "missing", "dict": "an object", "list": "a list", "str": "text"}
    name = type(given).__name__
    return names.get(name, "true or false" if name == "bool" else "a number")


def _brief(given: Any) -> str:
    shown = ascii(given)
    return shown if len(shown) <= 60 else f"{shown[:60]}..."


def _wrong(what: str, found: str, expected: str) -> DataError:
    name = what if what == "the request" else repr(what)
    message = f"{name} {found}."
    return DataError(message[0].upper() + message[1:], subject=what, hint=f"Expected: {expected}.")
