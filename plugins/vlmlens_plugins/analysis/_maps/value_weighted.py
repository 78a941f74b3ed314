"""Value-weighted attention: what heads write from each patch towards the answer, without gradients.

At the last row, head h adds to a logit the sum over rows j of A[j] (v[j] W_O) . u, with u the
direction that the logit reads, the final norm frozen (direct logit attribution, split by source).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from vlmlens.abc import Batch, ModelAdapter
from vlmlens.errors import CompositionError
from vlmlens.passes.attending import Attention
from vlmlens.passes.contributions import LogitReader
from vlmlens.passes.others import rows_of
from vlmlens.passes.residual import head_slopes
from vlmlens.sites import Site
from vlmlens.tokens import Selector
from vlmlens_plugins.analysis._maps.attending import (
    Floats,
    Reader,
    check_images,
    maps_of,
    to_rows,
)
from vlmlens_plugins.analysis._maps.maps import PatchMap
from vlmlens_plugins.analysis._maps.relevance import by_head, check_sums

_LAST = Selector.parse("last")


class Written(Reader):
    """What each head takes from each row, as it adds to the answer's logit directly.

    Args:
        vlm: The model.
        batch: The batch of the pass.
        tokens: See `MapMethod`.

    Raises:
        CompositionError: The model has no readout, or its norms or projections are not known.
    """

    def __init__(self, vlm: ModelAdapter, batch: Batch, tokens: Sequence[Sequence[int]]) -> None:
        super().__init__(batch)
        check_images(batch)
        block = vlm.sites.resolve("llm.block.*")[-1]
        rows = torch.cat(rows_of(vlm.trace(batch, [block])[block.name], block, _LAST, batch))
        slopes = LogitReader.of(vlm, rows, tokens).slopes
        direction = slopes[:, 0] - slopes[:, 1] if slopes.shape[1] > 1 else slopes[:, 0]
        self._given, self._slopes = {}, {}
        for site, given, slope in head_slopes(vlm, batch, direction):
            name = site.name.removesuffix(".heads")
            self._given[name], self._slopes[name] = given, slope

    def see(self, site: Site, sample: int, attention: Attention) -> None:
        """See `Reader.see`.

        Raises:
            CompositionError: What the heads write is not known.
        """
        if site.name not in self._slopes:
            raise CompositionError(
                f"What the heads of {site.name} write is not known.",
                subject=site.name,
                hint="Use maps that need no values: attention, rollout, occlusion.",
            )
        weights, values = attention.weights[:, -1].double(), attention.values.double()
        given, slope = (
            by_head(own[site.name][sample][None], len(weights))[:, 0]
            for own in (self._given, self._slopes)
        )
        check_sums(site, (weights[:, None] @ values)[:, 0], given)
        self.blocks[sample].append(to_rows(weights * (values @ slope[:, :, None])[..., 0]))

    def whole(self, sample: int) -> Floats:
        """The sum over blocks and heads."""
        found: Floats = np.sum([block.sum(0) for block in self.blocks[sample]], 0)
        return found


def value_weighted(
    vlm: ModelAdapter, batch: Batch, tokens: Sequence[Sequence[int]]
) -> list[PatchMap]:
    """What all heads write from each patch towards the answer; see `MapMethod`."""
    return maps_of(vlm, batch, Written(vlm, batch, tokens))
