"""Questions from the browser: what is read, and what is refused with which words."""

from __future__ import annotations

import json
from typing import Any

import pytest

from vlmlens.covers import Cover
from vlmlens.errors import DataError
from vlmlens.view.live.question import read_asked


def asked(question: Any, kind: Any = "answer") -> Any:
    return read_asked(json.dumps({"kind": kind, "question": question}).encode())


def test_a_whole_question() -> None:
    found = asked(
        {
            "text": "Colour?",
            "sample": [0, 3],
            "choices": ["red", "blue"],
            "covers": [[0, 0.5, 1, 1]],
            "edits": ["llm.block.1/last = zero"],
        }
    )
    question = found.question
    assert (found.kind, question.text, question.sample) == ("answer", "Colour?", (0, 3))
    assert question.choices == ("red", "blue")
    assert question.covers == (Cover(0, 0.5, 1, 1),)
    assert question.edits == ("llm.block.1/last = zero",)
    assert question.is_changed
    assert not asked({"text": "Colour?", "upload": "x"}).question.is_changed


def test_a_job_without_a_question() -> None:
    assert read_asked(b'{"kind": "directions"}').question is None


@pytest.mark.parametrize(
    ("question", "said"),
    [
        ({"text": 3}, "'text' is a number"),
        ({}, "'text' is missing"),
        ([], "'question' is a list"),
        ({"text": "?", "path": "/etc/passwd"}, "unknown key 'path'"),
        ({"text": "?" * 9000}, "9,000 characters"),
        ({"text": "\ud800"}, "surrogate"),
        ({"text": "a\0b"}, "NUL"),
        ({"text": "?", "sample": [0]}, "'sample' is"),
        ({"text": "?", "sample": [True, 0]}, "'sample' is"),
        ({"text": "?", "sample": [-1, 0]}, "'sample' is"),
        ({"text": "?", "sample": [0, 10**30]}, "'sample' is"),
        ({"text": "?", "sample": [0.5, 0]}, "'sample' is"),
        ({"text": "?", "sample": "0,1"}, "'sample' is"),
        ({"text": "?", "sample": [0, 1], "upload": "x"}, "a sample and an upload"),
        ({"text": "?", "choices": "red,blue"}, "'choices' is text"),
        ({"text": "?", "choices": ["a"] * 65}, "65 entries"),
        ({"text": "?", "choices": [None, "a"]}, "'choices' is missing"),
        ({"text": "?", "covers": [[0, 0, 1]]}, "'covers' has"),
        ({"text": "?", "covers": [[0, 0, 1, "1"]]}, "'covers' has"),
        ({"text": "?", "covers": [[0, 0, 1, True]]}, "'covers' has"),
        ({"text": "?", "covers": [[0, 0, 1, 10**400]]}, "'covers' has"),
        ({"text": "?", "covers": [5]}, "'covers' has 5"),
        ({"text": "?", "covers": [None]}, "'covers' has None"),
        ({"text": "?", "covers": [[0.5, 0, 0.5, 1]]}, "encloses nothing"),
        ({"text": "?", "covers": [[0, 0, 1, 1]] * 1025}, "1,025 entries"),
        ({"text": "?", "edits": ["x" * 501]}, "501 characters"),
        ({"text": "?", "edits": [["zero"]]}, "'edits' is a list"),
        ({"text": [[[[[[[[[]]]]]]]]]}, "nested"),
    ],
)
def test_what_is_wrong_is_said(question: Any, said: str) -> None:
    with pytest.raises(DataError, match=said):
        asked(question)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b"\xff\xfe",
        b'{"kind": "answer", "kind2": 1}',
        b'{"kind": NaN}',
        b'{"kind": Infinity}',
        b'{"kind": "answer", "question": ' + b"[" * 30_000 + b"]" * 30_000 + b"}",
        b'{"kind": ' + b"1" * 6000 + b"}",
        b'{"question": {"text": "?"}}',
    ],
)
def test_what_is_no_request_is_refused(body: bytes) -> None:
    with pytest.raises(DataError):
        read_asked(body)
