"""Maps from gradients at the image rows that the language model reads."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from vlmlens.abc import Batch, ModelAdapter
from vlmlens.passes.others import rows_of
from vlmlens.sites import Site
from vlmlens.tokens import Selector
from vlmlens_plugins.analysis._attribution.patches import metric_of, patch_site
from vlmlens_plugins.analysis._attribution.putting import Put
from vlmlens_plugins.analysis._maps.maps import PatchMap

_IMAGE = Selector.parse("image")
_STEPS = 10


def gradients(vlm: ModelAdapter, batch: Batch, tokens: Sequence[Sequence[int]]) -> list[PatchMap]:
    """Gradient times (row less the mean row): what exchanging a row does, to first order."""
    site = patch_site(vlm)
    found = vlm.gradients(batch, [site], metric_of(tokens))
    rows = rows_of(found.activations[site.name], site, _IMAGE, batch)
    slopes = rows_of(found[site.name], site, _IMAGE, batch)
    return _maps(batch, site, rows, slopes)


def integrated_gradients(
    vlm: ModelAdapter, batch: Batch, tokens: Sequence[Sequence[int]]
) -> list[PatchMap]:
    """Gradients along the way from the mean row: Sundararajan et al. 2017, arXiv 1703.01365.

    They are taken at the middles of ten equal steps.
    """
    site, metric = patch_site(vlm), metric_of(tokens)
    replay = vlm.replay(batch)
    rows = replay.rows(site, _IMAGE)
    means = [own.mean(0, keepdim=True).expand_as(own) for own in rows]
    places = [_IMAGE.rows(one) for one in batch.layouts[site.axis].samples]
    where = torch.from_numpy(np.concatenate(places))
    total = torch.zeros(torch.cat(rows).shape, dtype=torch.float64)
    for step in range(_STEPS):
        mixed = torch.lerp(torch.cat(means), torch.cat(rows), (step + 0.5) / _STEPS)
        put: Any = {site.name: Put(where, mixed)}
        with vlm.edited(put), replay.before([site]):
            found = vlm.gradients(batch, [site], metric)
        slopes = rows_of(found[site.name], site, _IMAGE, batch)
        total += torch.cat(slopes).double().cpu() / _STEPS
    return _maps(batch, site, rows, total.split([len(own) for own in rows]))


def _maps(
    batch: Batch, site: Site, rows: Sequence[torch.Tensor], slopes: Sequence[torch.Tensor]
) -> list[PatchMap]:
    found = []
    for layout, own, slope in zip(batch.layouts[site.axis].samples, rows, slopes, strict=True):
        moves = own.double().cpu() - own.double().cpu().mean(0)
        found.append(PatchMap.of((moves * slope.double().cpu()).sum(-1).numpy(), layout))
    return found
