"""Options of steering."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, FiniteFloat

from vlmlens_plugins.analysis._sweeps import SweepOptions

Method = Literal["mean-difference", "probe", "pca"]


def text_of(value: Any) -> Any:
    """Numbers and truth values as text: YAML reads yes and no as truth values, 3 as a number."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    return str(value) if isinstance(value, int | float) else value


def _texts(value: Any) -> Any:
    return [text_of(one) for one in value] if isinstance(value, list | tuple) else [text_of(value)]


def _strengths(values: list[float]) -> list[float]:
    if not any(values):
        raise ValueError("at least one strength must not be 0")
    return list(dict.fromkeys(values))


Text = Annotated[str, BeforeValidator(text_of)]


class SteeringOptions(SweepOptions):
    """What is steered towards, where, how strongly, and how the direction is learnt."""

    attribute: str = Field(
        "label", description="What the direction is about: label, or an attribute of the samples."
    )
    towards: Text | None = Field(
        None,
        description="Its value that is steered towards. Default: the most frequent one; of pairs, "
        "the most frequent answer of corrupted samples.",
    )
    away: Annotated[list[str], BeforeValidator(_texts)] = Field(
        default_factory=list, description="Its values that are steered from. Default: all others."
    )
    answer: Text | None = Field(
        None, description="The answer that should become likelier. Default: `towards`."
    )
    task: str | None = Field(
        None,
        description="The task that is steered. Default: the first one with samples of both sides. "
        "The others are the untouched questions.",
    )
    method: Method = Field(
        "mean-difference",
        description="How the direction is learnt: the difference of the two means, the weights of "
        "a probe, or the first principal component of differences of pairs.",
    )
    sites: list[str] | None = Field(
        None,
        description="Sites or patterns. Default: language blocks, at most 8, spread evenly.",
    )
    rows: str = Field(
        "last", description="The rows that are learnt from, and steered: last, all, image, ..."
    )
    strengths: Annotated[list[FiniteFloat], AfterValidator(_strengths)] = Field(
        default_factory=lambda: [-2.0, -1.0, -0.5, 0.0, 0.5, 1.0, 2.0],
        min_length=1,
        description="How often the direction is added. All directions of a site are as long as "
        "the difference of the two means.",
    )
    learn: int = Field(
        512, ge=4, description="Learn from at most so many samples, half of them of `towards`."
    )
    C: float = Field(0.01, gt=0, description="Inverse L2 strength of the probe (scikit-learn's C).")
    controls: int = Field(
        5,
        ge=5,
        description="Random directions per site, and as many that are learnt from shuffled labels.",
    )
    alpha: float = Field(
        0.05, gt=0, lt=1, description="Significance level of the corrected p-values."
    )
    direction: str | None = Field(
        None,
        description="A direction that this analysis has saved (.safetensors), to be tested "
        "instead of learning one.",
    )

    @property
    def stated(self) -> float:
        """The strength that findings are about: 1, or the positive one nearest to it."""
        positive = [each for each in self.strengths if each > 0] or self.strengths
        return min(positive, key=lambda each: abs(each - 1))

    @property
    def acting(self) -> list[float]:
        """The strengths at which something is added."""
        return [each for each in self.strengths if each != 0]
