"""Figures as SVG and PNG files for papers, by matplotlib.

A paper needs fixed colours, exact sizes and text that stays text, so these files are made apart
from the page's own figures. The same figure gives the same bytes. No pyplot, no global state.
"""

from __future__ import annotations

import io
import os
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from textwrap import wrap
from typing import TYPE_CHECKING, Any

from vlmlens.report._heatmap import cell_texts
from vlmlens.report._labels import grouped, shortened
from vlmlens.report._scale import limits
from vlmlens.report._text import cut, finite, one_line
from vlmlens.report._theme import DASHES, RAMP_LIGHT, SERIES_LIGHT, ink, level, ramp
from vlmlens.results import Figure, Series, Sheet

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure as Paper
    from matplotlib.text import Text
    from PIL.Image import Image

_MARKERS = "os^D"
_STYLE = {
    "svg.fonttype": "none",
    "svg.hashsalt": "vlmlens",
    "font.size": 8.0,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 9.0,
}
_LONGEST_TEXT = 16
_LONGEST_LABEL = 40
_REFERENCE = "#333333"
_LETTER = 0.07
"""Inches per letter."""
_LINE = 0.15
"""Inches per line of a title."""


def figure_svg(figure: Figure, sheet: Sheet | None = None, picture: Image | None = None) -> bytes:
    """The figure as an SVG file. Text is never read as TeX, whatever it holds.

    Args:
        figure: What to draw.
        sheet: Which of its sheets, where it has some; default: the first.
        picture: What lies under a map of patches.
    """
    _import_matplotlib()
    from matplotlib.backends.backend_svg import FigureCanvasSVG

    def save(paper: Paper, sink: io.BytesIO) -> None:
        # `savefig` would draw it once more beforehand, for the layout alone.
        meta = {"Date": None, "Creator": "vlmlens"}
        canvas: Any = FigureCanvasSVG(paper)
        canvas.print_svg(sink, metadata=meta)

    return _file(figure, sheet, picture, save)


def figure_png(figure: Figure, sheet: Sheet | None = None, picture: Image | None = None) -> bytes:
    """The figure as a PNG file with 300 dots per inch; arguments as of `figure_svg`."""
    _import_matplotlib()
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    def save(paper: Paper, sink: io.BytesIO) -> None:
        FigureCanvasAgg(paper)
        paper.savefig(sink, format="png", metadata={"Software": "vlmlens"}, dpi=300)

    return _file(figure, sheet, picture, save)


def _import_matplotlib() -> None:
    """Import matplotlib, also where MPLBACKEND names a backend that is not installed.

    Jupyter sets that variable for the commands of its cells. No backend is needed here, but the
    user's own plots in this process may need it, so it is set afterwards where it can be.
    """
    if "matplotlib" in sys.modules:
        return
    named = os.environ.pop("MPLBACKEND", None)
    try:
        import matplotlib
    finally:
        if named is not None:
            os.environ["MPLBACKEND"] = named
    if named:
        with suppress(ValueError):
            matplotlib.rcParams["backend"] = named


def _file(
    figure: Figure,
    sheet: Sheet | None,
    picture: Image | None,
    save: Callable[[Paper, io.BytesIO], None],
) -> bytes:
    from matplotlib import rc_context
    from matplotlib.figure import Figure as Paper

    from vlmlens.report._features_paper import draw_features_paper, features_size
    from vlmlens.report._graph_paper import draw_graph_paper, graph_size
    from vlmlens.report._maps import draw_maps, map_size
    from vlmlens.report._scatter_paper import draw_scatter_paper, scatter_size

    whole = {
        "graph": (graph_size, draw_graph_paper),
        "features": (features_size, draw_features_paper),
        "scatter": (scatter_size, draw_scatter_paper),
    }
    shown = sheet or (figure.sheets[0] if figure.sheets else None)
    if shown is not None and figure.kind == "lens":
        figure, shown = _as_heatmap(figure, shown), None
    with rc_context(_STYLE), _quiet_fonts():  # type: ignore[arg-type]
        if figure.kind in whole:
            size = whole[figure.kind][0](figure)
        else:
            size = _size(figure) if shown is None else map_size(figure, picture)
        paper = Paper(figsize=size, layout="constrained")
        if figure.kind in whole:
            whole[figure.kind][1](figure, paper)
        elif shown is None:
            _draw_axes(figure, paper)
        else:
            draw_maps(figure, shown, picture, paper)
        sink = io.BytesIO()
        save(paper, sink)
    return sink.getvalue()


