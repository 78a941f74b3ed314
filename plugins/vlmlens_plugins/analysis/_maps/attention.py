"""Raw attention: what the row that predicts the answer pays to each patch."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from vlmlens.abc import Batch, ModelAdapter
from vlmlens.passes.attending import Attention
from vlmlens.sites import Site
from vlmlens.tokens import Selector
from vlmlens_plugins.analysis._maps.attending import Floats, Reader, maps_of, to_rows
from vlmlens_plugins.analysis._maps.maps import PatchMap


class Weights(Reader):
    """The weights of queries, by head; several queries are averaged.

    Args:
        batch: The batch of the pass.
        queries: A selector of rows.
    """

    def __init__(self, batch: Batch, queries: str = "last") -> None:
        super().__init__(batch)
        chosen = Selector.parse(queries)
        self._queries = [chosen.positions(layout) for layout in self.layouts]

    def see(self, site: Site, sample: int, attention: Attention) -> None:
        """See `Reader.see`."""
        del site
        own = attention.weights[:, self._queries[sample].tolist()]
        self.blocks[sample].append(to_rows(own.double().mean(1)))

    def whole(self, sample: int) -> Floats:
        """The mean over blocks and heads."""
        found: Floats = np.mean([block.mean(0) for block in self.blocks[sample]], 0)
        return found


def attention(vlm: ModelAdapter, batch: Batch, tokens: Sequence[Sequence[int]]) -> list[PatchMap]:
    """The weights of the row `last`, mean over blocks and heads; see `MapMethod`."""
    del tokens
    return maps_of(vlm, batch, Weights(batch))
