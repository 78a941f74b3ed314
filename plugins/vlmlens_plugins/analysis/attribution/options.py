"""Options of attribution."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from vlmlens_plugins.analysis._attribution.nodes import KINDS, Kind
from vlmlens_plugins.analysis._sweeps.followed import FollowOptions
from vlmlens_plugins.analysis._sweeps.sweeping import PairOptions, Texts, listed

Method = Literal["nodes", "edges", "direct", "patches"]
OF_PAIRS: tuple[Method, ...] = ("nodes", "edges")


def _several(kind: Any) -> Any:
    """One word where several may stand."""
    some = Annotated[tuple[kind, ...], Field(min_length=1)]
    return Annotated[some, BeforeValidator(listed, json_schema_input_type=kind | some)]


class AttributionOptions(FollowOptions, PairOptions):
    """What is estimated, and how it is held against what really happens."""

    methods: _several(Method) | None = Field(  # type: ignore[valid-type]
        None,
        description="nodes: attribution patching of heads and MLPs; edges: of what one writes and "
        "another reads; direct: what each adds to the logits; patches: integrated gradients of "
        "image patches. Default: all; without pairs, the last two.",
    )
    kinds: _several(Kind) = Field(  # type: ignore[valid-type]
        KINDS, description="Which components are nodes: heads, mlp, attn, block."
    )
    rows: Texts = Field(
        None,
        description="The rows of nodes, as selectors. Default: image, question, last; and with "
        "regions the first one and the rest of the image.",
    )
    direction: Literal["denoise", "noise"] = Field(
        "denoise",
        description="denoise: from the clean run into the corrupted one; noise: the other way.",
    )
    grad_drop: bool = Field(
        False,
        description="Estimate nodes, too, with the gradient through each block stopped in turn, as "
        "AtP* does: it finds what cancels out. One more backward pass per block.",
    )
    patterns: bool = Field(
        False,
        description="Split what heads do into where they look, softmax included, and what they "
        "read there.",
    )
    edge_steps: int = Field(
        5, ge=1, description="Points on the way between the inputs of the two runs, for edges."
    )
    steps: int = Field(
        20, ge=1, description="Points on the way from the mean patch to the image, for patches."
    )
    check: int = Field(
        8,
        ge=0,
        description="So many of the strongest nodes, and as many at random, are really exchanged.",
    )
    patches: int = Field(
        2, ge=0, description="For so many samples of each task, patches are drawn over the picture."
    )
