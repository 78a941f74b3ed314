"""Figures of the analysis of attention: curves over blocks, heads, and maps over pictures."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from vlmlens.abc import ModelAdapter
from vlmlens.results import Figure, Series, Sheet
from vlmlens.tokens import Selector, TokenLayout
from vlmlens_plugins.analysis._columns import short_names
from vlmlens_plugins.analysis._patches import Place as Patches
from vlmlens_plugins.analysis._patches import views
from vlmlens_plugins.analysis._results import slug
from vlmlens_plugins.analysis._sweeps.pictures import heat_map
from vlmlens_plugins.analysis.attention.measured import Floats, Measured, mean, with_interval
from vlmlens_plugins.analysis.attention.stored import layout_at

_IMAGE = Selector.parse("image")
_SHOWN = 0.995
_TITLES = {
    "attention": ("Attention", "weight"),
    "rollout": ("Attention rollout", "share"),
    "relevance": ("Relevance for the answer (Chefer et al.)", "relevance"),
    "value-weighted": ("What heads write from each patch towards the answer", "logit difference"),
}


def figures(
    one: Measured, tasks: Mapping[str, Sequence[int]], vlm: ModelAdapter, draws: int, seed: int
) -> list[Figure]:
    """All figures of a query; maps are drawn for the samples that have some."""
    found = [_curves(one, tasks, "image", "the image", draws, seed)]
    named = "image"
    if np.isfinite(one.area).any():
        named = "region"
        found.append(_curves(one, tasks, "region", "the key region", draws, seed))
    found.append(_by_head(one, named))
    methods = dict.fromkeys(method for own in one.maps.values() for method in own)
    layouts = {i: layout_at(vlm, one.samples[i], one.columns[0]) for i in one.maps}
    return found + [_maps(one, method, layouts) for method in methods]


def _curves(
    one: Measured,
    tasks: Mapping[str, Sequence[int]],
    name: str,
    what: str,
    draws: int,
    seed: int,
) -> Figure:
    values = one.over_heads(name)
    series = []
    for task, rows in tasks.items():
        if not np.isfinite(values[:, rows]).any():
            continue
        means, low, high = with_interval(values[:, rows], one.groups(rows), seed, draws)
        series.append(Series(task, _known(means), _known(low), _known(high)))
    if name == "region":
        for control, said in (
            ("elsewhere", "the same shape elsewhere"),
            ("others", "other samples' regions"),
        ):
            beside = mean(one.over_heads(control), 1)
            if np.isfinite(beside).all():
                series.append(Series(said, _known(beside), dashed=True))
    return Figure(
        name=slug(f"attention {one.query} {name}"),
        title=f"Attention of {_asks(one)} to {what}, mean over heads",
        kind="line",
        x=short_names(one.columns),
        x_label="block",
        y_label="share of attention",
        series=series,
        y_range=(0.0, 1.0),
    )


def _by_head(one: Measured, name: str) -> Figure:
    what = {"image": "the image", "region": "the key region"}[name]
    shares = mean(one.values[name], 2)
    sites = [column.partition("/")[0] for column in one.columns]
    cells = {
        (site, f"head {head}"): float(shares[block, head])
        for block, site in enumerate(sites)
        for head in range(shares.shape[1])
    }
    title = f"Attention of {_asks(one)} to {what} by head, mean over samples"
    return heat_map(slug(f"attention {one.query} heads"), title, cells, label="share of attention")


def _maps(one: Measured, method: str, layouts: Mapping[int, TokenLayout | None]) -> Figure:
    title, label = _TITLES[method]
    own = method in ("attention", "rollout") and one.query != "last"
    of = f" of {one.query}" if own else ""
    return Figure(
        name=slug(f"attention {one.query} map {method}"),
        title=f"{title}{of} over the image, by block",
        kind="patches",
        x=(),
        y=short_names(one.columns),
        y_label=label,
        y_range=_range(one, method),
        sheets=[
            sheet
            for number, own in one.maps.items()
            if method in own
            for sheet in _sheets(one, number, own[method], layouts[number], method)
        ],
    )


def _range(one: Measured, method: str) -> tuple[float, float]:
    """Ends of the colours: a few outliers, as sinks, are cut off, so that the rest can be seen."""
    values = np.concatenate(
        [each.ravel() for own in one.maps.values() for each in own.get(method, {}).values()]
    )
    low, high = np.nanquantile(values, [1 - _SHOWN, _SHOWN])
    return min(0.0, float(low)), max(float(high), 1e-9)


def _asks(one: Measured) -> str:
    return "the last position" if one.query == "last" else one.query


def _sheets(
    one: Measured,
    number: int,
    maps: Mapping[str, Floats],
    layout: TokenLayout | None,
    method: str,
) -> Iterator[Sheet]:
    sample = one.samples[number]
    count = maps["all"].shape[1]
    placed = [("", np.arange(count), None)] if layout is None else views(_IMAGE, layout, count)
    task = {"task": sample.task} if sample.task else {}
    for view, where, grid in placed:
        patches = Patches(sample, view, grid, len(where))
        for head, values in maps.items():
            together = "sum" if method == "value-weighted" else "mean"
            named = {"head": together if head == "all" else head} if len(maps) > 1 else {}
            yield patches.sheet(values[:, where], (), (), {**task, **named})


def _known(values: Floats) -> list[float | None]:
    return [float(value) if np.isfinite(value) else None for value in values]
