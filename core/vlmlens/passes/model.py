"""What a forward pass needs from a model. Every `vlmlens.abc.ModelAdapter` has it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import torch

    from vlmlens.passes.batch import Batch, ForwardOutput, Logits
    from vlmlens.samples import Sample
    from vlmlens.sites import SiteMap


class Model(Protocol):
    """A module tree with sites, and how to run it; `vlmlens.abc.ModelAdapter` describes each."""

    @property
    def module(self) -> torch.nn.Module:
        """The model itself."""

    @property
    def sites(self) -> SiteMap:
        """Its sites."""

    @property
    def unread(self) -> Sequence[str]:
        """The blocks whose output nothing in the model reads."""

    def forward(self, batch: Batch, *, logits: Logits = "none") -> ForwardOutput:
        """One pass without gradients."""


class EncodingModel(Model, Protocol):
    """A model that encodes samples, too; some edits need passes over other samples."""

    def encode(self, samples: Sequence[Sample]) -> Batch:
        """Samples as one padded batch."""
