"""Edits from the browser: they name no code, and no file outside the open runs."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from vlmlens.errors import EditError
from vlmlens.passes.edits import WrittenEdit
from vlmlens.registry import names_file
from vlmlens.runs.trust import is_inside

if TYPE_CHECKING:
    from vlmlens.passes.edits import EdgeCut, Edit
    from vlmlens.view.live.model import LiveModel
    from vlmlens.view.shown_run import ShownRun

_NUMBER = r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?"
_PLAIN = re.compile(rf"{_NUMBER}(?:\+\d+)*|true|false|none|null|max|code", re.ASCII)
"""Values of arguments that name no file."""

_IN_RUN = re.compile(r"runs/(?P<run>\d{1,6})(?P<mark>[/@])(?P<rest>.+)", re.ASCII)


def checked(texts: Sequence[str], runs: Sequence[ShownRun]) -> list[str]:
    """The edits as they are written on the command line, with whole paths.

    Args:
        texts: As the browser sends them. A file in an open run is named as in the app's addresses:
            `runs/0/results/steering.red.npy`; a column of it, `runs/0@llm.block.3/last`.
        runs: The open runs.

    Raises:
        EditError: One does not parse, or names code or another file.
    """
    return [_written(WrittenEdit.parse(text), runs) for text in texts]


def opened(model: LiveModel, texts: Sequence[str]) -> list[Edit | EdgeCut]:
    """The edits, ready to be applied.

    Raises:
        VlmlensError: One does not parse, names code or another file, or cannot be used.
    """
    return [model.registry.edit(text) for text in checked(texts, model.runs)]


def _written(edit: WrittenEdit, runs: Sequence[ShownRun]) -> str:
    found = _checked(edit, runs)
    return edit.text if found == edit else str(found)


def _checked(edit: WrittenEdit, runs: Sequence[ShownRun]) -> WrittenEdit:
    if names_file(edit.name):
        raise EditError(
            f"{edit.text!r} names Python code, which the browser may not.",
            subject=edit.text,
            hint="Use an installed intervention, or the command line.",
        )
    if edit.site.startswith("re:"):
        raise EditError(
            f"{edit.text!r} names sites by a regular expression, which the browser may not.",
            subject=edit.text,
            hint="Write llm.block.[3-7] or llm.block.*, or use the command line.",
        )
    return replace(
        edit,
        positional=tuple(_value(value, edit, runs) for value in edit.positional),
        named={key: _value(value, edit, runs) for key, value in edit.named.items()},
    )


def _value(value: str, edit: WrittenEdit, runs: Sequence[ShownRun]) -> str:
    if _PLAIN.fullmatch(value):
        return value
    found = _IN_RUN.fullmatch(value)
    if found and int(found["run"]) < len(runs) and "\0" not in value:
        folder = runs[int(found["run"])].run.path
        if found["mark"] == "@" and "@" not in found["rest"]:
            return f"{folder}@{found['rest']}"
        if found["mark"] == "/" and is_inside(str(folder / found["rest"]), folder):
            return str(folder / found["rest"])
    raise EditError(
        f"{edit.text!r} names {value!r}, and the browser may only name files of the open runs.",
        subject=edit.text,
        hint="Choose one of the listed directions, or use the command line.",
    )
