"""Every command that a page shows is one that the command line understands."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import typer
import typer.main

from vlmlens.cli._app import app

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
MAIN: Any = typer.main.get_command(app)
USAGE_ERROR: Any = typer.BadParameter.__base__
"""Typer has a click of its own, whose names are not public."""
OTHER_TOOLS = {"clock"}
"""Commands of plugins that a page writes."""


def commands(text: str) -> list[list[str]]:
    """The words behind `vlmlens`, for each line of a code block that calls it."""
    found = []
    blocks = re.findall(r"^```(\w*)\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)
    for block in (block for language, block in blocks if language in ("", "bash")):
        shell = re.sub(r"<<'END'.*?^END$", "", block, flags=re.DOTALL | re.MULTILINE)
        for line in re.findall(r"^.*\bvlmlens\b.*$", shell.replace("\\\n", " "), re.MULTILINE):
            words = [word for word in shlex.split(line, comments=True) if word != "..."]
            while "vlmlens" in words:
                words = words[words.index("vlmlens") + 1 :]
                end = next((i for i, word in enumerate(words) if word in ("&&", "|", ">")), None)
                found.append(words[:end])
    return found


def parsed(words: list[str]) -> None:
    if words and words[0] in OTHER_TOOLS:
        return
    with typer.Context(MAIN, info_name="vlmlens") as context:
        name, command, rest = MAIN.resolve_command(context, words)
        while hasattr(command, "resolve_command"):
            name, command, rest = command.resolve_command(context, rest)
        command.make_context(name, list(rest), parent=context).close()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_commands_of_pages_are_understood(page: Path) -> None:
    for words in commands(page.read_text(encoding="utf-8")):
        try:
            parsed(words)
        except USAGE_ERROR as error:
            pytest.fail(f"vlmlens {shlex.join(words)}: {error.format_message()}")


def test_they_are_found_and_mistakes_are_seen() -> None:
    pages = {page.stem: commands(page.read_text(encoding="utf-8")) for page in PAGES}
    assert ["extract", "-c", "runs/big/spec.yaml", "--resume"] in pages["more-than-one-process"]
    assert sum(map(len, pages.values())) > 60
    for wrong in ("extract --shards 0/4", "run --workers", "plugins lst", "extrakt"):
        with pytest.raises(USAGE_ERROR):
            parsed(wrong.split())
