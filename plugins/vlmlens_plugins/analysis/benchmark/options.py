"""Options of the analysis benchmark."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from vlmlens.abc import Options
from vlmlens_plugins.benchmarks.card import STRICT

Blank = Literal["gray", "black", "white", "mean", "noise", "blur", "shuffle", "none", "skip"]


class BenchmarkScoreOptions(Options):
    """Where answers are from, and how they are read."""

    answers: Literal["auto", "write", "choose", "given"] = Field(
        "auto",
        description="write: the model writes (greedy); choose: the more probable choice of closed "
        "questions; given: the attribute `answer` of the samples, without a model; auto: given "
        "where all samples have it, else write.",
    )
    parser: str = Field(
        STRICT,
        description="What reads the answers: strict, official, lmms-eval, vlmevalkit or another "
        "rule of the set. All are computed, and shown where they disagree.",
    )
    blank: Blank = Field(
        "gray",
        description="What replaces the image for the blind score: gray, black, white, mean, noise, "
        "blur, shuffle, none (text alone); skip: no blind score.",
    )
    max_new_tokens: int | None = Field(
        None, ge=1, description="The most tokens of a written answer; default: as the set says."
    )
    card: str | None = Field(
        None,
        description="The dataset whose card is used, if it is not installed: FILE.py:Class.",
    )
    examples: int = Field(
        10, ge=1, description="How many examples a table shows of unparsed answers, and so on."
    )
    draws: int = Field(1000, ge=100, description="Resamples behind each interval.")
