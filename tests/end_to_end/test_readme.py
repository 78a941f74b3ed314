"""What the README shows is what happens."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from PIL import Image
from tests._program import python

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```python\n(.*?)```", README, re.DOTALL)


def test_the_two_commands_stand_where_ci_reads_them() -> None:
    commands = re.findall(
        r"^    (pip install -c constraints(?:-dev)?.txt .*)$", README, re.MULTILINE
    )
    assert commands == [
        "pip install -c constraints.txt . && vlmlens run",
        "pip install -c constraints-dev.txt -r requirements-dev.txt && pytest -n auto",
    ]


def test_a_whole_run_takes_less_than_ten_lines_of_python() -> None:
    lines = [line for line in BLOCKS[0].splitlines() if line.strip()]
    assert "vlmlens.run(" in BLOCKS[0]
    assert len(lines) < 10


SHORT = """
import functools, vlmlens
vlmlens.run = functools.partial(vlmlens.run, limit=100)
"""
"""The whole run is README's first command; here its lines in Python are tried."""


@pytest.mark.parametrize("block", BLOCKS, ids=range(len(BLOCKS)))
def test_python_blocks_run(block: str, tmp_path: Path) -> None:
    Image.new("RGB", (200, 160), (90, 140, 60)).save(tmp_path / "photo.png")
    done = python(SHORT + block, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip()


def test_linked_pages_and_pictures_exist() -> None:
    links = re.findall(r"\]\(([^)#:]+)\)", README)
    assert "docs/images/report.png" in links
    for link in links:
        assert (ROOT / link).exists(), link


def test_named_commands_exist() -> None:
    import typer.main

    from vlmlens.cli._app import app

    known = set(typer.main.get_command(app).commands)  # type: ignore[attr-defined]
    used = set(re.findall(r"^vlmlens ([a-z]+)", README, re.MULTILINE))
    assert used <= known


def test_it_begins_and_ends_with_words_of_its_own() -> None:
    """Tools that write model cards into the working directory have done so to this file."""
    assert README.startswith("# vlmlens\n")
    assert README.endswith("\nApache-2.0.\n")
    assert not list(ROOT.glob("adapter_*"))
