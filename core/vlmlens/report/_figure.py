"""A figure of the page: caption, legend and inline SVG in one or two sizes."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from vlmlens.report._charts import draw_chart, legend
from vlmlens.report._features import draw_features
from vlmlens.report._graph import draw_graph
from vlmlens.report._heatmap import draw_heatmap
from vlmlens.report._markup import Markup, join, tag
from vlmlens.report._pictures import Pictures
from vlmlens.report._scatter import draw_scatter
from vlmlens.report._sheets import draw_sheets
from vlmlens.report._text import one_line
from vlmlens.results import Figure

_HALF, _FULL, _PHONE = 456.0, 940.0, 380.0
_MANY = 18


def draw_figures(
    figures: Sequence[Figure],
    files: Sequence[str] | None = None,
    name: str = "figure",
    pictures: Pictures | None = None,
    about: Collection[int] = (),
) -> Markup:
    """Figures, two in a row. A wide one takes a whole row, and so does one that would stand alone.

    Args:
        figures: What to draw.
        files: Names of the same figures for papers, for the captions; None: there are none.
        name: What their element ids begin with.
        pictures: The samples' pictures, for maps of patches.
        about: Places of those that are marked.
    """
    if not figures:
        return Markup("")
    known = pictures or Pictures(())
    places = zip(figures, files or [""] * len(figures), _full_rows(figures), strict=True)
    drawn = [
        _element(figure, file, full, f"{name}-{index}", known, marked=index in about)
        for index, (figure, file, full) in enumerate(places)
    ]
    return tag("div", *drawn, class_="figures")


def _full_rows(figures: Sequence[Figure]) -> list[bool]:
    full: list[bool] = []
    for figure in figures:
        is_wide, open_half = _is_wide(figure), _open_half(full)
        if is_wide and open_half:
            full[-1] = True
        full.append(is_wide)
    if _open_half(full):
        full[-1] = True
    return full


def _open_half(full: Sequence[bool]) -> bool:
    """Whether the last row holds one half figure only."""
    halves = 0
    for is_full in full:
        halves = 0 if is_full else halves + 1
    return halves % 2 == 1


def _element(
    figure: Figure, file: str, full: bool, name: str, pictures: Pictures, *, marked: bool
) -> Markup:
    named = [" ", tag("small", file)] if file else []
    caption = tag("figcaption", one_line(figure.title), *named)
    if figure.kind in ("features", "scatter"):
        draw = draw_features if figure.kind == "features" else draw_scatter
        drawn = draw(figure, pictures)
    else:
        drawn = draw_sheets(figure, pictures, name) if figure.sheets else _drawing(figure, full)
    look = f"{'full' if full else 'half'} {figure.kind}{' about' if marked else ''}"
    return tag("figure", caption, drawn, class_=look, id=name)


def _is_wide(figure: Figure) -> bool:
    if figure.kind in ("heatmap", "lens", "patches", "graph", "features", "scatter"):
        return True
    bars = sum(not item.dashed for item in figure.series) if figure.kind == "bar" else 1
    return len(figure.x) * max(bars, 1) > _MANY


def _drawing(figure: Figure, full: bool) -> Markup:
    if not figure.x or not (figure.series or figure.cells or figure.nodes):
        return tag("p", "Nothing to draw.", class_="muted")
    readout = tag("p", class_="live readout", role="status")
    if figure.kind in ("heatmap", "graph"):
        label = f"{one_line(figure.title)}, scrollable"
        drawn = (draw_graph if figure.kind == "graph" else draw_heatmap)(figure, _FULL)
        region = {"tabindex": "0", "role": "region", "aria_label": label}
        return join([tag("div", drawn, class_="scroll", **region), readout])
    wide = tag("div", draw_chart(figure, _FULL if full else _HALF), class_="wide")
    narrow = tag("div", draw_chart(figure, _PHONE), class_="narrow")
    return join([legend(figure), wide, narrow, readout])
