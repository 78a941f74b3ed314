"""The direct readout: what the vision tower's features say, without the language model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from vlmlens.abc import ModelAdapter
from vlmlens.errors import VlmlensError
from vlmlens.samples import Sample
from vlmlens.tokens import TokenKind
from vlmlens_plugins.analysis._direct import (
    PROBE,
    READOUT,
    ReadoutOptions,
    check_method,
    kept,
    read_kept,
)
from vlmlens_plugins.analysis._marked_places import Patches
from vlmlens_plugins.analysis._tuning.dividing import Divided
from vlmlens_plugins.analysis.bottleneck.options import BottleneckOptions
from vlmlens_plugins.analysis.bottleneck.tuning.closing import Direct
from vlmlens_plugins.analysis.bottleneck.tuning.snapshot import Snapshot
from vlmlens_plugins.analysis.bottleneck.work import PROJECTOR, TOWER, StageOptions, stage_sites

_WORDS = {
    "cosine": "the cosine of features at the marked points",
    "gram": "Gram matrices of the features in the marked regions",
    "odd": "the lowest mean cosine of features at the marked points",
    PROBE: "a linear probe of the features at the marked points",
}


def direct_readout(
    vlm: ModelAdapter,
    before: Snapshot,
    parts: Divided,
    options: BottleneckOptions,
    seed: int,
    batch_size: int,
) -> Direct:
    """What can be read of the tested samples from the vision tower.

    Samples that name a readout (`vlmlens_plugins.analysis._direct`) are read by it, at the site
    that reads the labelled samples best. Otherwise a linear probe of the tower's pooled features
    stands for it. Where questions differ, the tower cannot know which one comes: then it is not
    known.

    Args:
        vlm: The model as it is.
        before: What was measured of it.
        parts: The samples.
        options: Of the analysis.
        seed: Of folds.
        batch_size: Samples per pass.
    """
    labelled = [*parts.train, *parts.held]
    samples = [*labelled, *parts.test]
    if len({one.attributes.get(READOUT) for one in samples}) == 1 and all(
        one.attributes.get(READOUT) for one in samples
    ):
        return _marked(vlm, labelled, parts.test, options, seed, batch_size)
    if len({sample.prompt for sample in parts.test}) > 1:
        return Direct((), "questions differ, so the tower alone cannot tell their answers")
    for stage in (TOWER, PROJECTOR):
        if stage in before.read:
            return Direct(before.read[stage], f"a linear probe of the {stage}")
    return Direct((), "the model has no vision tower that can be read")


def _marked(
    vlm: ModelAdapter,
    labelled: Sequence[Sample],
    test: Sequence[Sample],
    options: BottleneckOptions,
    seed: int,
    batch_size: int,
) -> Direct:
    """By the readout that samples name, at the best site of the tower."""
    chosen = ReadoutOptions(draws=options.draws, seed=seed, shuffles=1)
    first = len(labelled)
    try:
        check_method([*labelled, *test])
        found = _kept(vlm, [*labelled, *test], options, batch_size)
        scores = {
            site: read_kept(labelled, rows[:first], chosen).accuracy.value
            for site, rows in found.items()
        }
    except VlmlensError as error:
        return Direct((), str(error))
    if not scores:
        return Direct((), "where patches lie in the image is not known")
    best = max(scores, key=lambda site: scores[site])
    method = str(test[0].attributes[READOUT])
    if method == PROBE:
        whole = read_kept([*labelled, *test], found[best], chosen)
        hits = whole.right[first:]
    else:
        hits = read_kept(test, found[best][first:], chosen).right
    return Direct(hits.tolist(), f"{_WORDS.get(method, method)}, {best}")


def _kept(
    vlm: ModelAdapter, samples: Sequence[Sample], options: BottleneckOptions, batch_size: int
) -> Mapping[str, list[npt.NDArray[Any]]]:
    """By site of the tower, what is needed of each sample's patches; none without their place."""
    sites = stage_sites(vlm, StageOptions(tower_depths=options.tower_depths)).get(TOWER, [])
    found: dict[str, list[npt.NDArray[Any]]] = {site.name: [] for site in sites}
    for at in range(0, len(samples), batch_size):
        some = samples[at : at + batch_size]
        batch = vlm.encode(some)
        trace = vlm.trace(batch, sites)
        for site in sites:
            flat = trace[site.name].flatten(0, -2)
            axis = batch.layouts[site.axis].at(len(flat))
            for sample, layout in zip(some, axis.samples, strict=True) if axis else ():
                rows = layout.rows[layout.positions(TokenKind.IMAGE)]
                if layout.patches is not None and len(rows) == len(layout.patches):
                    values = flat[torch.from_numpy(rows).to(flat.device)].float().cpu().numpy()
                    own = Patches(np.asarray(values), layout.patches)
                    found[site.name].append(kept(sample, own))
    return {name: rows for name, rows in found.items() if len(rows) == len(samples)}
