"""The methods that make maps from passes of the model, by the name that options give them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Protocol

from vlmlens.abc import Batch, ModelAdapter
from vlmlens_plugins.analysis._maps.attention import attention
from vlmlens_plugins.analysis._maps.gradients import gradients, integrated_gradients
from vlmlens_plugins.analysis._maps.maps import PatchMap
from vlmlens_plugins.analysis._maps.relevance import relevance
from vlmlens_plugins.analysis._maps.rollout import rollout
from vlmlens_plugins.analysis._maps.value_weighted import value_weighted


class MapMethod(Protocol):
    """A function that makes a map of each sample of a batch."""

    def __call__(
        self, vlm: ModelAdapter, batch: Batch, tokens: Sequence[Sequence[int]]
    ) -> list[PatchMap]:
        """The maps, one for each sample.

        Args:
            vlm: The model.
            batch: Samples with what their answers begin with, from `_sweeps.work.encoded`: the
                row `last` of each predicts the token that is followed.
            tokens: Per sample, that token; or it and the one of the strongest rival, where the
                logit difference of the two is followed. Methods that follow no answer ignore it.

        Raises:
            VlmlensError: The model does not offer what the method needs (`CompositionError`,
                `SiteNotFound`, `SiteSilent`). The method is then left out, and the message is
                shown.
        """


METHODS: Mapping[str, MapMethod] = MappingProxyType(
    {
        "gradients": gradients,
        "integrated-gradients": integrated_gradients,
        "attention": attention,
        "rollout": rollout,
        "relevance": relevance,
        "value-weighted": value_weighted,
    }
)
"""By name. To add a method, write a file like `gradients.py` and name its function here."""
