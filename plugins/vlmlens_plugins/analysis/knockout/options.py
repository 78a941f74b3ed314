"""Options of the knockout."""

from __future__ import annotations

from pydantic import Field

from vlmlens_plugins.analysis._sweeps.followed import FollowOptions
from vlmlens_plugins.analysis._sweeps.sweeping import ControlledOptions, Texts


class KnockoutOptions(FollowOptions, ControlledOptions):
    """Options of the knockout."""

    routes: Texts = Field(
        None,
        description="What is cut, as FROM -> TO, both selectors; TO may be `later`, all rows "
        "behind FROM. Default: image -> last, image -> question, question -> last, image -> later.",
    )
    window: int | None = Field(
        None,
        ge=1,
        description="In how many layers around each layer. Default: a quarter of them, made odd, "
        "at most 9.",
    )
    renormalise: bool = Field(
        True, description="Whether the rows that are still read get the attention that was cut."
    )
    min_change: float = Field(
        1.0, ge=0, description="The smallest change of the probability that counts, in %."
    )
