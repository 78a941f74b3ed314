"""Donors of a resampling ablation: other samples with the same rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from vlmlens.samples import Sample
from vlmlens_plugins.analysis._statistics import generator
from vlmlens_plugins.analysis._sweeps import Item


def with_donors(
    items: Sequence[Item], shapes: Sequence[str], seed: int
) -> tuple[list[int], list[Item]]:
    """Give each item another sample as its donor, chosen at random among those of equal shape.

    Args:
        items: The items.
        shapes: Per item, a text that is equal for samples with the same rows on every axis.
        seed: Of the choice.

    Returns:
        The numbers of the items that have such another sample, and these items with it.
    """
    kept, made = [], []
    for i, item in enumerate(items):
        others = [
            other.target
            for k, other in enumerate(items)
            if k != i and shapes[k] == shapes[i] and not _same(other.target, item.target)
        ]
        if others:
            rng = generator(seed, "ablation-donor", item.target.id)
            kept.append(i)
            made.append(replace(item, donor=others[int(rng.integers(len(others)))]))
    return kept, made


def _same(one: Sample, other: Sample) -> bool:
    return one.prompt == other.prompt and one.images == other.images
