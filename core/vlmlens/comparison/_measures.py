"""The numbers of a side that can be compared: of single samples, or with intervals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import isclose
from statistics import fmean

from vlmlens.comparison._differences import Measured
from vlmlens.comparison._sides import Side
from vlmlens.report._text import finite, scalar
from vlmlens.results import Cell, Table

About = tuple[str, ...]
_ROUNDING = 1e-6


@dataclass(frozen=True, slots=True)
class Measure:
    """One number of an analysis, by what it is about.

    Args:
        analysis: Whose.
        name: The table's column.
        keys: What it is told apart by.
        single: Where it is of single samples: values by sample id, by what they are about.
        known: Else: the number with its interval, by what it is about.
        yes_no: Whether it is a share of samples.
    """

    analysis: str
    name: str
    keys: tuple[str, ...]
    single: Mapping[About, Mapping[str, float]] = field(default_factory=dict)
    known: Mapping[About, Measured] = field(default_factory=dict)
    yes_no: bool = False

    def is_mean_of(self, single: Measure) -> bool:
        """Whether these numbers with intervals are the means of those of single samples."""
        mine, others = (self.analysis, self.keys), (single.analysis, single.keys)
        if mine != others or not self.known or set(self.known) != set(single.single):
            return False
        return all(
            isclose(number.value, fmean(single.single[about].values()), abs_tol=_ROUNDING)
            for about, number in self.known.items()
        )


def measures(side: Side) -> dict[tuple[str, str, str], Measure]:
    """All of a side's measures, by analysis, table and name."""
    return {
        (result.analysis, table.name, made.name): made
        for result in side.results.values()
        for table in result.tables
        for made in _of_table(result.analysis, table, side)
    }


def _of_table(analysis: str, table: Table, side: Side) -> list[Measure]:
    column = side.column
    keys = table.about
    if column is not None and "column" not in keys:
        return []
    shown = tuple(key for key in keys if column is None or key != "column")
    rows = [
        row
        for row in (dict(zip(table.columns, cells, strict=True)) for cells in table.rows())
        if column is None or row.get("column", column) == column
    ]
    abouts = [tuple(str(row[key]) for key in shown) for row in rows]
    if "sample" in table.columns:
        places = list(zip((str(row["sample"]) for row in rows), abouts, strict=True))
        return _single(analysis, table, rows, shown, places) if _unique(places) else []
    independent = len(set(side.groups.values()))
    made = _with_intervals(analysis, table, rows, shown, abouts, independent)
    return made if _unique(abouts) else []


def _unique(items: Sequence[object]) -> bool:
    return len(set(items)) == len(items)


def _single(
    analysis: str,
    table: Table,
    rows: Sequence[Mapping[str, Cell]],
    keys: tuple[str, ...],
    places: Sequence[tuple[str, About]],
) -> list[Measure]:
    made = []
    for name, values in _columns(table, rows, keys).items():
        single: dict[About, dict[str, float]] = {}
        for (sample, about), value in zip(places, values, strict=True):
            number = finite(value)
            if number is not None:
                single.setdefault(about, {})[sample] = number
        known = [value for value in values if value is not None]
        yes_no = all(isinstance(value, bool) for value in known)
        if single:
            made.append(Measure(analysis, name, keys, single=single, yes_no=yes_no))
    return made


def _columns(
    table: Table, rows: Sequence[Mapping[str, Cell]], keys: tuple[str, ...]
) -> dict[str, list[Cell]]:
    """Numbers and truth values by name; an answer that can be the label gives one more."""
    found: dict[str, list[Cell]] = {}
    for name in table.columns:
        values = [scalar(row[name]) for row in rows]
        if name.startswith("answer") and "label" in table.columns:
            right: list[Cell] = [_is_label(row, name) for row in rows]
            if any(right):
                found[f"{name} is the label"] = right
        elif name not in (*keys, "sample", "label") and all(
            isinstance(value, int | float | None) for value in values
        ):
            found[name] = values
    return found


def _is_label(row: Mapping[str, Cell], name: str) -> bool | None:
    return None if row["label"] is None or row[name] is None else row[name] == row["label"]


def _with_intervals(
    analysis: str,
    table: Table,
    rows: Sequence[Mapping[str, Cell]],
    keys: tuple[str, ...],
    abouts: Sequence[About],
    independent: int,
) -> list[Measure]:
    """Numbers with intervals; a rank says where a column stands among others of its own run.

    `independent` is how many groups of samples the run has.
    """
    made = []
    for name in table.columns:
        ends = (name, f"{name}_low", f"{name}_high")
        if not all(end in table.columns for end in ends) or _is_rank(name):
            continue
        known = {}
        for about, row in zip(abouts, rows, strict=True):
            value, low, high = (_number(row[end]) for end in ends)
            if value is not None and low is not None and high is not None:
                of = _number(row.get("samples"))
                samples = independent if of is None else min(independent, int(of))
                known[about] = Measured(value, low, high, samples)
        if known:
            made.append(Measure(analysis, name, keys, known=known))
    return made


def _is_rank(name: str) -> bool:
    return name.rsplit("_", maxsplit=1)[-1] in {"rank", "ranks"}


def _number(value: Cell) -> float | None:
    return None if isinstance(value, str) else finite(value)
