"""A newcomer with a task finds the file to open in the room list of docs/design.md alone."""

from __future__ import annotations

import ast
import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
CORE = ROOT / "core" / "vlmlens"
PAGE = (ROOT / "docs" / "design.md").read_text(encoding="utf-8")

TASKS = {
    "add a selector": "rows/selector.py",
    "add a verdict": "results.py",
    "add syntax to site patterns": "sites/patterns.py",
    "change how activations are edited": "passes/tracing.py",
    "add a method to all adapters": "abc/adapter.py",
    "add a lifecycle hook": "abc/hookspecs.py",
    "change how long a plugin may take to import": "registry/_guard.py",
    "change the message about a broken plugin": "registry/_problems.py",
    "add an option of a run": "spec/model.py",
    "add a check of a write": "stores/writing.py",
    "add a file format of export": "transfer/_npz.py",
    "add a file to the run folder": "runs/run.py",
    "add a check whether parts fit before loading weights": "compose/applicability.py",
    "add a check of images": "compose/image_check.py",
    "change the estimate of disk space": "compose/estimate.py",
    "change how rows are buffered": "extraction/write_buffer.py",
    "change the estimate of the remaining time": "extraction/eta.py",
    "change how a worker on this machine is spoken to": "runner/worker_process.py",
    "add a section to the report": "report/_sections.py",
    "add a check to doctor": "cli/_diagnosis.py",
}


def entries() -> dict[str, str]:
    """By file of core: what the room list says to open it for."""
    found: dict[str, str] = {}
    for heading, body in re.findall(r"^### (.+?)\n(.*?)(?=^##|\Z)", PAGE, re.DOTALL | re.MULTILINE):
        rooms = re.findall(r"`(\w+)/`", heading)
        for names, purpose in re.findall(r"^\| (.*?\.py.*?) \| (.*) \|$", body, re.MULTILINE):
            room = f"{rooms[0]}/" if len(rooms) == 1 else ""
            for name in re.findall(r"`([\w/]+\.py)`", names):
                if "/" in name:
                    room = name.rpartition("/")[0] + "/"
                found[room + name.rpartition("/")[2]] = purpose
    return found


ENTRIES = entries()


@pytest.mark.parametrize("task", TASKS)
def test_the_room_list_alone_leads_to_the_file(task: str) -> None:
    words = set(re.findall(r"\w+", task)) - {"a", "an", "the", "of", "to", "may"}
    best = max(ENTRIES, key=lambda file: len(words & set(re.findall(r"\w+", ENTRIES[file]))))
    assert ENTRIES[best] == ENTRIES[TASKS[task]]
    assert words <= set(re.findall(r"\w+", ENTRIES[TASKS[task]]))


def test_every_file_of_the_list_exists() -> None:
    assert len(ENTRIES) > 60
    missing = [file for file in ENTRIES if not (CORE / file).is_file()]
    assert not missing


def test_every_room_and_every_public_word_has_its_place() -> None:
    for path in CORE.iterdir():
        if path.name.startswith(("_", ".")):
            continue
        if path.suffix == ".py":
            assert path.name in ENTRIES
        elif path.is_dir():
            assert f"`{path.name}/`" in PAGE, path.name


def test_the_order_of_rooms_is_that_of_the_contract() -> None:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    contracts = settings["tool"]["importlinter"]["contracts"]
    (contract,) = [each for each in contracts if each["type"] == "layers"]
    layers = [
        {name for name in layer.split(" | ") if not name.startswith("_")}
        for layer in contract["layers"]
    ]
    (shown,) = re.findall(r"^```\n(cli > .*?)^```", PAGE, re.DOTALL | re.MULTILINE)
    page = [set(re.findall(r"\w+", layer)) for layer in shown.split(">")]
    assert page == [layer for layer in layers if layer]


@pytest.mark.parametrize("package", [CORE, ROOT / "plugins" / "vlmlens_plugins"])
def test_a_long_module_says_why_it_is_long(package: Path) -> None:
    for path in package.rglob("*.py"):
        text = path.read_text(encoding="utf-8")
        if text.count("\n") > 400:
            assert "\nOver 400 lines: " in (ast.get_docstring(ast.parse(text)) or ""), path
