"""Shares and maps from stored columns: those of the attention extractor with regions=patches.

Such a column has a row per image token and a feature per head, for one query or several pooled.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from vlmlens.abc import AnalysisContext, ModelAdapter
from vlmlens.errors import CompositionError, SiteShapeError
from vlmlens.samples import Sample
from vlmlens.tokens import Column, TokenLayout
from vlmlens_plugins.analysis._blocks import ColumnBlocks
from vlmlens_plugins.analysis._columns import choose, in_order
from vlmlens_plugins.analysis._key_regions import Names
from vlmlens_plugins.analysis.attention.measured import Floats, Measured
from vlmlens_plugins.analysis.attention.places import Place, others_by_sample
from vlmlens_plugins.analysis.attention.work import SHARES, of_image


def usable(context: AnalysisContext, patterns: Sequence[str] | None) -> dict[str, list[str]]:
    """The columns with a weight per image token, by query, in order of depth.

    Raises:
        CompositionError: A pattern names no column.
    """
    chosen = set(choose(patterns, [info.name for info in context.columns()]))
    names = [
        info.name
        for info in context.columns()
        if info.name in chosen and info.ragged and not Column.parse(info.name).selector.ragged
    ]
    queries: dict[str, list[str]] = {}
    for name in in_order(names):
        queries.setdefault(name.partition("/")[2], []).append(name)
    return queries


def may_be_usable(columns: Sequence[str]) -> bool:
    """Whether columns look as if they had a weight per image token."""
    parsed = [Column.parse(name) for name in columns]
    return any(".attn" in each.site and not each.selector.ragged for each in parsed)


def read(
    context: AnalysisContext,
    query: str,
    names: Sequence[str],
    samples: Sequence[Sample],
    *,
    regions: Sequence[Names],
    drawn: Mapping[int, Sequence[int] | None],
) -> Measured:
    """The columns of one query.

    Args:
        context: The context of the analysis.
        query: The query.
        names: Its columns, in order of depth.
        samples: The samples.
        regions: The key regions of each sample.
        drawn: By number of a sample whose maps are wanted, the heads that are drawn alone; None:
            each, if there are few.

    Raises:
        CompositionError: There is no such head.
    """
    ids = [sample.id for sample in samples]
    places = _places(context, names[0], samples, regions)
    area = np.array([np.nan if place is None else place.area for place in places])
    found: dict[str, list[list[Floats]]] = {name: [] for name in SHARES}
    maps: dict[int, list[Floats]] = {number: [] for number in drawn}
    finite = np.ones(len(ids), bool)
    for layer, name in enumerate(names):
        rows: list[dict[str, Floats]] = [{}] * len(ids)
        for block in ColumnBlocks(context.store, name, ids):
            for number, weights in zip(
                block.places.tolist(), block.values.per_sample(), strict=True
            ):
                exact = weights.astype(np.float64).T  # [heads, image rows]
                finite[number] &= bool(np.isfinite(exact).all())
                _check_place(places[number], exact, samples[number])
                rows[number] = {"image": exact.sum(-1), **of_image(exact, places[number])}
                if number in maps:
                    maps[number].append(exact)
        for share, own in found.items():
            own.append([each.get(share, np.full(len(each["image"]), np.nan)) for each in rows])
        context.progress(layer + 1, len(names))
    values = {share: stacked(found[share]) for share in SHARES}
    shown = {number: {"attention": _by_head(own, drawn[number])} for number, own in maps.items()}
    return Measured(query, tuple(names), samples, values, area, finite, shown)


def stacked(values: Sequence[Sequence[Sequence[float] | Floats]]) -> Floats:
    """float64 `[blocks, heads, samples]` of `[blocks][samples][heads]`.

    Where blocks have unlike numbers of heads, those that a block lacks are NaN.
    """
    heads = max(len(own) for block in values for own in block)
    found = np.full((len(values), heads, len(values[0])), np.nan)
    for number, block in enumerate(values):
        for sample, own in enumerate(block):
            found[number, : len(own), sample] = own
    return found


def _by_head(blocks: Sequence[Floats], heads: Sequence[int] | None) -> dict[str, Floats]:
    least = min(len(block) for block in blocks)
    wrong = [head for head in heads or () if head >= least]
    if wrong:
        raise no_head(wrong[0], least)
    wanted = heads if heads is not None else range(least) if 1 < least <= 8 else ()
    found = {"all": np.stack([block.mean(0) for block in blocks])}
    return found | {str(head): np.stack([block[head] for block in blocks]) for head in wanted}


def no_head(head: int, count: int) -> CompositionError:
    """The error of a head that blocks do not have."""
    return CompositionError(
        f"The blocks have no head {head}.",
        subject="heads",
        hint=f"They have {count}, numbered 0 to {count - 1}.",
    )


def layout_at(vlm: ModelAdapter, sample: Sample, column: str) -> TokenLayout | None:
    """Where the rows of a sample lie; None where only a pass would tell."""
    site = vlm.sites.resolve(column.partition("/")[0])[0]
    try:
        return vlm.encode([sample]).layouts[site.axis].samples[0]
    except SiteShapeError:
        return None


def _places(
    context: AnalysisContext,
    column: str,
    samples: Sequence[Sample],
    regions: Sequence[Names],
) -> list[Place | None]:
    found: list[Place | None] = []
    beside = others_by_sample(samples, regions)
    for sample, own, others in zip(samples, regions, beside, strict=True):
        layout = layout_at(context.model(), sample, column) if own else None
        found.append(None if layout is None else Place.of(layout, own, others))
    return found


def _check_place(place: Place | None, weights: Floats, sample: Sample) -> None:
    if place is not None and len(place.inside) != weights.shape[-1]:
        raise CompositionError(
            f"The stored weights of {sample.id!r} are of {weights.shape[-1]} image rows, and the "
            f"model has {len(place.inside)} there.",
            subject=sample.id,
            hint="Extract again with this model and processor.",
        )
