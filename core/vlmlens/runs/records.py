"""Reading the JSON files of a run: run.json, samples.jsonl, skipped.jsonl."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from vlmlens.errors import RunError

_KINDS: Mapping[str, type] = {
    **dict.fromkeys(("state", "started", "finished", "vlmlens", "python", "working_folder"), str),
    **dict.fromkeys(("samples", "images"), int),
    **dict.fromkeys(("columns", "warnings", "notes", "made"), list),
    **dict.fromkeys(("model", "summary", "signed", "suggested", "seeds", "drawn", "edited"), dict),
}
"""What entries of run.json hold, if they are there."""


def read_run_record(path: Path) -> dict[str, Any]:
    """The JSON object in run.json.

    Raises:
        RunError: The file is damaged, or an entry is of another kind than vlmlens writes.
    """
    found = {name: value for name, value in read_record(path).items() if value is not None}
    for name, kind in _KINDS.items():
        value = found.get(name, kind())
        listed = value if isinstance(value, list) else ()
        if not isinstance(value, kind) or not all(isinstance(each, str) for each in listed):
            raise damaged(path, f"{name!r} holds {str(value)[:40]!r}")
    seconds = found.get("summary", {}).get("seconds", {})
    if not isinstance(seconds, dict) or not all(map(_is_number, seconds.values())):
        raise damaged(path, "the seconds in 'summary' are no numbers by name")
    return found


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float)


def read_record(path: Path) -> dict[str, Any]:
    """The JSON object in a file.

    Raises:
        RunError: The file is damaged.
    """
    try:
        found = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise damaged(path, str(error)) from error
    if not isinstance(found, dict):
        raise damaged(path, f"it holds a {type(found).__name__}, not an object")
    return found


def read_records(path: Path, *keys: str, count: int | None = None) -> list[dict[str, Any]]:
    """The JSON objects in the lines of a file; none if there is no file.

    Args:
        path: The file.
        keys: The keys that each object has.
        count: The number of lines, if it is known.

    Raises:
        RunError: A line is damaged, or lines are missing. The error names it.
    """
    return list(each_record(path, *keys, count=count))


def each_record(path: Path, *keys: str, count: int | None = None) -> Iterator[dict[str, Any]]:
    """Like `read_records`, one by one."""
    number = 0
    for number, record in _lines(path, keys):
        if record is None:
            raise damaged(path, f"line {number} is no JSON object with {', '.join(keys)}")
        yield record
    if count is not None and number != count:
        raise damaged(path, f"it has {number} lines, and {count} were written")


def readable_records(path: Path, *keys: str) -> Iterator[dict[str, Any] | None]:
    """The JSON objects in the lines of a file, one by one; None for a damaged line."""
    return (record for _, record in _lines(path, keys))


def _lines(path: Path, keys: tuple[str, ...]) -> Iterator[tuple[int, dict[str, Any] | None]]:
    if not path.exists():
        return
    with path.open("rb") as lines:
        for number, line in enumerate(lines, 1):
            try:
                record = json.loads(line)
            except (ValueError, RecursionError):
                record = None
            whole = isinstance(record, dict) and all(key in record for key in keys)
            yield number, record if whole else None


def damaged(path: Path, why: str) -> RunError:
    """The error for a file of a run that cannot be read."""
    return RunError(
        f"The file {str(path)!r} of the run is damaged: {why.rstrip('.')}.",
        subject=str(path),
        hint="Restore it from a copy; or run the command that made the run again with --resume, "
        "which writes the file again, or with --fresh, which starts over.",
    )
