"""Options of the analysis `sae`."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from vlmlens.abc import Options
from vlmlens_plugins.analysis._sweeps.sweeping import SweepOptions, Texts, listed

Kind = Literal["batchtopk", "topk", "matryoshka", "jumprelu", "standard", "gated"]


def _several(value: Any) -> Any:
    return [value] if isinstance(value, int | float | str) else value


def _switch(value: Any) -> Any:
    """YAML reads off and on as booleans."""
    return {False: "off", True: "on"}[value] if isinstance(value, bool) else value


Width = Annotated[
    Annotated[tuple[Annotated[str, Field(pattern=r"^[1-9][0-9]*x?$")], ...], Field(min_length=1)]
    | None,
    BeforeValidator(
        lambda value: None if value is None else [str(one) for one in _several(value)],
        json_schema_input_type=int | str | tuple[int | str, ...] | None,
    ),
]
Sparsity = Annotated[
    Annotated[tuple[Annotated[float, Field(gt=0, allow_inf_nan=False)], ...], Field(min_length=1)]
    | None,
    BeforeValidator(_several, json_schema_input_type=float | tuple[float, ...] | None),
]


class TrainOptions(Options):
    """Which SAEs are trained, on what."""

    column: Texts = Field(
        None,
        description="The column whose rows are used (llm.block.14/image), or several: an SAE each. "
        "Default: stored columns with several rows per sample; without any, the image rows of the "
        "last vision block and of the middle block of the language model, run anew.",
    )
    source: Literal["auto", "store", "model"] = Field(
        "auto",
        description="Where rows come from: the store, or passes of the model that are not stored; "
        "auto: the store if it has the column.",
    )
    file: Texts = Field(
        None,
        description="SAEs to judge and show instead of training some: folders or files of SAELens, "
        "sparsify, dictionary_learning, saev or Prisma.",
    )
    anyway: bool = Field(
        False, description="Use an SAE of `file` also for another model or column than its own."
    )
    join: bool = Field(
        False,
        description="Several columns with equal numbers of rows: one SAE on their rows side by "
        "side, each scaled to equal norm (a crosscoder with a common code).",
    )
    target: str | None = Field(
        None, description="A column that is predicted from `column` instead: a transcoder."
    )
    kind: Kind = Field("batchtopk", description="What keeps codes sparse.")
    width: Width = Field(
        None,
        description="Features: a number, or times the width of a row (8x); or several. Default: "
        "8x, or one feature for 60 rows to learn from if that is less, but as many as a row has "
        "numbers.",
    )
    k: Sparsity = Field(
        None,
        description="Features per row that topk, batchtopk and matryoshka keep, and that the "
        "others aim at; at most an eighth of the features. Several: an SAE each. Default: 32, or "
        "an eighth of the width of a row if that is less.",
    )
    coefficient: float | None = Field(
        None,
        gt=0,
        allow_inf_nan=False,
        description="Of standard, gated and jumprelu: the weight of sparsity. Default: searched "
        "for, so that about k features fire.",
    )
    seeds: int = Field(
        2, ge=1, description="SAEs per setting, from different starts: how stable features are."
    )
    rows: int | None = Field(
        None,
        ge=1,
        description="Rows to train on; rows come again where there are fewer. Default: 1000 steps, "
        "or one pass over all rows if that is more, up to 20 million.",
    )
    per_image: int | None = Field(
        None, ge=1, description="Use so many random rows of each sample; default: all."
    )
    batch: int = Field(4096, ge=1, description="Rows per step; fewer if there are few rows.")
    lr: float | None = Field(
        None,
        gt=0,
        allow_inf_nan=False,
        description="Learning rate; default: 2e-4 / sqrt(features / 16384), for Adam.",
    )
    centre: bool = Field(True, description="Take the mean row away first; it is put into b_dec.")
    normalise: bool = Field(
        True, description="Bring rows to a mean norm of sqrt(width); undone in the saved SAE."
    )
    dtype: Literal["float32", "bfloat16"] = Field("float32", description="For products of rows.")
    device: str = Field("auto", description="Where to train: auto, cpu, cuda, cuda:1.")
    buffer: int | None = Field(
        None,
        ge=1,
        description="Rows that are kept in memory to be shuffled, at most, up to 1 GiB. Default: "
        "262,144, or as many as take 256 MiB if that is less.",
    )
    held_out: float = Field(
        0.2, gt=0, lt=1, description="Share of the groups that nothing is learnt from."
    )


class SaeOptions(TrainOptions, SweepOptions):
    """Options of training, and of what is measured and shown."""

    samples: int = Field(
        16,
        ge=1,
        description="Use at most so many held-out samples of each task for what runs the model: "
        "the loss of answers, and effects.",
    )
    by: Annotated[
        tuple[str, ...],
        BeforeValidator(listed, json_schema_input_type=str | tuple[str, ...]),
    ] = Field(
        ("label",),
        description="What features may stand for: label (in each task), or attributes.",
    )
    judged: int = Field(
        100_000, ge=1, description="Held-out rows that are judged, at most; whole samples."
    )
    embeddings: str | None = Field(
        None,
        description="The column whose mean rows say how alike pictures are, for monosemanticity. "
        "Default: the last block of the vision tower.",
    )
    permutations: int = Field(999, ge=99, description="How often labels are shuffled, at least.")
    pages: int = Field(24, ge=0, description="How many features are shown, for each column.")
    features: Annotated[
        tuple[int, ...] | None,
        BeforeValidator(_several, json_schema_input_type=int | tuple[int, ...] | None),
    ] = Field(None, description="Features to show, by number; default: chosen from evidence.")
    explainer: str | None = Field(
        None,
        description="A function of yours that names a feature from its page: package.module:NAME, "
        "or FILE.py:NAME.",
    )
    model: Annotated[Literal["auto", "off"], BeforeValidator(_switch)] = Field(
        "auto",
        description="Load the model to say what rows stand for, and what features do to its "
        "answers: auto (if there is one), or off: only what stored rows tell.",
    )
    loss: Annotated[Literal["auto", "on", "off"], BeforeValidator(_switch)] = Field(
        "auto",
        description="Measure how much of the answer's loss is kept when rows are replaced by their "
        "reconstruction; auto: if the model writes and samples have labels.",
    )
    effects: int = Field(
        2,
        ge=0,
        description="For so many features of each column: what ablating them does to the answers.",
    )
    controls: int = Field(3, ge=1, description="Draws of random features of equal density.")
