"""What is inside of a model, in a notebook: its sites as a tree, a prompt's rows, one pass."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import groupby
from typing import TYPE_CHECKING

from vlmlens.report._markup import Markup, tag
from vlmlens.report._text import plural
from vlmlens.rows.layouts import PatchGrid, TokenKind, TokenLayout
from vlmlens.sites.site_map import SiteMap

if TYPE_CHECKING:
    from vlmlens.passes.tracing import Trace
    from vlmlens.sites.site import Site

_COLOURS = {
    TokenKind.TEXT: "#d6e8fb",
    TokenKind.IMAGE: "#fde3b5",
    TokenKind.SPECIAL: "#e4e4e4",
    TokenKind.ANSWER: "#d3f0d5",
    TokenKind.VIRTUAL: "#ead9f7",
}
_ROWS = 200
_VIEWS = 12
_SIDE = 120


def sites_html(sites: SiteMap) -> str:
    """The canonical sites as a tree that folds; each has its module's path."""
    found = list(sites.canonical.values())
    title = f"{plural(len(found), 'site')}, {plural(len(sites.modules), 'module')}"
    tree = (_branch(side, list(some)) for side, some in groupby(found, _first_word))
    return tag("div", tag("p", title), *tree)


def layout_html(layout: TokenLayout) -> str:
    """A prompt's rows in reading order, coloured by kind, and where image rows lie."""
    runs = [(kind, list(places)) for kind, places in _runs(layout)]
    spans = (_span(kind, places) for kind, places in runs[:_ROWS])
    more = f"and {len(runs) - _ROWS} more" if len(runs) > _ROWS else ""
    grids = _grids(layout.patches) if layout.patches is not None else ()
    return tag("div", tag("p", plural(len(layout), "row")), tag("p", *spans, more), *grids)


def trace_html(trace: Trace) -> str:
    """The sites of a pass, and the shape and size of each activation."""
    head = tag("tr", *(tag("th", name) for name in ("site", "shape", "dtype", "largest")))
    rows = [
        tag("tr", *(tag("td", cell) for cell in _facts(name, tensor)))
        for name, tensor in trace.items()
    ]
    title = f"{plural(len(trace.batch), 'sample')}, {plural(len(trace), 'site')}"
    table = tag("table", tag("thead", head), tag("tbody", *rows[:_ROWS]))
    more = tag("p", f"and {len(rows) - _ROWS} more") if len(rows) > _ROWS else ""
    return tag("div", tag("p", title), table, more)


def _facts(name: str, tensor: object) -> Iterator[str]:
    import torch

    assert isinstance(tensor, torch.Tensor)  # noqa: S101
    yield name
    yield " x ".join(map(str, tensor.shape))
    yield str(tensor.dtype).removeprefix("torch.")
    yield f"{float(tensor.abs().max()):.3g}" if tensor.numel() else "-"


def _first_word(site: Site) -> str:
    return site.name.partition(".")[0]


def _branch(side: str, sites: list[Site]) -> Markup:
    """One side of the model; a block with several sites folds by itself."""
    parts = []
    for number, some in groupby(sites, lambda site: site.index):
        own = list(some)
        items = tag("ul", *map(_leaf, own))
        folds = number is not None and len(own) > 1
        parts.append(tag("details", tag("summary", own[0].name), items) if folds else items)
    summary = tag("summary", f"{side} ({plural(len(sites), 'site')})")
    return tag("details", summary, *parts)


def _leaf(site: Site) -> Markup:
    return tag("li", tag("code", site.name), " ", tag("small", f"{site.path}, {site.axis}"))


def _runs(layout: TokenLayout) -> Iterator[tuple[TokenKind, Iterable[int]]]:
    yield from groupby(range(len(layout)), lambda place: TokenKind(int(layout.kinds[place])))


def _span(kind: TokenKind, places: list[int]) -> Markup:
    first, last = places[0], places[-1] + 1
    label = f"{kind.name.lower()} [{first}:{last}]"
    style = f"background:{_COLOURS[kind]};color:#111;padding:2px 6px;margin:1px;border-radius:3px"
    return tag("span", label, style=style, title=plural(len(places), "row"))


def _grids(grid: PatchGrid) -> Iterator[Markup]:
    """The grid of each view, as many as are shown."""
    found: dict[tuple[int, str], list[int]] = {}
    for place, view in enumerate(grid.view):
        found.setdefault((int(grid.image[place]), view), []).append(place)
    for (image, view), places in list(found.items())[:_VIEWS]:
        size = f"{int(grid.rows[places[0]])} x {int(grid.cols[places[0]])}"
        yield tag(
            "figure", _drawn(grid, places), tag("figcaption", f"image {image}, {view}: {size}")
        )
    if len(found) > _VIEWS:
        yield tag("p", f"and {len(found) - _VIEWS} more views")


def _drawn(grid: PatchGrid, places: list[int]) -> Markup:
    """The boxes of some rows on the picture, which is drawn as a square."""
    boxes = [
        tag(
            "rect",
            tag("title", f"row {int(grid.row[place])}, column {int(grid.col[place])}"),
            x=float(left * _SIDE),
            y=float(top * _SIDE),
            width=float((right - left) * _SIDE),
            height=float((bottom - top) * _SIDE),
            fill=_COLOURS[TokenKind.IMAGE],
            stroke="#8a6d1d",
            stroke_width="0.5",
        )
        for place in places
        for left, top, right, bottom in [map(float, grid.box[place])]
        if left == left  # noqa: PLR0124  NaN: the row stands for no region
    ]
    frame = tag("rect", width=_SIDE, height=_SIDE, fill="none", stroke="#333")
    box = f"-4 -4 {_SIDE + 8} {_SIDE + 8}"
    return tag("svg", *boxes, frame, viewBox=box, width=_SIDE, height=_SIDE)
