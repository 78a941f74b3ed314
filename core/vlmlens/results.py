"""Results as data: findings, tables and figures. Renderers turn them into text, JSON and HTML."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Literal

Cell = str | int | float | bool | None


class Verdict(StrEnum):
    """The answer of a finding, in words that a reader can act on."""

    ENCODED = "encoded"
    NOT_ENCODED = "not encoded"
    USES_IMAGE = "uses the image"
    IGNORES_IMAGE = "ignores the image"
    INCONCLUSIVE = "inconclusive"
    INFO = "info"


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was found.

    Args:
        text: One sentence, complete by itself, with the numbers that carry it.
        verdict: The answer in short.
        subject: What it is about: a task, a column.
        values: The numbers behind the sentence, by name.
        scope: The part of the model that it holds for, where it is not all of it.
    """

    text: str
    verdict: Verdict = Verdict.INFO
    subject: str = ""
    values: Mapping[str, Cell] = field(default_factory=dict)
    scope: str = ""


@dataclass(frozen=True, slots=True)
class Table:
    """A table by columns of equal length.

    Args:
        name: File name without suffix; letters, digits, hyphens.
        title: For people.
        columns: Values by column header, in order.
    """

    name: str
    title: str
    columns: Mapping[str, Sequence[Cell]]

    def __post_init__(self) -> None:
        lengths = {header: len(values) for header, values in self.columns.items()}
        if len(set(lengths.values())) > 1:
            raise ValueError(f"the columns of table {self.name!r} differ in length: {lengths}")

    def __len__(self) -> int:
        return len(next(iter(self.columns.values()), ()))

    def rows(self) -> list[tuple[Cell, ...]]:
        """The table row by row."""
        return list(zip(*self.columns.values(), strict=True))


@dataclass(frozen=True, slots=True)
class Series:
    """One line or group of bars.

    Args:
        name: For the legend.
        y: A value per position of the figure's `x`; None leaves a gap.
        low: Lower end of the interval around `y`, where there is one; `high` likewise.
        dashed: Drawn as a reference (a baseline, a chance level).
    """

    name: str
    y: Sequence[float | None]
    low: Sequence[float | None] | None = None
    high: Sequence[float | None] | None = None
    dashed: bool = False


@dataclass(frozen=True, slots=True)
class Figure:
    """A figure as data.

    Args:
        name: File name without suffix; letters, digits, hyphens.
        title: What it shows, as a sentence fragment.
        kind: "line" or "bar" (from `series` over `x`), or "heatmap" (from `cells`).
        x: Positions along the horizontal axis: labels of layers, of answers, ...
        x_label: Its name; `y_label` likewise.
        series: For lines and bars.
        y: Row labels of a heat map.
        cells: Heat map values `[len(y)][len(x)]`, and `texts` of the same shape to print in them.
        y_range: Fixed limits of the vertical axis, or of the heat map's colours.
    """

    name: str
    title: str
    kind: Literal["line", "bar", "heatmap"]
    x: Sequence[str]
    x_label: str = ""
    y_label: str = ""
    series: Sequence[Series] = ()
    y: Sequence[str] = ()
    cells: Sequence[Sequence[float | None]] = ()
    texts: Sequence[Sequence[str]] = ()
    y_range: tuple[float, float] | None = None

    def __post_init__(self) -> None:
        wide = [series.name for series in self.series if len(series.y) != len(self.x)]
        rows = [*self.cells, *self.texts]
        if wide or any(len(row) != len(self.x) for row in rows):
            raise ValueError(f"figure {self.name!r}: {wide or 'cells'} do not match its x")
        if self.kind == "heatmap" and len(self.cells) != len(self.y):
            raise ValueError(f"figure {self.name!r}: {len(self.cells)} rows of cells, y differs")


@dataclass(frozen=True, slots=True)
class Result:
    """What an analysis found.

    Args:
        analysis: The plugin's name.
        title: For people.
        findings: Most important first.
        tables: Complete numbers.
        figures: What is worth looking at.
        options: The options that the analysis ran with.
        notes: How the numbers were made, in sentences: method, source of a formula, caveats.
        warnings: What the reader must know before trusting it: fallbacks, dropped classes.
    """

    analysis: str
    title: str
    findings: Sequence[Finding] = ()
    tables: Sequence[Table] = ()
    figures: Sequence[Figure] = ()
    options: Mapping[str, Any] = field(default_factory=dict)
    notes: Sequence[str] = ()
    warnings: Sequence[str] = ()

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Result:
        """A result from its JSON form, which `vlmlens.report.files.to_json` writes."""
        return cls(
            analysis=data["analysis"],
            title=data["title"],
            findings=[_finding(item) for item in data["findings"]],
            tables=[Table(**item) for item in data["tables"]],
            figures=[_figure(item) for item in data["figures"]],
            options=data["options"],
            notes=data["notes"],
            warnings=data["warnings"],
        )

    def table(self, name: str) -> Table:
        """The table of that name.

        Raises:
            KeyError: There is none; says which there are.
        """
        for table in self.tables:
            if table.name == name:
                return table
        raise KeyError(f"no table {name!r}; there are {[table.name for table in self.tables]}")


def _finding(data: Mapping[str, Any]) -> Finding:
    return Finding(**{**data, "verdict": Verdict(data["verdict"])})


def _figure(data: Mapping[str, Any]) -> Figure:
    limits = data["y_range"]
    series = [Series(**item) for item in data["series"]]
    return Figure(**{**data, "series": series, "y_range": tuple(limits) if limits else None})
