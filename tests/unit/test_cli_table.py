"""Tables without rich: they fit the screen, or rich does them."""

from __future__ import annotations

import io
from typing import Annotated, Any, Literal

import pytest
from annotated_types import Ge, Gt, Le, Len

from vlmlens.cli._output import spell_out
from vlmlens.cli._plan import estimate_line
from vlmlens.cli._table import plain_table
from vlmlens.cli._types import readable_type
from vlmlens.compose.estimate import Estimate

ROWS = [("adapter", "demo", "a b c d e f g h i j k l m n o p q r s t u v w x y z"), ("x", "", "")]


@pytest.mark.parametrize("width", [40, 60, 100])
def test_the_last_column_is_folded(monkeypatch: pytest.MonkeyPatch, width: int) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    text = plain_table(["kind", "name", "what"], ROWS)
    assert text is not None
    lines = text.splitlines()
    assert max(map(len, lines)) <= width
    assert lines[0] == "kind     name  what"
    assert {line.index("a b") for line in lines if "a b" in line} == {15}
    words = " ".join(line[15:] for line in lines[1:]).split()
    assert " ".join(words) == ROWS[0][2]


def test_what_does_not_fit_is_left_to_rich(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "30")
    assert plain_table(["kind", "name", "what"], ROWS) is None
    assert plain_table(["kind", "name", "what"], [("a", "b", "c")]) is not None


def test_a_narrow_screen_still_lists_everything(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from typer.testing import CliRunner

    from vlmlens.cli._app import app

    monkeypatch.setenv("COLUMNS", "50")
    done = CliRunner().invoke(app, ["plugins", "list", "--kind", "storage"])
    assert done.exit_code == 0
    assert {"lmdb", "memory", "sqlite", "zarr"} <= set(done.stdout.split())


@pytest.mark.parametrize(
    ("annotation", "shown"),
    [
        (bool, "bool"),
        (Any, "anything"),
        (int | None, "int | none"),
        (Literal[1, "a"], '1 | "a"'),
        (list[str], "list of str"),
        (set[int | str], "list of (int | str)"),
        (tuple[int, str], "(int, str)"),
        (dict[str, Any], "mapping of str to anything"),
        (Annotated[int, Ge(1)], "int >= 1"),
        (Annotated[int, Ge(1)] | Literal["auto"], 'int >= 1 | "auto"'),
        (Annotated[float, Gt(0), Le(1)], "float > 0 and <= 1"),
    ],
)
def test_types_as_people_read_them(annotation: Any, shown: str) -> None:
    assert readable_type(annotation) == shown


def test_bounds_beside_a_type() -> None:
    assert readable_type(int | None, [Ge(3)]) == "int >= 3 | none"
    assert readable_type(list[int], [Len(1, 4)]) == "list of int, at least 1, at most 4"


@pytest.mark.parametrize(
    ("encoding", "written"),
    [
        ("ascii", b"+ ~ - . \\u5bbd"),
        ("latin-1", b"+ ~ - . \\u5bbd"),
        ("utf-8", "● ◐ ○ … 宽".encode()),
    ],
)
def test_a_stream_that_lacks_characters_is_no_failure(
    monkeypatch: pytest.MonkeyPatch, encoding: str, written: bytes
) -> None:
    sink = io.BytesIO()
    monkeypatch.setattr("sys.stdout", io.TextIOWrapper(sink, encoding=encoding))
    spell_out()
    print("● ◐ ○ … 宽", end="", flush=True)
    assert sink.getvalue() == written


def test_unknown_sizes_are_said() -> None:
    def line(**columns: int | None) -> str:
        known = sum(count for count in columns.values() if count)
        return estimate_line(Estimate(samples=1, columns=columns, bytes=known, free_bytes=2048))

    assert line(a=1024, b=1024) == "2 columns, 2.0 KiB (2.0 KiB free)"
    assert line(a=1024, b=None) == "2 columns, 1.0 KiB and 1 of unknown size (2.0 KiB free)"
    assert line(a=None, b=None) == "2 columns, unknown size (2.0 KiB free)"
