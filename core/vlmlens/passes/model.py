"""What a pass needs of a model. Every `vlmlens.abc.ModelAdapter` has it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import torch

    from vlmlens.passes.batch import Batch, ForwardOutput, Logits
    from vlmlens.sites import SiteMap


class Model(Protocol):
    """A module tree with sites, and how to run it; see `vlmlens.abc.ModelAdapter` for each."""

    @property
    def module(self) -> torch.nn.Module:
        """The model itself."""

    @property
    def sites(self) -> SiteMap:
        """Its sites."""

    @property
    def unread(self) -> Sequence[str]:
        """Blocks whose output nothing in the model reads."""

    def forward(self, batch: Batch, *, logits: Logits = "none") -> ForwardOutput:
        """One pass without gradients."""