def _as_heatmap(figure: Figure, sheet: Sheet) -> Figure:
    """The table of one sample as a heat map."""
    return replace(
        figure,
        title=f"{figure.title}: {sheet.name}",
        kind="heatmap",
        x=sheet.x or figure.x,
        cells=sheet.cells,
        texts=sheet.texts,
        y_range=limits(figure),
        y_label="layer",
        sheets=(),
    )


def _draw_axes(figure: Figure, paper: Paper) -> None:
    axes = paper.add_subplot()
    _draw(figure, axes)
    title = _wrapped(one_line(figure.title), figure, paper)
    axes.set_title(title, parse_math=False, loc="left")
    axes.set_xlabel(cut(one_line(figure.x_label), _LONGEST_LABEL), parse_math=False)
    axes.set_ylabel(cut(one_line(figure.y_label), _LONGEST_LABEL), parse_math=False)


def _wrapped(title: str, figure: Figure, paper: Paper) -> str:
    """A title in lines of the width that the figure leaves, and a figure that is as high."""
    wide, high = paper.get_size_inches()
    labels = _LETTER * max((len(row) for row in _row_labels(figure)), default=0)
    lines = wrap(title, max(24, int((wide - 0.8 - labels) / _LETTER)))
    paper.set_size_inches(wide, high + _LINE * (len(lines) - 1))
    return "\n".join(lines)


