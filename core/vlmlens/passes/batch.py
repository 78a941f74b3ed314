"""Plain data: what goes into a forward pass, and what comes out of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from vlmlens._display import AsHtml, brief, count, shape
from vlmlens.sites import Axis
from vlmlens.tokens import AxisLayout, TokenLayout

if TYPE_CHECKING:
    import torch

    from vlmlens.samples import Sample


Logits = Literal["none", "last", "all"]
"""Which positions' logits a forward pass computes."""


@dataclass(frozen=True, slots=True)
class Pass:
    """One of several passes that together give a batch's activations.

    Args:
        axes: The axes whose modules run in this pass. If an axis runs in several passes, its rows
            are those of the passes, one after the other.
        run: Runs the pass. Its argument says whether to run the unembedding too.
        rows: How many rows of the language model are in the pass; 0: not known.
        fill: Runs the pass only as far as later passes need it. Its argument is the last block of
            the language model that they run; that block and later ones give no activation. None:
            the pass cannot be shortened.
        whole: Whether later passes need everything that this one computes. Then it is not ended
            early if another pass follows.
    """

    axes: frozenset[Axis]
    run: Callable[[bool], None]
    rows: int = 0
    fill: Callable[[int], None] | None = None
    whole: bool = False


@dataclass(frozen=True, slots=True)
class Batch(AsHtml):
    """Encoded samples, ready for one forward pass.

    Args:
        samples: The samples, in row order.
        inputs: Keyword arguments of the model's forward, on the model's device.
        layouts: Per axis, which rows of a flattened activation belong to which sample.
        passes: The passes that give the activations, if samples share rows that are computed once
            (`ModelAdapter.encode_shared`); empty: one `forward` gives them.
    """

    samples: tuple[Sample, ...]
    inputs: Mapping[str, Any]
    layouts: Mapping[Axis, AxisLayout]
    passes: tuple[Pass, ...] = ()

    def layout(self, i: int, axis: Axis = Axis.LLM) -> TokenLayout:
        """The token layout of sample `i` on an axis."""
        return self.layouts[axis].samples[i]

    def __len__(self) -> int:
        return len(self.samples)

    def __repr__(self) -> str:
        return brief(self, "", count(len(self), "sample"), f"axes: {', '.join(self.layouts)}")


@dataclass(frozen=True, slots=True)
class ForwardOutput:
    """What a forward pass gives besides the traced activations.

    Args:
        logits: "last": float `[samples, vocabulary]` after each sample's last token; "all":
            `[samples, positions, vocabulary]`, padded as the batch is; "none": None.
    """

    logits: torch.Tensor | None

    def __repr__(self) -> str:
        return brief(self, "", f"logits {shape(self.logits)}")
