"""Options of the ablation."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BeforeValidator, Field

from vlmlens_plugins.analysis._sweeps.followed import FollowOptions
from vlmlens_plugins.analysis._sweeps.sweeping import ControlledOptions, Texts, listed

Part = Literal["heads", "attn", "mlp", "block"]


class AblationOptions(FollowOptions, ControlledOptions):
    """Options of the ablation."""

    parts: Annotated[
        tuple[Part, ...],
        BeforeValidator(listed, json_schema_input_type=Part | tuple[Part, ...]),
    ] = Field(
        ("heads", "mlp"),
        min_length=1,
        description="What is ablated in the language model, one by one: heads, attn and mlp (what "
        "each adds to the residual stream), block (what both add).",
    )
    sites: Texts = Field(
        None, description="Sites to ablate one by one, as patterns, instead of `parts`."
    )
    by: Literal["mean", "zero", "resample"] = Field(
        "mean",
        description="What takes the rows' place: mean (of such rows over the samples), zero, "
        "resample (the rows of another sample with as many).",
    )
    rows: Texts = Field(
        None,
        description="Which rows, as selectors; each has a mean of its own. Default: all rows, by "
        "kind (image, text, special), the last one apart.",
    )
    greedy: int = Field(
        0,
        ge=0,
        description="Remove so many of the first of `parts` (or of `sites`) together, in each step "
        "the one whose removal does most beside those removed before.",
    )
    min_effect: float = Field(
        0.05,
        ge=0,
        description="The smallest change that counts, in the logit difference (in nats of the "
        "log-probability where there is none).",
    )