@contextmanager
def _quiet_fonts() -> Iterator[None]:
    """Text stays text in the file, so a letter that the measuring font lacks is no defect."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        yield


def _size(figure: Figure) -> tuple[float, float]:
    """Width and height in inches."""
    each = 0.75 if figure.kind == "bar" else 0.24
    wide, high = max(4.5, min(each * len(figure.x) + 2.2, 14.0)), 2.6
    if figure.kind == "heatmap":
        texts = max((len(text) for row in cell_texts(figure) for text in row), default=0)
        cell = 0.12 + 0.065 * min(texts, _LONGEST_TEXT)
        rows = _LETTER * max((len(row) for row in _row_labels(figure)), default=0)
        wide, high = (
            max(3.5, 1.6 + rows + cell * len(figure.x)),
            max(1.5, 0.8 + 0.17 * len(figure.y)),
        )
    return wide, high + _LETTER * _lines(_tick_labels(figure.x), _slot(figure, wide))


def _slot(figure: Figure, wide: float) -> float:
    """About how many inches a position of the horizontal axis has."""
    return (wide - 2.0) / max(len(figure.x), 1)


def _lines(labels: Sequence[str], slot: float) -> int:
    """How many letters the labels reach down."""
    longest = max((len(label) for label in labels), default=0)
    return longest if _slanted(labels, slot) else 5


def _slanted(labels: Sequence[str], slot: float) -> bool:
    stacked = any("\n" in label for label in labels)
    return not stacked and any(len(label) * _LETTER > slot for label in labels)


def _tick_labels(labels: Sequence[str]) -> list[str]:
    r"""Labels of the ticks: layers by number, with their common name once below the middle.

    >>> _tick_labels(["llm.block.0/last", "llm.block.1/last", "llm.block.2/last"])
    ['0', '1\nllm.block\nlast', '2']
    """
    found = grouped(labels)
    if found is None:
        return [cut(label, _LONGEST_LABEL) for label in shortened(labels)]
    ticks: list[str] = []
    for group in found:
        below = f"\n{group.name}\n{group.detail}".rstrip()
        if not group.numbers:
            ticks.append(f"\n\n{below}")
            continue
        step = max(1, len(group.numbers) // 8)
        middle = (len(group.numbers) - 1) // 2 // step * step
        for place, number in enumerate(group.numbers):
            shown = str(number) if place % step == 0 else ""
            ticks.append(shown + (below if place == middle else ""))
    return ticks


def _draw(figure: Figure, axes: Axes) -> None:
    _label_positions(figure, axes)
    if figure.kind in ("heatmap", "lens", "patches"):
        _heatmap(figure, axes)
        return
    for index, item in enumerate(figure.series):
        colour = _REFERENCE if item.dashed else SERIES_LIGHT[index % len(SERIES_LIGHT)]
        if figure.kind == "line":
            _line(index, item, colour, axes)
        else:
            _bars(index, item, colour, figure, axes)
    axes.set_ylim(*limits(figure))
    axes.grid(axis="y", linewidth=0.4, alpha=0.6)
    axes.set_axisbelow(True)
    _legend(figure, axes)


def _label_positions(figure: Figure, axes: Axes) -> None:
    labels = _tick_labels(figure.x)
    slanted = _slanted(labels, _slot(figure, _size(figure)[0]))
    turn = 90 if slanted else 0
    axes.set_xticks(range(len(labels)), labels, parse_math=False, rotation=turn)


def _line(index: int, item: Series, colour: str, axes: Axes) -> None:
    places = range(len(item.y))
    axes.plot(
        places,
        _numbers(item.y),
        color=colour,
        linewidth=1.2,
        linestyle=DASHES[index % len(DASHES)] if item.dashed else "-",
        marker="" if item.dashed else _MARKERS[index % len(_MARKERS)],
        markersize=3,
        label=str(index),
    )
    if item.low is not None and item.high is not None:
        low, high = _numbers(item.low), _numbers(item.high)
        axes.fill_between(places, low, high, color=colour, alpha=0.15, linewidth=0)


def _bars(index: int, item: Series, colour: str, figure: Figure, axes: Axes) -> None:
    count = len(item.y)
    if item.dashed:
        lows, highs = [i - 0.44 for i in range(count)], [i + 0.44 for i in range(count)]
        look = DASHES[index % len(DASHES)]
        axes.hlines(_numbers(item.y), lows, highs, colour, look, label=str(index), linewidth=1.2)
        return
    solid = [i for i, other in enumerate(figure.series) if not other.dashed]
    thick = 0.8 / len(solid)
    shift = (solid.index(index) - (len(solid) - 1) / 2) * thick
    places = [place + shift for place in range(count)]
    axes.bar(places, _numbers(item.y), thick * 0.9, color=colour, label=str(index))
    if item.low is not None and item.high is not None:
        low, high = _numbers(item.low), _numbers(item.high)
        axes.vlines(places, low, high, _REFERENCE, linewidth=0.8)


def _legend(figure: Figure, axes: Axes) -> None:
    """Names are set afterwards: matplotlib hides a label that begins with an underscore."""
    if not figure.series:
        return
    found = axes.legend(
        loc="upper left", bbox_to_anchor=(1.0, 1.0), frameon=False, fontsize=7
    ).get_texts()
    for text in found:
        _set(text, figure.series[int(text.get_text())].name)


def _set(text: Text, content: str) -> None:
    text.set_parse_math(False)
    text.set_text(one_line(content))


def _row_labels(figure: Figure) -> list[str]:
    return [cut(label, _LONGEST_LABEL) for label in shortened(figure.y)]


def _heatmap(figure: Figure, axes: Axes) -> None:
    from matplotlib.colors import ListedColormap

    low, high = limits(figure)
    numbers = [_numbers(row) for row in figure.cells]
    if not numbers or not figure.x:
        return
    colours = ListedColormap(ramp(RAMP_LIGHT))
    image = axes.imshow(numbers, cmap=colours, vmin=low, vmax=high, aspect="auto")
    rows = _row_labels(figure)
    axes.set_yticks(range(len(rows)), rows, parse_math=False)
    axes.figure.colorbar(image, ax=axes, fraction=0.03, pad=0.02)
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0)
    _heatmap_texts(figure, axes, (low, high))


def _heatmap_texts(figure: Figure, axes: Axes, ends: tuple[float, float]) -> None:
    inks = [ink(colour) for colour in ramp(RAMP_LIGHT)]
    for i, row in enumerate(cell_texts(figure)):
        for j, content in enumerate(row):
            value = finite(figure.cells[i][j])
            colour = "black" if value is None else inks[level(value, *ends)]
            shown = cut(content, _LONGEST_TEXT)
            axes.text(
                j, i, shown, ha="center", va="center", color=colour, parse_math=False,
                fontsize=6.5, family="monospace",
            )  # fmt: skip


def _numbers(values: Sequence[float | None]) -> list[float]:
    """The values with NaN for what is missing, which matplotlib leaves out."""
    numbers = [finite(value) for value in values]
    return [float("nan") if number is None else number for number in numbers]
