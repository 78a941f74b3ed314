"""Which part is trained: from words that users say to a `Part`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

from vlmlens._display import count
from vlmlens.abc import ModelAdapter
from vlmlens.errors import SpecError
from vlmlens.tuned.components import parameters_of
from vlmlens_plugins.tuning.part import Part

Method: TypeAlias = Literal["lora", "weights", "prompt"]
Place: TypeAlias = Literal["before-question", "after-image"]

PROMPT = "prompt"
"""What is trained where it is no component of the model."""

_NAMES = {
    "vision": "vision tower",
    "projector": "projector",
    "llm": "language model",
    PROMPT: "prompt",
}
_RATES = {"lora": 3e-3, "weights": 3e-4, "prompt": 1e-2}
_RATE_OF_PROJECTOR = 2e-3


def named(component: str) -> str:
    """A component in words; a pattern of sites stays as it is."""
    return _NAMES.get(component, component)


@dataclass(frozen=True, slots=True)
class Trainable:
    """What is trained of a model, and how it is put into it.

    Args:
        component: One of `vlmlens.tuned.components.COMPONENTS`, a pattern of sites, or `PROMPT`.
        method: "lora", "weights" or "prompt".
        rank: Of LoRA.
        alpha: Of LoRA; None: twice the rank.
        tokens: Virtual tokens of a prompt.
        place: Where they stand.
    """

    component: str
    method: Method
    rank: int = 8
    alpha: float | None = None
    tokens: int = 8
    place: Place = "before-question"

    @classmethod
    def of(
        cls,
        component: str | None,
        method: Method | None,
        *,
        rank: int = 8,
        alpha: float | None = None,
        tokens: int = 8,
        place: Place = "before-question",
    ) -> Trainable:
        """What is meant if some of it is not said: all weights of a projector, LoRA of the others.

        Raises:
            SpecError: A prompt is not a component.
        """
        component = component or (PROMPT if method == PROMPT else "llm")
        usual: Method = {"projector": "weights", PROMPT: "prompt"}.get(component, "lora")  # type: ignore[assignment]
        found = method or usual
        if (found == PROMPT) != (component == PROMPT):
            raise SpecError(
                f"The component {component!r} cannot be trained by the method {found!r}.",
                subject=component,
                hint="Virtual tokens are no component: choose the method prompt alone, or a "
                "component with lora or weights.",
            )
        return cls(component, found, rank, alpha, tokens, place)

    @property
    def name(self) -> str:
        """The component in words."""
        known = self.component in _NAMES
        return f"the {named(self.component)}" if known else self.component

    @property
    def usual_rate(self) -> float:
        """The learning rate if none is said; those of large models are lower."""
        if self.component == "projector" and self.method == "weights":
            return _RATE_OF_PROJECTOR
        return _RATES[self.method]

    def said(self, numbers: int) -> str:
        """The method in words, with how many numbers are trained."""
        if self.method == "lora":
            return f"LoRA of rank {self.rank}, {numbers:,} parameters"
        if self.method == "prompt":
            return f"{count(self.tokens, 'virtual token')}, {numbers:,} parameters"
        return f"all weights, {numbers:,} parameters"

    def check(self, vlm: ModelAdapter) -> None:
        """Raise an error if a model has nothing of that kind; its skeleton is enough.

        Raises:
            SpecError: The model has no such component.
            SiteNotFound: A pattern matches nothing.
        """
        if self.component != PROMPT:
            parameters_of(vlm, self.component)

    def made(self, vlm: ModelAdapter, seed: int) -> Part:
        """The part, with the values that it begins with.

        Args:
            vlm: The model.
            seed: Of these values.

        Raises:
            MissingDependency: LoRA needs peft.
        """
        if self.method == "weights":
            from vlmlens_plugins.tuning.parts.weights import WeightsPart

            return WeightsPart(vlm, self.component)
        if self.method == "lora":
            from vlmlens_plugins.tuning.parts.lora import LoraPart

            alpha = 2.0 * self.rank if self.alpha is None else self.alpha
            return LoraPart(vlm, self.component, rank=self.rank, alpha=alpha, seed=seed)
        from vlmlens_plugins.tuning.parts.prompt import PromptPart

        return PromptPart(vlm, tokens=self.tokens, place=self.place, seed=seed)
