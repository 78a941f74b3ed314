"""The exception tree, its picture, its page of documentation, and hints."""

from __future__ import annotations

import inspect
import re
from pathlib import Path

import pytest

from vlmlens import errors
from vlmlens.errors import DataNotFound, VlmlensError, did_you_mean, nearest

DOCS = Path(__file__).parents[2] / "docs" / "errors.md"
CLASSES = {
    name: found
    for name, found in inspect.getmembers(errors, inspect.isclass)
    if issubclass(found, VlmlensError)
}


def sections(text: str) -> dict[str, str]:
    """Text below each heading that names a class."""
    parts = re.split(r"^#{2,} (\w+)$", text, flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def problems(text: str) -> list[str]:
    """What the page lacks."""
    found = sections(text)
    wrong = [f"{name}: no such class" for name in found.keys() - CLASSES.keys()]
    for name in CLASSES:
        body = found.get(name, "")
        example = re.search(r"^> \S", body, flags=re.MULTILINE)
        advice = re.search(r"^What to do: \S", body, flags=re.MULTILINE)
        if not example or not advice:
            wrong.append(f"{name}: section, example (`> `) or `What to do:` is missing")
    return wrong


def drawn_tree() -> dict[str, str]:
    """(class, parent) as the module's docstring draws it."""
    parents: dict[str, str] = {}
    above: list[str] = []
    for line in (errors.__doc__ or "").splitlines():
        if match := re.match(r"    ([│├└─ ]*)([A-Z]\w+)", line):
            depth = len(match[1]) // 4
            above[depth:] = [match[2]]
            if depth:
                parents[match[2]] = above[depth - 1]
    return parents


def test_every_class_has_a_section() -> None:
    assert problems(DOCS.read_text(encoding="utf-8")) == []


def test_a_missing_or_empty_section_would_be_caught() -> None:
    text = DOCS.read_text(encoding="utf-8")
    assert problems(text.replace("### StoreLocked", "### StoreLocket")) == [
        "StoreLocket: no such class",
        "StoreLocked: section, example (`> `) or `What to do:` is missing",
    ]
    assert problems(re.sub(r"^What to do: ", "", text, count=1, flags=re.MULTILINE))


def test_the_docstring_draws_the_tree() -> None:
    actual = {name: found.__base__.__name__ for name, found in CLASSES.items()}  # type: ignore[union-attr]
    del actual["VlmlensError"]
    assert drawn_tree() == actual


@pytest.mark.parametrize("found", CLASSES.values(), ids=list(CLASSES))
def test_errors_carry_message_subject_and_hint(found: type[VlmlensError]) -> None:
    error = found("It is gone.", subject="x", hint="Find it.")
    assert (error.message, error.subject, error.hint) == ("It is gone.", "x", "Find it.")
    assert str(error) == "It is gone. Find it."
    assert error.exit_code == 2
    assert found.__doc__


def test_an_error_without_a_hint() -> None:
    assert str(DataNotFound("It is gone.")) == "It is gone."
    assert DataNotFound("It is gone.").subject is None


def test_nearest() -> None:
    names = ["lmdb", "sqlite", "zarr", "memory"]
    assert nearest("lmbd", names)[0] == "lmdb"
    assert nearest("qqqq", names) == []
    assert len(nearest("a", ["a", "ab", "ac"], n=2)) == 2


def test_did_you_mean() -> None:
    assert did_you_mean("sqlit", ["lmdb", "sqlite"]) == "Did you mean sqlite?"
    assert did_you_mean("images", ["image", "imager"]) == "Did you mean image or imager?"
    assert did_you_mean("qqqq", ["lmdb"]) == ""
