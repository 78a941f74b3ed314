"""What is inside of a model, in a notebook: its sites as a tree, and one pass."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby
from typing import TYPE_CHECKING

from vlmlens.report._markup import Markup, tag
from vlmlens.report._text import plural
from vlmlens.sites.site_map import SiteMap

if TYPE_CHECKING:
    from vlmlens.passes.tracing import Trace
    from vlmlens.sites.site import Site

_ROWS = 200


def sites_html(sites: SiteMap) -> str:
    """The canonical sites as a tree that folds; each has its module's path."""
    found = list(sites.canonical.values())
    title = f"{plural(len(found), 'site')}, {plural(len(sites.modules), 'module')}"
    tree = (_branch(side, list(some)) for side, some in groupby(found, _first_word))
    return tag("div", tag("p", title), *tree)


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
