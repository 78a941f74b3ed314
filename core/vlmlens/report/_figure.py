"""A figure of the page: caption, legend and inline SVG in one or two sizes."""

from __future__ import annotations

from collections.abc import Sequence

from vlmlens.report._charts import draw_chart, legend
from vlmlens.report._heatmap import draw_heatmap
from vlmlens.report._markup import Markup, join, tag
from vlmlens.report._text import one_line
from vlmlens.results import Figure

_HALF, _FULL, _PHONE = 456.0, 940.0, 380.0
_MANY = 18


def draw_figures(figures: Sequence[Figure], files: Sequence[str]) -> Markup:
    """Figures two in a row; wide ones, and one that is left alone in its row, take a whole row.

    Args:
        figures: What to draw.
        files: Names of the same figures for papers, for the captions.
    """
    if not figures:
        return Markup("")
    drawn = [
        _element(figure, file, full)
        for figure, file, full in zip(figures, files, _full_rows(figures), strict=True)
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


def _element(figure: Figure, file: str, full: bool) -> Markup:
    caption = tag("figcaption", one_line(figure.title), " ", tag("small", file))
    drawn = _drawing(figure, full)
    return tag("figure", caption, drawn, class_="full" if full else "half")


def _is_wide(figure: Figure) -> bool:
    if figure.kind == "heatmap":
        return True
    bars = sum(not item.dashed for item in figure.series) if figure.kind == "bar" else 1
    return len(figure.x) * max(bars, 1) > _MANY


def _drawing(figure: Figure, full: bool) -> Markup:
    if not figure.x or not (figure.series or figure.cells):
        return tag("p", "Nothing to draw.", class_="muted")
    if figure.kind == "heatmap":
        label = f"{one_line(figure.title)}, scrollable"
        drawn = draw_heatmap(figure, _FULL)
        return tag("div", drawn, class_="scroll", tabindex="0", role="region", aria_label=label)
    wide = tag("div", draw_chart(figure, _FULL if full else _HALF), class_="wide")
    narrow = tag("div", draw_chart(figure, _PHONE), class_="narrow")
    return join([legend(figure), wide, narrow])
