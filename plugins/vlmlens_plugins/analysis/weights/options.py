"""Options of the analysis `weights`."""

from __future__ import annotations

from typing import Annotated

from pydantic import BeforeValidator, Field

from vlmlens.abc import Options
from vlmlens_plugins.analysis._sweeps.sweeping import Texts, listed

Words = Annotated[
    tuple[str, ...] | None,
    BeforeValidator(listed, json_schema_input_type=str | tuple[str, ...] | None),
]


class WeightsOptions(Options):
    """Which heads, and what they are compared with."""

    sites: Texts = Field(
        None,
        description="Attention modules, as patterns. Default: the self-attention of all blocks of "
        "the vision tower, the language model and what else the model has.",
    )
    words: Words = Field(
        None,
        description="Words whose first tokens are followed through each head. Default: labels and "
        "choices of the samples, at most 8; an empty list: none.",
    )
    tokens: int = Field(
        4096,
        ge=0,
        description="Copying scores use so many tokens, drawn at random; 0: the whole vocabulary.",
    )
    fold: bool = Field(
        True,
        description="Fold the weight of the norm before attention, and of the final norm, into the "
        "matrices; false: leave norms out.",
    )
    strongest: int = Field(
        8,
        ge=1,
        description="List so many earlier heads for each head and kind of composition; in stacks "
        "of at most 48 heads, all of them.",
    )
