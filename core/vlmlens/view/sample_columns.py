"""What analyses say of single samples, by column: read when somebody filters or sorts by it."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from typing import TYPE_CHECKING, Literal

import numpy as np

from vlmlens._clean import clean
from vlmlens.errors import DataError
from vlmlens.report._text import one_line, scalar, show
from vlmlens.results import Cell, Result, Table
from vlmlens.runs.stored_samples import Coded
from vlmlens.runs.stored_tables import StoredColumn

if TYPE_CHECKING:
    import numpy.typing as npt

    from vlmlens.sample_table import SampleTable

Kind = Literal["number", "choice", "text"]
_KNOWN = ("sample", "task", "label")
_MOST_PARTS = 12
_MOST_CHOICES = 60
_MOST_COLUMNS = 2_000
"""That are offered as filters; a menu of many more would be of no use."""

_PEEKED = 64
_ANSWERS = ("answer", "answer_image")
_RIGHT = ("right", "correct")


@dataclass(frozen=True, eq=False)
class SampleColumn:
    """A column of a table that has at most one row per sample.

    Args:
        name: ANALYSIS/TABLE/COLUMN, with what the part of a table is about behind it.
        header: Its name in the table.
        title: Of the result and the table.
        cells: The column.
        places: int32 `[samples]`, the row of each sample; -1 where it has none.
    """

    name: str
    header: str
    title: str
    cells: Sequence[Cell]
    places: npt.NDArray[np.int32]

    @cached_property
    def kind(self) -> Kind:
        """What it holds, by its first values: numbers, yes and no, or texts."""
        first = next((cell for cell in _peek(self.cells) if cell is not None), None)
        if first is None:
            first = next((cell for cell in self.cells if cell is not None), None)
        if isinstance(first, bool):
            return "choice"
        return "number" if isinstance(first, int | float) else "text"

    @cached_property
    def numbers(self) -> npt.NDArray[np.float64]:
        """float64 `[samples]`: its numbers; NaN where there is none.

        Raises:
            DataError: It holds something else.
        """
        try:
            values = [math.nan if cell is None else _number(cell) for cell in self.cells]
        except TypeError as error:
            raise DataError(
                f"The column {one_line(self.name)} holds {error}, no numbers.",
                subject=self.name,
                hint="Compare it with = or ~ instead.",
            ) from error
        return np.append(np.array(values, np.float64), math.nan)[self.places]

    @cached_property
    def texts(self) -> Coded:
        """Its values as texts, as they are shown, by sample."""
        rows = Coded.of([None if cell is None else show(cell) for cell in self.cells])
        return Coded(np.append(rows.codes, np.int32(-1))[self.places], rows.values)

    def shown(self, sample: int) -> str:
        """What it says of a sample."""
        place = int(self.places[sample])
        return "" if place < 0 else show(self.cells[place])

    def described(self) -> dict[str, object]:
        """What a filter can ask for: the ends of the numbers, or the most frequent values."""
        made: dict[str, object] = {"name": self.name, "kind": self.kind}
        if self.kind == "number":
            known = self.numbers[np.isfinite(self.numbers)]
            ends = (float(known.min()), float(known.max())) if len(known) else (None, None)
            return {**made, "low": ends[0], "high": ends[1], "values": []}
        common = self.texts.counts().most_common(_MOST_CHOICES)
        return {**made, "values": [value for value, times in common if times]}


@dataclass(frozen=True, eq=False)
class RightColumn(SampleColumn):
    """Whether an answer is the label: `cells` are the answers.

    Args:
        labels: The labels, row by row.
    """

    labels: Sequence[Cell] = ()

    @cached_property
    def kind(self) -> Kind:
        """Right or wrong."""
        return "choice"

    @cached_property
    def texts(self) -> Coded:
        """Right or wrong, by sample; nothing where the label or the answer is not known."""
        pairs = zip(self.cells, self.labels, strict=True)
        rows = Coded.of([_judged(answer, label) for answer, label in pairs])
        return Coded(np.append(rows.codes, np.int32(-1))[self.places], rows.values)

    def shown(self, sample: int) -> str:
        """Right, wrong, or nothing."""
        place = int(self.places[sample])
        return "" if place < 0 else _judged(self.cells[place], self.labels[place]) or ""

    def said(self, sample: int) -> str:
        """The answer."""
        return super().shown(sample)


@dataclass(frozen=True, eq=False)
class SampleRows:
    """A table that says something of single samples.

    Args:
        analysis: Whose.
        result: The result.
        table: The table.
        samples: int32 `[rows]`, the number of each row's sample; -1: the run has no such sample.
    """

    analysis: str
    result: Result
    table: Table
    samples: npt.NDArray[np.int32]

    def of(self, sample: int, most: int | None = None) -> Table:
        """The rows about one sample, at most so many, without its id."""
        places = np.flatnonzero(self.samples == sample)[:most].tolist()
        kept = {
            name: [cells[place] for place in places]
            for name, cells in self.table.columns.items()
            if name != "sample"
        }
        return Table(self.table.name, self.table.title, kept, self.table.keys)

    def columns(self, count: int) -> Iterator[SampleColumn]:
        """Its columns, for each of what its rows are about; none if there is too much of that.

        Args:
            count: How many samples there are.
        """
        for about, rows in self._parts():
            places = np.full(count, -1, np.int32)
            known = rows[self.samples[rows] >= 0]
            places[self.samples[known]] = known
            yield from self._named(about, places)

    def _named(self, about: str, places: npt.NDArray[np.int32]) -> Iterator[SampleColumn]:
        part = f" ({about})" if about else ""
        begins = clean(f"{self.analysis}/{self.table.name}/")
        title = f"{self.result.title}: {self.table.title}{part}"
        cells = self.table.columns
        for name, values in cells.items():
            if name not in _KNOWN:
                yield SampleColumn(clean(f"{begins}{name}{part}"), name, title, values, places)
        answer = next((name for name in _ANSWERS if name in cells), None)
        if answer and "label" in cells and not any(name in cells for name in _RIGHT):
            name = clean(f"{begins}right{part}")
            yield RightColumn(name, "right", title, cells[answer], places, cells["label"])

    def _parts(self) -> Iterator[tuple[str, npt.NDArray[np.int64]]]:
        """What the rows are about, and which ones, so that no sample has two."""
        every = np.arange(len(self.samples))
        if _once(self.samples):
            yield "", every
            return
        columns = self.table.columns
        keys = [name for name in self.table.about if name not in _KNOWN and name in columns]
        told = zip(*(columns[name] for name in keys), strict=True)
        abouts = Coded.of([", ".join(map(show, cells)) for cells in told] if keys else [])
        if not 0 < len(abouts.values) <= _MOST_PARTS:
            return
        parts = [every[abouts.codes == code] for code in range(len(abouts.values))]
        if all(_once(self.samples[rows]) for rows in parts):
            yield from zip(abouts.values, parts, strict=True)


class SampleTables:
    """All that the results of a run say of single samples.

    Args:
        results: By analysis.
        samples: Those of the run.
    """

    def __init__(self, results: Mapping[str, Result], samples: SampleTable) -> None:
        self._samples = samples
        self.tables = [
            SampleRows(name, result, table, self._numbers(table))
            for name, result in results.items()
            for table in result.tables
            if "sample" in table.columns and len(table)
        ]

    @cached_property
    def columns(self) -> Mapping[str, SampleColumn]:
        """The columns that samples can be filtered by, by name; not all of a great many."""
        count = len(self._samples)
        found = (column for table in self.tables for column in table.columns(count))
        return {column.name: column for column in islice(found, _MOST_COLUMNS)}

    @cached_property
    def right(self) -> Sequence[SampleColumn]:
        """The columns that say whether an answer is right."""
        named = [column for column in self.columns.values() if column.header in _RIGHT]
        return [column for column in named if column.kind == "choice"]

    def _numbers(self, table: Table) -> npt.NDArray[np.int32]:
        known = self._samples.numbers
        return np.array([known.get(str(name), -1) for name in table.columns["sample"]], np.int32)


def _peek(cells: Sequence[Cell]) -> Sequence[Cell]:
    if isinstance(cells, StoredColumn):
        return cells.first(_PEEKED)
    return list(islice(cells, _PEEKED))


def _once(samples: npt.NDArray[np.int32]) -> bool:
    """Whether no sample of the run has two rows."""
    known = samples[samples >= 0]
    return len(known) > 0 and int(np.bincount(known).max()) == 1


def _number(cell: Cell) -> float:
    value = scalar(cell)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(repr(one_line(value))[:80])
    return float(value)


def _judged(answer: Cell, label: Cell) -> str | None:
    if answer is None or label is None:
        return None
    return "right" if _plain(answer) == _plain(label) else "wrong"


def _plain(cell: Cell) -> str:
    return show(cell).strip().rstrip(".").casefold()
