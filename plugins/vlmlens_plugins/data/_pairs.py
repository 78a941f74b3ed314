"""Pairs in tables: the columns `pair` and `role`, and lines that hold both samples of a pair.

A line of `pairs.jsonl` is `{"id": ..., "clean": {...}, "corrupted": {...}, ...}`. It stands for two
rows: what is outside belongs to both, and what is inside to one of them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any, Final, overload

from vlmlens.errors import ManifestError
from vlmlens.samples import Attribute, Sample
from vlmlens_plugins.data._cells import CellError, text
from vlmlens_plugins.data._embedded import taken_out
from vlmlens_plugins.data._table_files import Row, Rows, kind_of
from vlmlens_plugins.data._usual_names import PAIRED, plain

_ROLES: Final[Mapping[str, str]] = {
    "clean": "clean",
    "original": "clean",
    "corrupted": "corrupted",
    "counterfactual": "corrupted",
}
_HALVES: Final = ("clean", "corrupted")


def pair_columns(given: Mapping[Any, str | None], columns: Sequence[str]) -> dict[str, str]:
    """The columns that say which samples make a pair; both or none.

    Args:
        given: The user's choice by known name; None: read no column as this.
        columns: Those that are not read as something else.

    Raises:
        CellError: The user names one, and there is no other.
    """
    found = {name: given[name] if name in given else _spelt(name, columns) for name in PAIRED}
    both = {name: column for name, column in found.items() if column is not None}
    if len(both) == len(PAIRED):
        return both
    for name, column in both.items():
        if name in given:
            (missing,) = set(PAIRED) - {name}
            raise CellError(f"{column!r} is read as {name!r}, but there is no column {missing!r}")
    return {}


def paired(pair: str | None, role: str | None) -> dict[str, Attribute]:
    """What a row with these cells knows of its pair.

    Raises:
        CellError: It is none of the roles of a pair.
    """
    if pair is None:
        return {"pair": None, "role": role}
    known = _ROLES.get((role or "").casefold())
    if known is None:
        found = "it is empty" if role is None else f"{role!r} is no role"
        raise CellError(
            f"{found} in the pair {pair!r} (clean or original, corrupted or counterfactual; read "
            "no pairs: --set options.dataset.columns.pair=null)"
        )
    return {"pair": pair, "role": known}


def grouped(samples: Sequence[Sample]) -> Iterator[Sample]:
    """The samples; both of a pair without a group get that of the clean one, by its images."""
    groups = {
        sample.attributes["pair"]: sample.split_group
        for sample in samples
        if sample.attributes["role"] == "clean"
    }
    for sample in samples:
        pair = sample.attributes["pair"]
        alone = pair is None or sample.group is not None
        yield sample if alone else replace(sample, group=groups.get(pair, str(pair)))


def halved(path: Path, table: Rows) -> Rows:
    """A table whose lines each hold a pair as one of two rows per line; another table as it is.

    Lines hold pairs if the first one has "clean" and "corrupted" as objects; in a file that is
    called `pairs.jsonl` also if any line has one of them.

    Raises:
        ManifestError: Some lines hold pairs and one does not; names the line.
    """
    if not table.rows or not _holds_pairs(path, table):
        return table
    rows = _Halves(path, table.rows)
    columns = tuple(dict.fromkeys(name for row in rows for name in row.cells))
    return Rows(columns, rows, table.notes)


class _Halves(Sequence[Row]):
    """Two rows per line, made when they are asked for."""

    def __init__(self, path: Path, lines: Sequence[Row]) -> None:
        self._path = path
        self._lines = len(lines)
        self._line = lru_cache(len(_HALVES))(lines.__getitem__)

    def __len__(self) -> int:
        return self._lines * len(_HALVES)

    @overload
    def __getitem__(self, index: int) -> Row: ...
    @overload
    def __getitem__(self, index: slice) -> list[Row]: ...
    def __getitem__(self, index: int | slice) -> Row | list[Row]:
        places = range(len(self))[index]
        if isinstance(places, range):
            return [self[place] for place in places]
        line = self._line(places // len(_HALVES))
        return self._half(line, _HALVES[places % len(_HALVES)], places + 1)

    def _half(self, line: Row, role: str, number: int) -> Row:
        own = line.cells.get(role)
        if not isinstance(own, dict):
            what = "is missing" if own is None else f"is no object {{...}} but {own!r:.40}"
            raise self._wrong(line, f"{role!r} {what}")
        try:
            pair = text(line.cells.get("id")) or f"pair-{line.number:06d}"
        except CellError as error:
            raise self._wrong(line, f"column 'id': {error}") from error
        shared = {name: cell for name, cell in line.cells.items() if name not in _HALVES}
        inside = {name: taken_out(cell) for name, cell in own.items()}
        known = {"id": own.get("id") or f"{pair}/{role}", "pair": pair, "role": role}
        return Row(number, f"{line.place}, {role}", {**shared, **inside, **known})

    def _wrong(self, line: Row, what: str) -> ManifestError:
        where = f"{self._path}, {line.place}"
        return ManifestError(
            f"{where}: {what}.",
            subject=where,
            hint='Each line is {"id": ..., "clean": {"image": ..., "answer": ...}, "corrupted": '
            '{...}, "prompt": ...}.',
        )


def _holds_pairs(path: Path, table: Rows) -> bool:
    named = path.name.casefold().startswith("pairs.") and kind_of(path) in (".jsonl", ".ndjson")
    if named and set(_HALVES) & set(table.columns):
        return True
    first = table.rows[0].cells
    return all(isinstance(first.get(role), dict) for role in _HALVES)


def _spelt(name: str, columns: Sequence[str]) -> str | None:
    """The column of that name, in any spelling, or of its ids."""
    found = [column for column in columns if plain(column) in (name, f"{name}id")]
    return name if name in found else next(iter(found), None)
