"""Reading the results that are stored in a run."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection
from pathlib import Path

from vlmlens.errors import RunError
from vlmlens.results import Result


def read_whole(path: Path) -> Result:
    """The result in a file."""
    return Result.from_dict(json.loads(path.read_bytes()))


def read_results(
    folder: Path,
    ours: Collection[str] | None = None,
    read: Callable[[Path], Result] = read_whole,
) -> list[Result]:
    """The results that `write_result` wrote to a folder, by name of the analysis.

    Args:
        folder: The folder.
        ours: The names of files that are ours; others may be no results. None: all are.
        read: Reads one; `read_in_place` leaves the tables of a large one in its file.

    Raises:
        RunError: A file is not a result. The error names it.
    """
    found = []
    for path in sorted(folder.glob("*.json")):
        if "." in path.stem:  # a file of an analysis's own, `<analysis>.<what>`
            continue
        try:
            found.append(_read(path, read))
        except RunError:
            if ours is None or path.name in ours:
                raise
    return found


def _read(path: Path, read: Callable[[Path], Result]) -> Result:
    try:
        return read(path)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise RunError(
            f"{path} holds no result ({type(error).__name__}: {error}).",
            subject=str(path),
            hint="Remove the file and run the analysis again.",
        ) from error
