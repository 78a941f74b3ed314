"""Reading the results that are stored in a run."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection
from pathlib import Path

from vlmlens.errors import RunError, SpecError
from vlmlens.results import Result
from vlmlens.spec.nesting import check_nesting


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
        return _checked(read(path))
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise RunError(
            f"{path} holds no result ({type(error).__name__}: {error}).",
            subject=str(path),
            hint="Remove the file and run the analysis again.",
        ) from error


def _checked(found: Result) -> Result:
    """A result whose words are texts and whose numbers are numbers.

    Raises:
        TypeError, ValueError: They are not.
    """
    texts: list[object] = [found.analysis, found.title, *found.notes, *found.warnings]
    numbers: list[object] = []
    for finding in found.findings:
        texts += [finding.text, finding.subject, finding.scope, *finding.samples, *finding.values]
        dict(finding.values)
    for cell in found.overview:
        texts += [cell.subject, cell.question, cell.text, cell.beside]
        numbers += [cell.value, *cell.curve]
    texts += [text for table in found.tables for text in (table.name, table.title)]
    texts += [text for figure in found.figures for text in (figure.name, figure.title)]
    if wrong := [text for text in texts if not isinstance(text, str)]:
        raise TypeError(f"{str(wrong[0])[:40]!r} is no text")
    if wrong := [each for each in numbers if not isinstance(each, int | float | None)]:
        raise TypeError(f"{str(wrong[0])[:40]!r} is no number")
    found.analysis.encode()
    try:
        check_nesting([found.options, *(each.values for each in found.findings)], "it")
    except SpecError as error:
        raise ValueError(error.message) from error
    return found
