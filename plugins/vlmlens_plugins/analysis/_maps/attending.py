"""What maps from attention share: one pass in which each block's weights are seen and let go."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch

from vlmlens.abc import Batch, ModelAdapter
from vlmlens.errors import CompositionError, VlmlensError
from vlmlens.passes.attending import Attention, attended
from vlmlens.sites import Axis, Site
from vlmlens.tokens import TokenKind
from vlmlens_plugins.analysis._maps.maps import PatchMap

Floats = npt.NDArray[np.float64]
_ATTENTIONS = "llm.block.*.attn"
_BLOCK = r"llm\.block\.\d+"


class Reader(ABC):
    """Makes a number per row of each sample from the attention of one block after the other.

    Args:
        batch: The batch of the pass.
    """

    def __init__(self, batch: Batch) -> None:
        self.layouts = batch.layouts[Axis.LLM].samples
        self.blocks: list[list[Floats]] = [[] for _ in self.layouts]
        """Per sample and block, what is known so far: float64 `[heads or 1, rows]`."""

    @abstractmethod
    def see(self, site: Site, sample: int, attention: Attention) -> None:
        """Read the attention of one sample's own rows in one block, and append to `blocks`."""

    def whole(self, sample: int) -> Floats:
        """float64 `[rows]`: the map of all blocks together; by default, that behind the last."""
        found: Floats = self.blocks[sample][-1][0]
        return found

    def last(self, sample: int) -> int:
        """The place of the row that predicts the next token, among the sample's own."""
        return len(self.layouts[sample]) - 1


def attention_sites(vlm: ModelAdapter) -> list[Site]:
    """The self-attention modules of the language model whose heads are known, in order of depth.

    Raises:
        CompositionError: There is none.
    """
    found = [s for s in vlm.sites.matching(_ATTENTIONS) if vlm.sites.heads(s) is not None]
    if not found:
        raise CompositionError(
            "No attention with heads is known in the blocks of this model's language model.",
            subject=_ATTENTIONS,
            hint="`vlmlens plugins show ADAPTER` says what a family lacks.",
        )
    return found


def passed_over(vlm: ModelAdapter) -> str:
    """A warning of blocks whose attention has no weights, as linear attention; "" if all have."""
    blocks = {name for name in vlm.sites.canonical if re.fullmatch(_BLOCK, name)}
    others = sorted(blocks - {site.name.removesuffix(".attn") for site in attention_sites(vlm)})
    if not others:
        return ""
    return (
        f"Nothing is said of {len(others)} of {len(blocks)} blocks (for example {others[0]}): they "
        "have no attention with heads. Rollout and relevance pass them over."
    )


def check_images(batch: Batch) -> None:
    """Raise an error if self-attention does not read the images of some sample.

    Raises:
        CompositionError: Their rows are not among its own.
    """
    for layout in batch.layouts[Axis.LLM].samples:
        if not len(layout.positions(TokenKind.IMAGE)):
            raise CompositionError(
                "Image rows are not among those that the language model's self-attention reads: "
                "the sample has no image, or the family reads it by cross-attention or by an "
                "encoder of its own.",
                subject=_ATTENTIONS,
                hint="Leave maps from attention out; occlusion works with any family.",
            )


def read_through(
    vlm: ModelAdapter, batch: Batch, readers: Sequence[Reader]
) -> dict[Reader, VlmlensError]:
    """Show the attention of each block to the readers, in one pass.

    Returns:
        The readers that cannot read this model's attention, each with its error.

    Raises:
        CompositionError: No attention is known, or it does not read the images.
        SiteSilent: The attention of a block cannot be read.
    """
    sites = attention_sites(vlm)
    check_images(batch)
    failed: dict[Reader, VlmlensError] = {}

    def see(site: Site, attention: Attention) -> None:
        for sample, layout in enumerate(batch.layouts[Axis.LLM].samples):
            own = attention.of(layout)
            for reader in readers:
                if reader in failed:
                    continue
                try:
                    reader.see(site, sample, own)
                except VlmlensError as error:
                    failed[reader] = error

    with torch.inference_mode(), attended(vlm, sites, see):
        vlm.forward(batch, logits="none")
    return failed


def maps_of(vlm: ModelAdapter, batch: Batch, reader: Reader) -> list[PatchMap]:
    """The map of each sample that a reader makes."""
    for error in read_through(vlm, batch, [reader]).values():
        raise error
    return [
        PatchMap.of(reader.whole(sample)[layout.positions(TokenKind.IMAGE)], layout)
        for sample, layout in enumerate(reader.layouts)
    ]


def to_rows(values: torch.Tensor) -> Floats:
    """float64 `[heads or 1, rows]` on the CPU."""
    found: Floats = values.double().cpu().numpy()
    return found if found.ndim == 2 else found[None]
