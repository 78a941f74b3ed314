"""Shares and maps from the model: which samples are asked about, and what they give."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from vlmlens.abc import AnalysisContext, ModelAdapter, WorkUnit
from vlmlens.abc.model_work import JSON
from vlmlens.samples import Sample
from vlmlens_plugins.analysis._key_regions import Names
from vlmlens_plugins.analysis._maps.attending import attention_sites
from vlmlens_plugins.analysis._scoring import parting
from vlmlens_plugins.analysis.attention.measured import Measured
from vlmlens_plugins.analysis.attention.options import AttentionOptions
from vlmlens_plugins.analysis.attention.places import others_by_sample
from vlmlens_plugins.analysis.attention.stored import no_head, stacked
from vlmlens_plugins.analysis.attention.work import (
    SHARES,
    MapOptions,
    MapWork,
    ShareOptions,
    ShareWork,
)

_NAMED = 6


def check_heads(vlm: ModelAdapter, heads: Sequence[int]) -> None:
    """Raise an error if some block does not have these heads.

    Args:
        vlm: The model, or its skeleton.
        heads: Their numbers.

    Raises:
        CompositionError: There is no such head, or no heads are known.
    """
    sites = attention_sites(vlm)
    least = min(found.count for site in sites if (found := vlm.sites.heads(site)) is not None)
    for head in heads:
        if head >= least:
            raise no_head(head, least)


def measured(
    context: AnalysisContext,
    samples: Sequence[Sample],
    drawn: Sequence[int],
    options: AttentionOptions,
    regions: Sequence[Names],
) -> tuple[Measured, list[Mapping[str, JSON]]]:
    """What the attention of the samples goes to; and the results of `MapWork`.

    Args:
        context: The context of the analysis.
        samples: Samples with images.
        drawn: The numbers of those whose maps are drawn.
        options: The analysis's options.
        regions: The key regions of each sample.
    """
    vlm = context.model()
    sites = attention_sites(vlm)
    shared = ShareOptions(query=options.query, sink=options.sink)
    beside = others_by_sample(samples, regions)
    asked = [
        WorkUnit(sample, {"region": list(own), "others": others})
        for sample, own, others in zip(samples, regions, beside, strict=True)
    ]
    told = context.run_units(ShareWork(shared), asked)
    mapped = MapOptions(query=options.query, methods=options.methods, heads=options.heads)
    units = _units(vlm, samples, set(drawn), regions)
    maps: list[Mapping[str, JSON]] = context.run_units(MapWork(mapped), units)
    values = {
        name: stacked([[one[name][block] for one in told] for block in range(len(sites))])
        for name in SHARES
    }
    found = Counter(dimension for one in told for dimension in one["dimensions"])
    return (
        Measured(
            options.query,
            [f"{site.name}/{options.query}" for site in sites],
            samples,
            values,
            np.array([np.nan if one["area"] is None else one["area"] for one in told]),
            np.array([all(np.isfinite(own).all() for own in one["image"]) for one in told]),
            {number: _arrays(maps[number]["maps"]) for number in drawn},
            sorted(dimension for dimension, _ in found.most_common(_NAMED)),
            (_mean(told, "rows"), _mean(told, "sink_rows")),
        ),
        maps,
    )


def _units(
    vlm: ModelAdapter, samples: Sequence[Sample], drawn: set[int], regions: Sequence[Names]
) -> list[WorkUnit]:
    found = []
    for number, sample in enumerate(samples):
        prefix, among = _next_tokens(vlm, sample)
        given = {
            "prefix": prefix,
            "among": among,
            "drawn": number in drawn,
            "region": list(regions[number]),
        }
        found.append(WorkUnit(sample, given, batch=str(bool(prefix))))
    return found


def _next_tokens(vlm: ModelAdapter, sample: Sample) -> tuple[list[int], list[int]]:
    """What all choices begin with, and the next token of each; nothing where they do not differ."""
    ids = [vlm.answer_ids(choice) for choice in sample.choices]
    same = parting(ids)
    if same is None:
        return [], []
    return list(ids[0][:same]), [own[same] for own in ids]


def _arrays(maps: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    return {
        method: {head: np.array(rows, np.float64) for head, rows in own.items()}
        for method, own in maps.items()
    }


def _mean(told: Sequence[Mapping[str, JSON]], name: str) -> float:
    return float(np.mean([one[name] for one in told]))
