"""Options of the blind test."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, field_validator

from vlmlens.abc import Options

Blank = Literal[
    "gray", "black", "white", "mean", "noise", "blur", "shuffle", "other", "none"
]  # fmt: skip

KEEPS_SOME = frozenset({"blur", "shuffle"})
"""Kinds that leave part of the image: their answers tell what is used, not whether anything is."""

SHOWS_NOTHING = frozenset({"gray", "black", "white", "noise", "none"})
"""Kinds that are the same whatever the image shows."""


def _listed(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


class BlindOptions(Options):
    """Options of the blind test."""

    blank: Annotated[
        tuple[Blank, ...],
        BeforeValidator(_listed, json_schema_input_type=Blank | tuple[Blank, ...]),
    ] = Field(
        ("gray",),
        min_length=1,
        description="What replaces the image, one or several of: gray, black, white, mean (its "
        "mean color), noise, blur, shuffle (its patches), other (another sample's), none (text).",
    )
    form: Literal["plain", "letters", "rotated"] = Field(
        "plain",
        description="How choices are offered: plain (as answers), letters (A, B, ... in the "
        "prompt), rotated (letters, in every cyclic order of the choices).",
    )
    polarity: bool = Field(False, description="Ask yes/no questions the other way round, too.")
    negation: str = Field(
        'Would "no" be the right answer to this question? {prompt}',
        description="Prompt of the other way round, if a sample has no attribute `negated`.",
    )
    score: Literal["sum", "mean"] = Field(
        "sum", description="Log-probability of a choice: sum or mean over its tokens."
    )
    calibrate: bool = Field(
        False,
        description="Subtract each choice's log-probability without content (gray, no prompt).",
    )
    open: Literal["first-token", "generate"] = Field(
        "first-token",
        description="Questions without choices: compare the first token, or the written answer.",
    )
    max_new_tokens: int = Field(16, ge=1, description="Maximum tokens of a written answer.")
    blur: float = Field(
        0.1, gt=0, le=1, description="Blur radius, as a fraction of the longer side."
    )
    grid: int = Field(8, ge=2, description="Patches along each side, for shuffle.")
    alpha: float = Field(
        0.05, gt=0, lt=1, description="Significance level of the corrected p-values."
    )
    min_distance: float = Field(
        0.05, gt=0, lt=1, description="Mean total variation above which answers count as changed."
    )
    min_flips: float = Field(
        0.05, gt=0, lt=1, description="Share of flips above which answers count as changed."
    )
    min_use: float = Field(
        0.25,
        ge=0,
        lt=1,
        description="Gain above which the image counts as used, not partly used: as a share of "
        "what is answered wrong without it.",
    )
    min_information: float = Field(
        0.01,
        gt=0,
        description="Bits about the image above which answers count as following it.",
    )
    draws: int = Field(10_000, ge=1000, description="Permutations per p-value.")
    resamples: int = Field(2000, ge=200, description="Bootstrap resamples per interval.")

    @field_validator("blank")
    @classmethod
    def _distinct(cls, value: tuple[Blank, ...]) -> tuple[Blank, ...]:
        if len(set(value)) < len(value):
            raise ValueError("a kind of blank is named twice")
        return value

    @field_validator("negation")
    @classmethod
    def _holds_prompt(cls, value: str) -> str:
        if "{prompt}" not in value:
            raise ValueError("it must hold {prompt}")
        return value

    @property
    def decisive(self) -> tuple[Blank, ...]:
        """The kinds that the verdict rests on: those that leave nothing, where there are any."""
        return tuple(kind for kind in self.blank if kind not in KEEPS_SOME) or self.blank
