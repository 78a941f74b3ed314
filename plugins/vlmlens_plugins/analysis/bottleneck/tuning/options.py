"""Options of the part of `bottleneck` that tunes components."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, field_validator

from vlmlens.abc import Options

PROMPT = "prompt"
TunedComponent = Literal["prompt", "vision", "projector", "llm"]
ORDER: tuple[TunedComponent, ...] = ("prompt", "vision", "projector", "llm")


class TuningOptions(Options):
    """What is tuned, and on how much."""

    tune: bool = Field(
        False,
        description="Also tune each component on the same samples, and say which closes the gap "
        "to what can be read off directly.",
    )
    task: str | None = Field(
        None, description="The only task that is looked at; needed to tune where there are several."
    )
    components: tuple[TunedComponent, ...] = Field(
        ORDER, min_length=1, description="What is tuned, each by itself."
    )
    seeds: int = Field(
        2, ge=1, description="Trainings of each component, each with other first values and order."
    )
    labelled: int = Field(
        200, ge=8, description="At most so many samples to train on, a fifth of them held out."
    )
    tested: float = Field(
        0.5, gt=0, lt=1, description="The share of groups that is tested, and never trained on."
    )
    tests: int = Field(120, ge=2, description="Test at most so many samples.")
    epochs: int = Field(10, ge=1, description="The most passes through the training samples.")
    tokens: int = Field(8, ge=1, description="Virtual tokens of the tuned prompt.")
    rank: int = Field(8, ge=1, description="Rank of LoRA on the tower and the language model.")
    whole_weights: bool = Field(
        False, description="Train all weights of tower and language model, instead of LoRA."
    )

    @field_validator("components", mode="before")
    @classmethod
    def _one_is_a_list(cls, value: object) -> object:
        return [value] if isinstance(value, str) else value
