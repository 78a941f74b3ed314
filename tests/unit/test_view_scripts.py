"""The app's scripts share one scope with those of the report: no name may be given twice."""

from __future__ import annotations

import re
from collections import Counter
from importlib import resources

from vlmlens.view import files

DEFINED = re.compile(r"^(?:async )?(?:function|class|const|let|var) (\w+)", re.MULTILINE)


def scripts() -> dict[str, str]:
    rooms = [resources.files(f"vlmlens.{room}").joinpath("static") for room in ("report", "view")]
    found = [file for room in rooms for file in room.iterdir() if file.name.endswith(".js")]
    return {file.name: file.read_text(encoding="utf-8") for file in found}


def twice(given: dict[str, str]) -> set[str]:
    names = Counter(name for text in given.values() for name in DEFINED.findall(text))
    return {name for name, count in names.items() if count > 1}


def test_no_script_redefines_a_name_of_another() -> None:
    assert len(scripts()) > 8
    assert twice(scripts()) == set()
    assert twice({**scripts(), "new.js": "function say(text) {}"}) == {"say"}


def test_every_script_and_style_is_served() -> None:
    folder = resources.files("vlmlens.view").joinpath("static")
    there = {file.name for file in folder.iterdir()}
    assert there <= set(files._known())
    assert all(files._known().values())
