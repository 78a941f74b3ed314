"""Options of the analysis `tune`."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator

from vlmlens.abc import Options
from vlmlens_plugins.tuning.making import Method, Place, Trainable
from vlmlens_plugins.tuning.recipe import Recipe


def _listed(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


Share = Annotated[float, Field(gt=0, lt=1)]


class TuneOptions(Options):
    """What is trained, on what, and how."""

    component: str | None = Field(
        None,
        description="What is trained: vision, projector, llm, or a pattern of sites such as "
        "llm.block.8-11. None: llm, or nothing of the model with the method prompt.",
    )
    method: Method | None = Field(
        None,
        description="lora, weights (all of them) or prompt (virtual tokens). None: weights for "
        "the projector, lora for other components.",
    )
    rank: int = Field(8, ge=1, description="Rank of LoRA.")
    alpha: float | None = Field(
        None, gt=0, description="LoRA is multiplied by alpha / rank. None: alpha is twice the rank."
    )
    tokens: int = Field(8, ge=1, description="Virtual tokens of the method prompt.")
    place: Place = Field(
        "before-question", description="Where they stand: before-question or after-image."
    )
    task: Annotated[
        tuple[str, ...], BeforeValidator(_listed, json_schema_input_type=str | tuple[str, ...])
    ] = Field((), description="Tasks to train on. Empty: all that have labels.")
    train: Share = Field(0.6, description="Share of the groups (images) to learn from.")
    held_out: Share = Field(0.15, description="Share of the groups whose loss says when to stop.")
    test: Share = Field(0.25, description="Share of the groups that is measured before and after.")
    samples: int | None = Field(
        None,
        ge=2,
        description="Learn from at most so many samples, held-out ones included. None: all.",
    )
    tests: int = Field(400, ge=1, description="Test at most so many samples of each task.")
    epochs: int = Field(12, ge=1, description="The most passes through the training samples.")
    rate: float | None = Field(
        None,
        gt=0,
        description="The highest learning rate. None: 0.003 for lora, 0.002 for all weights of "
        "the projector, 0.0003 for those of others, 0.01 for prompts. Large models need less.",
    )
    batch_size: int = Field(8, ge=1, description="Samples per pass.")
    accumulate: int = Field(1, ge=1, description="Passes per step.")
    warmup: float = Field(0.05, ge=0, le=1, description="Share of the steps that the rate rises.")
    weight_decay: float = Field(0.0, ge=0, description="Of AdamW.")
    clip: float = Field(1.0, ge=0, description="The largest norm of the gradient; 0: no limit.")
    patience: int = Field(
        3, ge=0, description="Stop after so many epochs without a lower held-out loss; 0: never."
    )
    autocast: Literal["auto", "bfloat16", "none"] = Field(
        "auto", description="Passes under autocast: auto is bfloat16 on GPUs."
    )
    reuse: bool = Field(True, description="Keep what a pass computes before the trained part.")
    cache: float = Field(2.0, ge=0, description="GiB to keep of it at most.")
    seeds: int = Field(
        1, ge=1, description="Train so often, with other seeds. The first one is saved."
    )
    control: bool = Field(True, description="Train with shuffled labels, too.")
    max_new_tokens: int = Field(16, ge=1, description="Of an answer where there are no choices.")
    level: float = Field(
        0.05, gt=0, lt=1, description="Level of the tests, corrected for the number of tasks."
    )
    draws: int = Field(2000, ge=200, description="Resamples behind intervals and tests.")

    @model_validator(mode="after")
    def _check_shares(self) -> TuneOptions:
        if self.train + self.held_out + self.test > 1 + 1e-9:
            raise ValueError(
                "train, held_out and test are shares of the groups: at most 1 together"
            )
        return self

    @property
    def shares(self) -> tuple[float, float, float]:
        """To learn from, held out, of the test."""
        return self.train, self.held_out, self.test

    @property
    def trainable(self) -> Trainable:
        """What is trained.

        Raises:
            SpecError: Component and method do not fit.
        """
        return Trainable.of(
            self.component,
            self.method,
            rank=self.rank,
            alpha=self.alpha,
            tokens=self.tokens,
            place=self.place,
        )

    def recipe(self, seed: int) -> Recipe:
        """How it is trained.

        Args:
            seed: Of the order of samples.
        """
        return Recipe(
            epochs=self.epochs,
            rate=self.trainable.usual_rate if self.rate is None else self.rate,
            batch_size=self.batch_size,
            accumulate=self.accumulate,
            warmup=self.warmup,
            weight_decay=self.weight_decay,
            clip=self.clip,
            patience=self.patience,
            autocast=self.autocast,
            seed=seed,
            reuse=self.reuse,
            cache_bytes=int(self.cache * 2**30),
        )
