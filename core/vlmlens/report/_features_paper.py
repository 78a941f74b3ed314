"""Features on paper: for each the histogram of its codes where it fires, by matplotlib."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vlmlens.report._text import cut, one_line
from vlmlens.report._theme import SERIES_LIGHT
from vlmlens.results import FeaturePage, Figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure as Paper

_ACROSS, _MOST = 4, 24
_WIDE, _HIGH = 1.75, 1.15
"""Of a panel, in inches."""
_LONGEST = 30


def features_size(figure: Figure) -> tuple[float, float]:
    """Width and height of the file in inches."""
    count = max(min(len(figure.pages), _MOST), 1)
    return max(min(count, _ACROSS) * _WIDE, 3.5), -(-count // _ACROSS) * _HIGH + 0.4


def draw_features_paper(figure: Figure, paper: Paper) -> None:
    """One panel per feature, of the first few; pictures are on the page only."""
    shown = figure.pages[:_MOST]
    more = f" (first {len(shown)} of {len(figure.pages)})" if len(figure.pages) > len(shown) else ""
    paper.suptitle(f"{one_line(figure.title)}{more}", fontsize=8.0, parse_math=False)
    down = -(-max(len(shown), 1) // _ACROSS)
    for place, page in enumerate(shown, 1):
        _panel(page, paper.add_subplot(down, min(_ACROSS, len(shown)), place))


def _panel(page: FeaturePage, axes: Axes) -> None:
    named = f"{page.number} {page.name}".strip()
    axes.set_title(cut(one_line(named), _LONGEST), fontsize=6.5, parse_math=False)
    if not page.counts:
        axes.set_axis_off()
        axes.text(0.5, 0.5, "does not fire", ha="center", fontsize=6.5, transform=axes.transAxes)
        return
    axes.bar(range(len(page.counts)), list(page.counts), width=0.9, color=SERIES_LIGHT[0])
    ends = [0, len(page.counts)]
    labels = [f"{page.edges[end]:.3g}" for end in ends]
    axes.set_xticks([end - 0.5 for end in ends], labels, fontsize=6)
    axes.tick_params(axis="y", labelsize=6)
