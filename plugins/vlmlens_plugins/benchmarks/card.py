"""Card: how a benchmark is asked, how its answers are read, and how they are scored."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol, TypeAlias

import numpy as np
import numpy.typing as npt

from vlmlens.errors import SpecError, did_you_mean
from vlmlens.samples import Sample

Floats: TypeAlias = npt.NDArray[np.float64]
Read: TypeAlias = Callable[[str, Sample], str | None]
"""What a text says, such as "yes" or "B"; None where it says nothing that the rule knows."""
Credit: TypeAlias = Callable[[str | None, Sample], float]
"""From 0 (wrong) to 1 (right): what an answer that was read is worth. None is worth 0."""

STRICT, OFFICIAL = "strict", "official"


class Answer(NamedTuple):
    """One answer: the text as it was written, what a rule read, and what that is worth."""

    text: str
    said: str | None
    credit: float


class Metrics(Protocol):
    """The metrics of a set, as functions of sums: so they can be resampled quickly.

    `counts` gives arrays `[samples]`. Summed over samples they are all that `scores` needs. A count
    of several samples (a figure whose questions are all right) stands at one of them; these samples
    must share their group. Metrics of which that does not hold are named in an attribute `spans`:
    they get no interval.
    """

    def counts(self, samples: Sequence[Sample], answers: Sequence[Answer]) -> dict[str, Floats]:
        """Arrays `[samples]` by name; always the same names."""
        ...

    def scores(self, sums: Mapping[str, Floats]) -> dict[str, Floats]:
        """Metrics by name, elementwise, in the set's own units; NaN where there is nothing."""
        ...


def exact(said: str | None, sample: Sample) -> float:
    """1 if what was said is the label, in whatever case."""
    return float(said is not None and said.lower() == str(sample.label).lower())


@dataclass(frozen=True)
class Rule:
    """How answers are read and credited; a toolkit's rule may come with its own metrics.

    Args:
        read: From text to what it says. It never guesses.
        credit: What that is worth.
        metrics: The toolkit's, where they differ from the card's; None: the card's.
        about: Where the rule is from, and what is odd about it.
        task_metrics: The toolkit's of one task, where they differ; None: the card's.
        needs: Raises `MissingDependency` if these samples' answers cannot be read for want of a
            package or its data; None: it needs nothing.
    """

    read: Read
    credit: Credit = exact
    metrics: Metrics | None = None
    about: str = ""
    task_metrics: Metrics | None = None
    needs: Callable[[Sequence[Sample]], None] | None = None

    def check(self, samples: Sequence[Sample]) -> None:
        """Whether the answers of these samples can be read, before any is written.

        Raises:
            MissingDependency: A package or its data is not installed.
        """
        if self.needs is not None:
            self.needs(samples)


@dataclass(frozen=True)
class Prompt:
    r"""How a question becomes a prompt: a suffix, or a function of the bare question.

    Args:
        suffix: What follows the question; shown with every score.
        write: From a sample whose prompt is the bare question to the whole prompt; None: the
            question and the suffix.

    >>> Prompt(" Please answer yes or no.").of(Sample("1", "Is there a dog?"))
    'Is there a dog? Please answer yes or no.'
    """

    suffix: str = ""
    write: Callable[[Sample], str] | None = None

    def of(self, sample: Sample) -> str:
        """The prompt for a sample whose own prompt is the bare question."""
        return sample.prompt + self.suffix if self.write is None else self.write(sample)


@dataclass(frozen=True)
class Reference:
    """A figure that was published, with the setting that it holds for.

    Args:
        model: Which model.
        metric: A metric of the card, or the task and the metric ("popular: f1").
        value: In the metric's units.
        setting: Prompt, decoding, edition.
        source: Where it stands.
    """

    model: str
    metric: str
    value: float
    setting: str
    source: str


@dataclass(frozen=True)
class Card:
    """What the authors of a benchmark fixed, and what is known of it.

    Args:
        name: Of the dataset plugin: "pope".
        title: The set's own name: "POPE".
        paper: Its arXiv number, or another place.
        licence: Of the questions and of the images.
        prompts: Styles by name, "official" first.
        rules: By name: "strict" and "official", where there are any "lmms-eval", "vlmevalkit", ...
        metrics: Over all samples.
        headline: The metric that papers quote.
        task_metrics: Over the samples of one task; None: none by task.
        task_headline: The metric of a task that counts; "": the headline or its last part
            ("mean_f1": f1), if tasks have that, else their first.
        units: By metric: "percent", "share", "points" or other; percent where nothing is said.
        lower_is_better: Metrics of which less is better.
        groups: What the samples of a group share: "an image".
        decoding: As the figures are made: "greedy".
        max_new_tokens: Most tokens of an answer.
        constants: Answers whose constant use is scored beside; none: each label.
        shortcuts: What answers without looking gain, in sentences.
        faults: Known faults of the set and of what scores it, in sentences.
        references: Published figures.
        free: Whether answers are free text, so that no choices can be compared.
        truth: The attribute that says what is right, where samples have no labels; "": they have.
    """

    name: str
    title: str
    paper: str
    licence: str
    prompts: Mapping[str, Prompt]
    rules: Mapping[str, Rule]
    metrics: Metrics
    headline: str
    task_metrics: Metrics | None = None
    task_headline: str = ""
    units: Mapping[str, str] = field(default_factory=dict)
    lower_is_better: frozenset[str] = frozenset()
    groups: str = "an image"
    decoding: str = "greedy"
    max_new_tokens: int = 16
    constants: tuple[str, ...] = ()
    shortcuts: tuple[str, ...] = ()
    faults: tuple[str, ...] = ()
    references: tuple[Reference, ...] = ()
    free: bool = False
    truth: str = ""

    def prompt(self, style: str) -> Prompt:
        """The prompt of a style: one of the card's, "none", or text that begins with a blank.

        Raises:
            SpecError: There is no such style.
        """
        if style in self.prompts:
            return self.prompts[style]
        if style == "none":
            return Prompt()
        if style[:1].isspace():
            return Prompt(style)
        raise SpecError(
            f"{self.title} has no prompt style {style!r}.",
            subject=style,
            hint=("" if " " in style else did_you_mean(style, self.prompts))
            or f"There are {', '.join(self.prompts)} and none. A suffix of your own begins with a "
            """space, in quotes of its own: --set 'options.dataset.prompt=" Yes or no?"'.""",
        )

    def rule(self, name: str) -> Rule:
        """The rule of that name.

        Raises:
            SpecError: There is none.
        """
        if name in self.rules:
            return self.rules[name]
        raise SpecError(
            f"{self.title} has no parser {name!r}.",
            subject=name,
            hint=did_you_mean(name, self.rules) or f"There are {', '.join(self.rules)}.",
        )
