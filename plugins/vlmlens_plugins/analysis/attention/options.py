"""Options of the analysis of attention."""

from __future__ import annotations

from typing import Annotated, Literal, get_args

from pydantic import BeforeValidator, Field

from vlmlens.abc import Options
from vlmlens_plugins.analysis._sweeps.sweeping import Texts, listed

Method = Literal["attention", "rollout", "relevance", "value-weighted"]
METHODS: tuple[Method, ...] = get_args(Method)
FROM_MODEL = 32
_Methods = Annotated[
    Annotated[tuple[Method, ...], Field(min_length=1)],
    BeforeValidator(listed, json_schema_input_type=Method | tuple[Method, ...]),
]


class AttentionOptions(Options):
    """Whose attention is measured, where to, and what is drawn."""

    query: str = Field(
        "last", description="Rows whose attention is measured, as a selector; several are averaged."
    )
    region: str | dict[str, str] | None = Field(
        None,
        description="The key region: a name, several with +, or * for all of a sample's regions; "
        "or such a name for each task. Default: the sample's attribute `region`; in tasks without "
        "it, all its regions.",
    )
    source: Literal["columns", "model"] | None = Field(
        None,
        description="columns: stored by the attention extractor with regions=patches; model: new "
        "passes. Default: columns if there are such.",
    )
    columns: Texts = Field(
        None, description="Which of the stored columns, as patterns. Default: all."
    )
    samples: int | None = Field(
        None,
        ge=1,
        description="Use at most so many samples of each task, the first ones. Default: "
        f"{FROM_MODEL}; of stored columns, all.",
    )
    maps: int = Field(
        2, ge=0, description="For so many samples of each task, maps are drawn over the picture."
    )
    methods: _Methods = Field(
        METHODS,
        description="The maps: attention; rollout; relevance (Chefer et al.), from gradients; "
        "value-weighted: what heads write from each patch. Stored columns give the first.",
    )
    heads: tuple[Annotated[int, Field(ge=0)], ...] | None = Field(
        None,
        description="Heads that are drawn beside all together. Default: each, if there are at most "
        "8.",
    )
    sink: float = Field(
        20.0,
        gt=0,
        description="A row is a sink if a sink dimension is so many times its root mean square.",
    )
    draws: int = Field(1000, ge=100, description="Bootstrap resamples behind each interval.")
