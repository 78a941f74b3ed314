"""Results as data: findings, tables and figures. Renderers turn them into text, JSON and HTML.

Over 400 lines: a result is one tree of these classes, and who writes an analysis reads them all.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Literal

from vlmlens._display import AsHtml, AsSvg, brief, count
from vlmlens._features import (
    FeatureLabel,
    FeatureMap,
    FeaturePage,
    FeaturePlaces,
    FeatureSample,
    FeatureScene,
    check_features,
    features_from,
)
from vlmlens._graphs import GraphEdge, GraphNode, check_graph, graph_from
from vlmlens._scatters import ScatterPoint, ScatterSpace, check_scatter, scatter_from
from vlmlens.errors import MissingDependency

if TYPE_CHECKING:
    import pandas
    import polars
    import pyarrow

__all__ = [
    "OVERVIEW", "Cell", "FeatureLabel", "FeatureMap", "FeaturePage", "FeaturePlaces",
    "FeatureSample", "FeatureScene", "Figure", "Finding", "Glance", "GraphEdge", "GraphNode",
    "Result", "ScatterPoint", "ScatterSpace", "Series", "Sheet", "Table", "Verdict",
]  # fmt: skip

OVERVIEW = "overview"
"""The name of the result that puts together what all analyses of a run answer."""

_INT64 = 2**63

Cell = str | int | float | bool | None
_KEYS = ("target", "task", "kind", "word", "blank", "position", "column")


class Verdict(StrEnum):
    """The answer of a finding, in words that a reader can act on."""

    ENCODED = "encoded"
    NOT_ENCODED = "not encoded"
    USES_IMAGE = "uses the image"
    PARTLY = "partly uses the image"
    IGNORES_IMAGE = "ignores the image"
    RESTS_ON_REGION = "rests on the region"
    RESTS_ON_IMAGE = "rests on the image, not on the region"
    RESTS_ON_TEXT = "rests on the text"
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
    Verdict.RESTS_ON_REGION: "hiding the region changes the answer far more than other parts do",
    Verdict.RESTS_ON_IMAGE: "the answer follows the image, but not the region alone",
    Verdict.RESTS_ON_TEXT: "the answer is the same without the image",
    Verdict.INCONCLUSIVE: "neither shown nor excluded",
    Verdict.DIFFERS: "significant after correction for all tests",
    Verdict.NO_DIFFERENCE: "not significant, which does not prove equality",
    Verdict.INFO: "a description without a test",
}


@dataclass(frozen=True, slots=True)
class Finding(AsHtml):
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

    def __repr__(self) -> str:
        return brief(self, str(self.verdict), self.text)


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

    def __repr__(self) -> str:
        return brief(self, self.subject, f"{self.question} {self.text}")


@dataclass(frozen=True, slots=True)
class Table(AsHtml):
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
        return tuple(name for name in self.keys or _KEYS if name in self.columns)

    def rows(self) -> list[tuple[Cell, ...]]:
        """The table row by row."""
        return list(zip(*self.columns.values(), strict=True))

    def to_arrow(self) -> pyarrow.Table:
        """The table as an Arrow table: one type per column, text where values are of several."""
        import pyarrow

        return pyarrow.table({name: _arrow(values) for name, values in self.columns.items()})

    def to_pandas(self) -> pandas.DataFrame:
        """The table as a pandas DataFrame.

        Raises:
            MissingDependency: pandas is not installed.
        """
        try:
            import pandas  # noqa: F401  pyarrow needs it, and its own error does not say so
        except ImportError as error:
            raise _not_installed("pandas") from error
        frame: pandas.DataFrame = self.to_arrow().to_pandas()
        return frame

    def to_polars(self) -> polars.DataFrame:
        """The table as a Polars DataFrame.

        Raises:
            MissingDependency: Polars is not installed.
        """
        try:
            import polars
        except ImportError as error:
            raise _not_installed("polars") from error
        frame = polars.from_arrow(self.to_arrow())
        assert isinstance(frame, polars.DataFrame)  # noqa: S101  a table, not one column
        return frame

    def __repr__(self) -> str:
        return brief(self, self.name, count(len(self), "row"), count(len(self.columns), "column"))


def _not_installed(package: str) -> MissingDependency:
    return MissingDependency(
        f"`to_{package}` needs the package {package}, which is not installed.",
        subject=package,
        hint=f"Install it (pip install {package}), or use `to_arrow()` or `columns`.",
    )


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

    def __repr__(self) -> str:
        return brief(self, self.name, count(len(self.y), "value"))


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

    def __repr__(self) -> str:
        return brief(self, self.name, count(len(self.cells), "layer"))


@dataclass(frozen=True, slots=True)
class Figure(AsSvg):
    """A figure as data.

    Args:
        name: File name without suffix; letters, digits, hyphens.
        title: What it shows, as a sentence fragment.
        kind: "line" or "bar" (from `series` over `x`), "heatmap" (from `cells`), "lens" (a table
            of layers by positions, a sample at a time) or "patches" (values over a sample's
            picture, a layer at a time), both from `sheets`; "graph" (from `nodes` and `edges`);
            "features" (a page for each feature, from `pages` and `scenes`); "scatter" (`points`
            of the kinds in `x`, in `spaces` of two or three axes that are turned with the mouse).
        x: Positions along the horizontal axis: labels of layers, of answers, ...; lanes of a graph.
        x_label: Its name; `y_label` likewise, of "lens" and "patches" what the cells hold, of
            "graph" what the values of nodes are, and `x_label` what those of edges are.
        series: For lines and bars.
        y: Row labels of a heat map; the layers of "lens", "patches" and "graph", in order of depth.
        cells: Heat map values `[len(y)][len(x)]`, and `texts` of the same shape to print in them.
        y_range: Fixed limits of the vertical axis, or of the colours.
        sheets: For "lens" and "patches", the first one is what a file for papers shows.
        nodes: Of a graph; `edges` likewise.
        pages: Of "features", each of another feature.
        scenes: The samples of these pages: what else fires in them.
        points: Of "scatter".
        spaces: Of "scatter", each of which places all points. The first one is shown first, and is
            what a file for papers shows.
    """

    name: str
    title: str
    kind: Literal["line", "bar", "heatmap", "lens", "patches", "graph", "features", "scatter"]
    x: Sequence[str]
    x_label: str = ""
    y_label: str = ""
    series: Sequence[Series] = ()
    y: Sequence[str] = ()
    cells: Sequence[Sequence[float | None]] = ()
    texts: Sequence[Sequence[str]] = ()
    y_range: tuple[float, float] | None = None
    sheets: Sequence[Sheet] = ()
    nodes: Sequence[GraphNode] = ()
    edges: Sequence[GraphEdge] = ()
    pages: Sequence[FeaturePage] = ()
    scenes: Sequence[FeatureScene] = ()
    points: Sequence[ScatterPoint] = ()
    spaces: Sequence[ScatterSpace] = ()

    def __post_init__(self) -> None:
        check_graph(self.name, (len(self.y), len(self.x)), self.nodes, self.edges)
        check_features(self.name, self.pages, self.scenes)
        check_scatter(self.name, len(self.x), self.points, self.spaces)
        for sheet in self.sheets:
            self._check(sheet)
        wide = [series.name for series in self.series if len(series.y) != len(self.x)]
        rows = [*self.cells, *self.texts]
        if wide or any(len(row) != len(self.x) for row in rows):
            raise ValueError(f"figure {self.name!r}: {wide or 'cells'} do not match its x")
        if self.kind == "heatmap" and len(self.cells) != len(self.y):
            raise ValueError(f"figure {self.name!r}: {len(self.cells)} rows of cells, y differs")

    def _check(self, sheet: Sheet) -> None:
        width = len(sheet.boxes if self.kind == "patches" else sheet.x or self.x)
        for name in ("cells", "texts", "tips"):
            rows: Sequence[Sequence[Any]] = getattr(sheet, name)
            wanted = len(self.y) if rows or name == "cells" else 0
            if [len(row) for row in rows] != [width] * wanted:
                raise ValueError(
                    f"figure {self.name!r}: the {name} of sheet {sheet.name!r} are not "
                    f"{len(self.y)} layers of {width}"
                )

    def __repr__(self) -> str:
        return brief(self, self.name, self.kind, self.title)


@dataclass(frozen=True, slots=True)
class Result(AsHtml):
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

    def __repr__(self) -> str:
        kinds = {"finding": self.findings, "table": self.tables, "figure": self.figures}
        facts = (count(len(items), kind) for kind, items in kinds.items())
        return brief(self, self.analysis, *facts)


def _arrow(values: Sequence[Any]) -> pyarrow.Array:
    """One Arrow type for all values of a column; numpy scalars count as numbers."""
    import pyarrow

    items = [item.item() if getattr(item, "ndim", None) == 0 else item for item in values]
    present = [item for item in items if item is not None]
    convert, kind = _arrow_type(present)
    made = [None if item is None else convert(item) for item in items]
    return pyarrow.array(made, type=pyarrow.type_for_alias(kind))


def _arrow_type(present: Sequence[Any]) -> tuple[Callable[[Any], Any], str]:
    if present and all(isinstance(item, bool) for item in present):
        return bool, "bool"
    numbers = all(isinstance(item, int | float) and not isinstance(item, bool) for item in present)
    if present and numbers:
        small = all(isinstance(item, int) and -_INT64 <= item < _INT64 for item in present)
        return (int, "int64") if small else (float, "float64")
    return str, "string"


def _finding(data: Mapping[str, Any]) -> Finding:
    named = tuple(data.get("samples", ()))
    return Finding(**{**data, "verdict": Verdict(data["verdict"]), "samples": named})


def _glance(data: Mapping[str, Any]) -> Glance:
    made = {"verdict": Verdict(data["verdict"]), "curve": tuple(data["curve"])}
    return Glance(**{**data, **made})


def _figure(data: Mapping[str, Any]) -> Figure:
    limits = data["y_range"]
    series = [Series(**item) for item in data["series"]]
    sheets = tuple(_sheet(item) for item in data.get("sheets", ()))
    made = {"series": series, "sheets": sheets, "y_range": tuple(limits) if limits else None}
    parts = {**graph_from(data), **features_from(data), **scatter_from(data)}
    return Figure(**{**data, **made, **parts})


def _sheet(data: Mapping[str, Any]) -> Sheet:
    boxes = [tuple(box) if box else None for box in data["boxes"]]
    return Sheet(**{**data, "boxes": boxes})
