"""Nothing from data steers the terminal, whichever command prints it."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console
from typer.testing import CliRunner

from vlmlens._clean import UNSAFE, clean
from vlmlens.abc.storage import ColumnBlock, Values
from vlmlens.cli import _completion, _messages
from vlmlens.cli._app import app
from vlmlens.cli._output import Output, table, to_json
from vlmlens.cli._table import plain_table
from vlmlens.errors import DataError
from vlmlens.manifest import PluginKind
from vlmlens.registry import Registry
from vlmlens.runner.progress import RichObserver

TITLE, WIPE, COPY = "\x1b]0;PWNED\x07", "\x1b[2J", "\x1b]52;c;cm0=\x07"
EIGHT_BIT, BELL, TURNED, BACK = "\x9b2J", "\x07", "\u202egnp.exe", "safe\rEVIL\x08"
EVIL = TITLE + WIPE + COPY + EIGHT_BIT + BELL + TURNED + BACK


def steers(text: str) -> list[str]:
    """What in a text is no plain character; colours of our own are."""
    return UNSAFE.findall(text)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store whose ids and columns hold escapes."""
    registry, place = Registry.default(), tmp_path_factory.mktemp("evil") / f"x{WIPE}.db"
    backend = registry.load(registry.find(PluginKind.STORAGE, "sqlite"))
    values = Values(np.ones((1, 3), np.float32), "float32")
    with backend.open(str(place), mode="a", options=backend.Options()) as opened:
        opened.write(ColumnBlock((f"id{EVIL}",), {f"llm.{EVIL}/last": values}))
    return place


@pytest.mark.parametrize(
    "arguments",
    [
        ("show", "{}"),
        ("show", "{}", f"llm.{EVIL}/last"),
        ("show", "{}", f"llm.{EVIL}x/last"),
        ("show", "{}", f"llm.{EVIL}/last", "--sample", f"no{EVIL}"),
        ("show", "{}", "--json"),
        ("show", "{}", f"llm.{EVIL}x/last", "--json"),
        ("verify", "{}"),
        ("verify", "{}" + EVIL),
        ("export", "{}", f"out{EVIL}.what"),
        ("analyze", "{}"),
        ("report", "{}"),
        ("compare", "{}", "{}"),
        ("merge", "{}"),
        ("import", "{}", f"out{EVIL}"),
        ("plugins", "show", EVIL),
        ("plugins", "check", EVIL),
        ("sites", EVIL),
        (EVIL,),
        ("show", f"--{EVIL}"),
        ("show", "{}", "--storage", EVIL),
        ("estimate", "--set", f"{EVIL}=1"),
        ("estimate", "--data", EVIL, "--debug"),
    ],
    ids=lambda arguments: clean(" ".join(arguments))[:40],
)
def test_no_command_prints_escapes(
    arguments: tuple[str, ...], store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("NO_COLOR", "1")
    done = CliRunner().invoke(app, [each.replace("{}", str(store)) for each in arguments])
    said = done.output + done.stderr
    assert said.strip()
    assert "This is a bug" not in said
    assert steers(said) == []


def test_errors_warnings_and_tracebacks_are_clean(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    for error in (DataError(EVIL, hint=EVIL), ValueError(EVIL)):
        for output in (Output(), Output(debug=True), Output(json=True)):
            _messages.report(error, output)
    _messages.show_warnings()
    logging.getLogger("vlmlens").warning("%s", EVIL)
    said = capsys.readouterr()
    assert "PWNED" in said.err
    assert steers(said.out + said.err) == []


def test_progress_and_notes_are_clean(capsys: pytest.CaptureFixture[str]) -> None:
    with RichObserver(Console(stderr=True)) as observer:
        observer.stage(EVIL, 3)
        observer.note(EVIL)
        observer.warn(EVIL)
    Output().message(EVIL)
    Output().data(None, EVIL, table("a", rows=[[EVIL]]))
    said = capsys.readouterr()
    assert steers(said.out + said.err) == []
    assert steers(plain_table(["a"], [[EVIL]]) or "") == []


def test_json_is_still_the_same_data() -> None:
    document: dict[str, Any] = {EVIL: [EVIL, "\ud800", "plain ä ●"]}
    text = to_json(document)
    assert steers(text) == []
    assert json.loads(text) == document
    assert "plain ä ●" in text


def test_completion_offers_nothing_that_a_shell_would_run(tmp_path: Path) -> None:
    class Line:
        params = {"where": str(tmp_path)}  # noqa: RUF012

    evil = ["a\n$(touch x)", "`x`", "a b", WIPE, "$x", "'", '"', "!1", ";x", "a" * 300, 3, None]
    (tmp_path / "results").mkdir()
    (tmp_path / "results" / "$(touch x).json").touch()
    (tmp_path / "results" / "probe.json").touch()
    (tmp_path / "run.json").write_text(json.dumps({"columns": [*evil, "llm.block.-1/text[-4:]"]}))
    line: Any = Line()
    assert _completion.stored(line, "") == ["llm.block.-1/text[-4:]", "probe"]
    for broken in ("[" * 100_000, "[1]", '{"columns": {"a": 1}}', '{"columns": 3}', ""):
        (tmp_path / "run.json").write_text(broken)
        assert _completion.stored(line, "llm") == []
    (tmp_path / f"x{WIPE}").touch()
    assert _completion.paths(f"{tmp_path}/x") == []
