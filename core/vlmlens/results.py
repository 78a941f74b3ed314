"""Results as data: findings, tables and figures. Renderers turn them into text, JSON and HTML."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Literal

OVERVIEW = "overview"
"""The name of the result that puts together what all analyses of a run answer."""

Cell = str | int | float | bool | None
_KEYS = ("target", "task", "kind", "word", "blank", "position", "column")


class Verdict(StrEnum):
    """The answer of a finding, in words that a reader can act on."""

    ENCODED = "encoded"
    NOT_ENCODED = "not encoded"
    USES_IMAGE = "uses the image"
    PARTLY = "partly uses the image"
    IGNORES_IMAGE = "ignores the image"
    INCONCLUSIVE = "inconclusive"
    DIFFERS = "differs"
    NO_DIFFERENCE = "no difference seen"
    INFO = "info"

    @property
    def meaning(self) -> str:
        """What it says, for a legend."""
        return _MEANINGS[self]


_MEANINGS = {
    Verdict.ENCODED: "a probe reads it, significantly and clearly above its controls",
    Verdict.NOT_ENCODED: "an effect of the minimum size is excluded",
    Verdict.USES_IMAGE: "answers depend on the image, significantly and largely",
    Verdict.PARTLY: "answers depend on the image, perhaps only a little",
    Verdict.IGNORES_IMAGE: "a change of answers of the minimum size is excluded",
    Verdict.INCONCLUSIVE: "neither shown nor excluded",
    Verdict.DIFFERS: "significant after correction for all tests",
    Verdict.NO_DIFFERENCE: "not significant, which does not prove equality",
    Verdict.INFO: "a description without a test",
}


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was found.

    Args:
        text: One sentence, complete by itself, with the numbers that carry it.
        verdict: The answer in short.
        subject: What it is about: a task, a column.
        values: The numbers behind the sentence, by name.
        scope: The part of the model that it holds for, where it is not all of it.
        samples: Ids of the samples behind it, where they are not all those of the task `subject`.
        notable: Whether it is surprising enough to stand on the first screen of a run.
    """

    text: str
    verdict: Verdict = Verdict.INFO
    subject: str = ""
    values: Mapping[str, Cell] = field(default_factory=dict)
    scope: str = ""
    samples: Sequence[str] = ()
    notable: bool = False


@dataclass(frozen=True, slots=True)
class Glance:
    """What an analysis answers about one subject in a few words: one cell of a run's overview.

    Args:
        subject: The task or attribute: the row.
        question: The column, in the words of its heading: "can be read from".
        text: The answer in a few words: "vision.block.2 on".
        verdict: The answer in short.
        value: The one number that carries it, say an accuracy from 0 to 1.
        beside: What the number is to be held against, in a few words: "blind 0.13".
        curve: The number over the layers, in order of depth, for a small curve; None leaves a gap.
    """

    subject: str
    question: str
    text: str
    verdict: Verdict = Verdict.INFO
    value: float | None = None
    beside: str = ""
    curve: Sequence[float | None] = ()


@dataclass(frozen=True, slots=True)
class Table:
    """A table by columns of equal length.

    A column `sample` holds sample ids: such a table says something of single samples. Columns
    `NAME_low` and `NAME_high` beside a column `NAME` are the ends of its 95 % interval.

    Args:
        name: File name without suffix; letters, digits, hyphens.
        title: For people.
        columns: Values by column header, in order.
        keys: The columns that say what a row is about, beside `sample`. Runs are compared row by
            row with them; empty: those named target, task, kind, word, blank, position, column.
    """

    name: str
    title: str
    columns: Mapping[str, Sequence[Cell]]
    keys: Sequence[str] = ()

    def __post_init__(self) -> None:
        lengths = {header: len(values) for header, values in self.columns.items()}
        if len(set(lengths.values())) > 1:
            raise ValueError(f"the columns of table {self.name!r} differ in length: {lengths}")

    def __len__(self) -> int:
        return len(next(iter(self.columns.values()), ()))

    @property
    def about(self) -> tuple[str, ...]:
        """`keys`, or what stands for them."""
        return tuple(self.keys) or tuple(name for name in _KEYS if name in self.columns)

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
class Sheet:
    """What a figure of kind "lens" or "patches" shows of one sample: `n` cells for each layer.

    Args:
        sample: The sample's id.
        cells: Values `[len(figure.y)][n]`; None where there is none.
        texts: `[len(figure.y)][n]`, what a cell says, say the most probable token.
        tips: `[len(figure.y)][n]`, what is shown of a cell that is pointed at, in lines.
        x: `[n]`, names of the positions or patches; empty where the figure's `x` has them.
        boxes: `[n]`, of patches: (left, top, right, bottom) in fractions of the picture's width
            and height; None for what has no place.
        image: Which of the sample's images the patches lie on.
        facets: What sheets are chosen by beside the sample, by name: the word that is followed,
            the view that is cut into patches.
    """

    sample: str
    cells: Sequence[Sequence[float | None]]
    texts: Sequence[Sequence[str]] = ()
    tips: Sequence[Sequence[str]] = ()
    x: Sequence[str] = ()
    boxes: Sequence[tuple[float, float, float, float] | None] = ()
    image: int = 0
    facets: Mapping[str, str] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """The sample with its facets."""
        return ", ".join([self.sample, *self.facets.values()])


