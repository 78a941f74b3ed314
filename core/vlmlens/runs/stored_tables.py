"""Results whose tables stay in their files: a column is read when somebody looks at it.

`vlmlens.report.files.to_json` writes a value per line, indented by its depth. So the values of a
column are found without parsing them, and a part of them is read alone. A file of another form, or
a small one, is read whole.
"""

from __future__ import annotations

import json
import os
import re
import weakref
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

from vlmlens._display import brief, count
from vlmlens.errors import RunError
from vlmlens.results import Cell, Result

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

_SMALL = 1 << 16
_TABLES, _TABLES_END = b'\n "tables": [\n', b"\n ]"
_COLUMN = re.compile(rb'\n {4}("(?:[^"\\\n]|\\.)*"): \[\n')
_COLUMN_END, _DEEPER = b"\n    ]", b"\n      "
_PEEKED = 4096


class StoredColumn(Sequence[Cell]):
    """A column of a stored table. One value, or some, are read without the others.

    Args:
        file: The file that holds it.
        start: Where its first line begins, in bytes; `stop`: where its last line ends.
        values: How many there are.
    """

    def __init__(self, file: StoredFile, start: int, stop: int, values: int) -> None:
        self._file = file
        self._start, self._stop = start, stop
        self._count = values

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[Cell]:
        return iter(self._parsed(self._start, self._stop, self._count))

    @overload
    def __getitem__(self, index: int) -> Cell: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Cell]: ...
    def __getitem__(self, index: int | slice) -> Cell | Sequence[Cell]:
        if not isinstance(index, slice):
            place = range(self._count)[index]
            return self._between(place, place + 1)[0]
        start, stop, step = index.indices(self._count)
        if step != 1:
            return [self[place] for place in range(start, stop, step)]
        return self._between(start, stop) if start < stop else []

    def first(self, most: int) -> Sequence[Cell]:
        """The first values, at most so many: those whose lines are in the first few kilobytes."""
        lines = self._file.read(self._start, min(self._start + _PEEKED, self._stop)).split(b"\n")
        if self._start + _PEEKED < self._stop:
            lines = lines[:-1]
        text = b"\n".join(islice(lines, most))
        return self._file.parsed(text, min(len(lines), most)) if lines else []

    @cached_property
    def _ends(self) -> npt.NDArray[np.uint32]:
        """uint32 `[values]`: where each line ends, from the start of the column."""
        import numpy as np

        text = np.frombuffer(self._file.read(self._start, self._stop), np.uint8)
        inner = np.flatnonzero(text == ord("\n"))
        ends = np.append(inner, len(text)).astype(np.uint32)
        if len(ends) != self._count:
            raise self._file.damaged("a column has another number of values than it had")
        return ends

    def _between(self, start: int, stop: int) -> list[Cell]:
        first = self._start + (int(self._ends[start - 1]) + 1 if start else 0)
        return self._parsed(first, self._start + int(self._ends[stop - 1]), stop - start)

    def _parsed(self, start: int, stop: int, values: int) -> list[Cell]:
        return self._file.parsed(self._file.read(start, stop), values)

    def __repr__(self) -> str:
        return brief(self, "", count(self._count, "value"))


@dataclass(frozen=True, slots=True)
class _Found:
    """A column in the text of a file, in bytes, and how many values it has."""

    start: int
    stop: int
    values: int


class StoredFile:
    """A file of a result that stays open, so that what replaces it does not mix with it.

    Args:
        path: The file.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        weakref.finalize(self, os.close, self._file)

    def whole(self) -> bytes:
        """All of it."""
        return self.read(0, os.fstat(self._file).st_size)

    def read(self, start: int, stop: int) -> bytes:
        """The bytes between two places.

        Raises:
            RunError: The file was cut.
        """
        found = os.pread(self._file, stop - start, start)
        if len(found) != stop - start:
            raise self.damaged("it is shorter than it was")
        return found

    def parsed(self, text: bytes, values: int) -> list[Cell]:
        """The values in lines of it.

        Raises:
            RunError: It holds something else, or another number of them.
        """
        try:
            found: list[Cell] = json.loads(b"[" + text.rstrip().rstrip(b",") + b"]")
        except (ValueError, RecursionError) as error:
            raise self.damaged(str(error)) from error
        if len(found) != values:
            raise self.damaged(f"{len(found)} values stand where {values} were")
        return found

    def damaged(self, why: str) -> RunError:
        """The error for a file that cannot be read."""
        return RunError(
            f"{self._path} holds no result any more: {why}.",
            subject=str(self._path),
            hint="Load the page again; if that does not help, run the analysis again.",
        )


def read_in_place(path: Path) -> Result:
    """A result whose tables' columns are `StoredColumn`s where it is large.

    Args:
        path: What `write_result` wrote.

    Raises:
        ValueError, KeyError, TypeError, AttributeError, RecursionError: It is no result.
    """
    file = StoredFile(path)
    text = file.whole()
    columns = _columns(text) if len(text) >= _SMALL else None
    if columns is None:
        return Result.from_dict(json.loads(text))
    made = json.loads(_without(text, columns))
    if _marks(made) != list(range(len(columns))):
        return Result.from_dict(json.loads(text))
    stored = [StoredColumn(file, each.start, each.stop, each.values) for each in columns]
    for table in made["tables"]:
        for name, values in table["columns"].items():
            if _is_mark(values):
                table["columns"][name] = stored[values[0][0]]
    return Result.from_dict(made)


def _marks(made: Any) -> list[int]:
    """The numbers that stand in place of columns, in order."""
    columns = (values for table in made["tables"] for values in table["columns"].values())
    return [values[0][0] for values in columns if _is_mark(values)]


def _is_mark(values: Any) -> bool:
    is_nested = isinstance(values, list) and len(values) == 1 and isinstance(values[0], list)
    return is_nested and len(values[0]) == 1


def _columns(text: bytes) -> list[_Found] | None:
    """The columns of all tables that have values; None if the text has another form."""
    begins = text.find(_TABLES)
    if begins < 0:
        return None
    place, ends = begins, text.find(_TABLES_END, begins + len(_TABLES) - 1)
    found = []
    while match := _COLUMN.search(text, place, ends):
        start, stop = match.end(), text.find(_COLUMN_END, match.end() - 1, ends)
        if stop < 0 or text.find(_DEEPER, start - 1, stop) >= 0:
            return None
        found.append(_Found(start, stop, text.count(b"\n", start, stop) + 1))
        place = stop
    return found


def _without(text: bytes, columns: Sequence[_Found]) -> bytes:
    """The text, with the number of each column in place of its values."""
    parts: list[Any] = []
    before = 0
    for number, each in enumerate(columns):
        parts += [text[before : each.start], b"[%d]" % number]
        before = each.stop
    return b"".join([*parts, text[before:]])