@dataclass(frozen=True, slots=True)
class Figure:
    """A figure as data.

    Args:
        name: File name without suffix; letters, digits, hyphens.
        title: What it shows, as a sentence fragment.
        kind: "line" or "bar" (from `series` over `x`), "heatmap" (from `cells`), "lens" (a table
            of layers by positions, a sample at a time) or "patches" (values over a sample's
            picture, a layer at a time), both from `sheets`.
        x: Positions along the horizontal axis: labels of layers, of answers, ...
        x_label: Its name; `y_label` likewise, of "lens" and "patches" what the cells hold.
        series: For lines and bars.
        y: Row labels of a heat map; the layers of "lens" and "patches", in order of depth.
        cells: Heat map values `[len(y)][len(x)]`, and `texts` of the same shape to print in them.
        y_range: Fixed limits of the vertical axis, or of the colours.
        sheets: For "lens" and "patches", the first one is what a file for papers shows.
    """

    name: str
    title: str
    kind: Literal["line", "bar", "heatmap", "lens", "patches"]
    x: Sequence[str]
    x_label: str = ""
    y_label: str = ""
    series: Sequence[Series] = ()
    y: Sequence[str] = ()
    cells: Sequence[Sequence[float | None]] = ()
    texts: Sequence[Sequence[str]] = ()
    y_range: tuple[float, float] | None = None
    sheets: Sequence[Sheet] = ()

    def __post_init__(self) -> None:
        for sheet in self.sheets:
            self._check(sheet)
        wide = [series.name for series in self.series if len(series.y) != len(self.x)]
        rows = [*self.cells, *self.texts]
        if wide or any(len(row) != len(self.x) for row in rows):
            raise ValueError(f"figure {self.name!r}: {wide or 'cells'} do not match its x")
        if self.kind == "heatmap" and len(self.cells) != len(self.y):
            raise ValueError(f"figure {self.name!r}: {len(self.cells)} rows of cells, y differs")

    def _check(self, sheet: Sheet) -> None:
        count = len(sheet.boxes if self.kind == "patches" else sheet.x or self.x)
        for name in ("cells", "texts", "tips"):
            rows: Sequence[Sequence[Any]] = getattr(sheet, name)
            wanted = len(self.y) if rows or name == "cells" else 0
            if [len(row) for row in rows] != [count] * wanted:
                raise ValueError(
                    f"figure {self.name!r}: the {name} of sheet {sheet.name!r} are not "
                    f"{len(self.y)} layers of {count}"
                )


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
        overview: Its answer per task or attribute, for the overview of the run.
    """

    analysis: str
    title: str
    findings: Sequence[Finding] = ()
    tables: Sequence[Table] = ()
    figures: Sequence[Figure] = ()
    options: Mapping[str, Any] = field(default_factory=dict)
    notes: Sequence[str] = ()
    warnings: Sequence[str] = ()
    overview: Sequence[Glance] = ()

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Result:
        """A result from its JSON form, which `vlmlens.report.files.to_json` writes."""
        return cls(
            analysis=data["analysis"],
            title=data["title"],
            findings=[_finding(item) for item in data["findings"]],
            tables=[
                Table(**{**item, "keys": tuple(item.get("keys", ()))}) for item in data["tables"]
            ],
            figures=[_figure(item) for item in data["figures"]],
            options=data["options"],
            notes=data["notes"],
            warnings=data["warnings"],
            overview=tuple(_glance(item) for item in data.get("overview", ())),
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
    made = {"verdict": Verdict(data["verdict"]), "samples": tuple(data.get("samples", ()))}
    return Finding(**{**data, **made})


def _glance(data: Mapping[str, Any]) -> Glance:
    made = {"verdict": Verdict(data["verdict"]), "curve": tuple(data["curve"])}
    return Glance(**{**data, **made})


def _figure(data: Mapping[str, Any]) -> Figure:
    limits = data["y_range"]
    made = {
        "series": [Series(**item) for item in data["series"]],
        "sheets": tuple(_sheet(item) for item in data.get("sheets", ())),
        "y_range": tuple(limits) if limits else None,
    }
    return Figure(**{**data, **made})


def _sheet(data: Mapping[str, Any]) -> Sheet:
    boxes = [tuple(box) if box else None for box in data["boxes"]]
    return Sheet(**{**data, "boxes": boxes})
