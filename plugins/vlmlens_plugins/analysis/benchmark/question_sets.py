"""The question sets of a run: its samples by the attribute `benchmark`, each with its card."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from vlmlens._display import count
from vlmlens.errors import MissingAnnotation, SpecError
from vlmlens.samples import Sample
from vlmlens_plugins.benchmarks.benchmark import EDITION, NAME, OWN, QUESTIONS, STYLE, card_of
from vlmlens_plugins.benchmarks.card import Card, Rule
from vlmlens_plugins.benchmarks.own_answers import ANSWER

_HINT = (
    "Read the set by its benchmark, for example --data pope:path/to/coco/. `vlmlens plugins list` "
    "shows which there are; of samples of your own, docs/benchmarks.md says how to write a card."
)


@dataclass(frozen=True)
class QuestionSet:
    """The samples of one benchmark.

    Args:
        card: How they are asked, read and scored.
        samples: In the order of the run.
    """

    card: Card
    samples: Sequence[Sample]

    @property
    def edition(self) -> str:
        """The edition that was read."""
        return self._said(EDITION) or "unknown edition"

    @property
    def style(self) -> str:
        """The style of the prompts, with what it adds to a question."""
        style = self._said(STYLE)
        if not style:
            return "unknown prompts"
        if style == OWN:
            return "prompts of the user's own"
        try:
            prompt = self.card.prompt(style)
        except SpecError:
            return f"prompt {style!r} (no style of the set)"
        if prompt.write is not None and not prompt.suffix:
            return f"prompt {style!r} (a form of its own)"
        return f"prompt {style!r} ({f'suffix {prompt.suffix!r}' if prompt.suffix else 'no suffix'})"

    @property
    def has_own_prompts(self) -> bool:
        """Whether --prompt replaced the questions."""
        return self._said(STYLE) == OWN

    @cached_property
    def questions(self) -> int | None:
        """How many questions the source has; None if it does not say."""
        said = self._said(QUESTIONS)
        return int(said) if said.isdecimal() else None

    @cached_property
    def given(self) -> bool:
        """Whether each sample has an answer from elsewhere."""
        return not self._without(ANSWER)

    @cached_property
    def groups(self) -> int:
        """How many groups the samples are in."""
        return len({sample.split_group for sample in self.samples})

    def rule(self, parser: str) -> Rule:
        """The rule of that name; raises `SpecError` if there is none."""
        return self.card.rule(parser)

    def check(self, way: str) -> None:
        """Raise an error if answers cannot be had or scored.

        Args:
            way: "auto", "write", "choose" or "given".

        Raises:
            MissingAnnotation: Samples lack answers, choices or labels.
        """
        title, samples = self.card.title, self.samples
        if way == "given" and (lacking := self._without(ANSWER)):
            raise MissingAnnotation(
                f"{title}: {count(len(lacking), 'sample')} of {len(samples)} without an answer "
                f"(the first: {lacking[0]!r}).",
                subject=lacking[0],
                hint="Give a file of answers: --set options.dataset.answers=answers.jsonl; or let "
                "the model answer: --set analysis.benchmark.answers=write.",
            )
        closed = [sample.id for sample in samples if not sample.choices]
        if way == "choose" and (self.card.free or closed):
            raise MissingAnnotation(
                f"{title} has open questions, whose answers cannot be chosen"
                f"{f' (the first: {closed[0]!r})' if closed else ''}.",
                subject=title,
                hint="Let the model write: --set analysis.benchmark.answers=write.",
            )
        if not self.card.truth and all(sample.label is None for sample in samples):
            raise MissingAnnotation(
                f"{title}: no question has its right answer, so none can be scored.",
                subject=title,
                hint="The answers of this split may not be published. Use another split.",
            )

    def _said(self, attribute: str) -> str:
        return "; ".join(sorted(self._values[attribute]))

    @cached_property
    def _values(self) -> dict[str, set[str]]:
        """What the samples say of their set."""
        named = (EDITION, STYLE, QUESTIONS)
        found: dict[str, set[str]] = {name: set() for name in named}
        for sample in self.samples:
            for name in named:
                found[name].add(str(sample.attributes.get(name, "")))
        return found

    def _without(self, attribute: str) -> list[str]:
        return [
            sample.id
            for sample in self.samples
            if not isinstance(sample.attributes.get(attribute), str)
        ]


def question_sets(samples: Sequence[Sample], plugin: str | None = None) -> list[QuestionSet]:
    """The sets of a run, in order of appearance; samples of no set are left out.

    Args:
        samples: The run's.
        plugin: The dataset that has the card; None: the samples say it.

    Raises:
        MissingAnnotation: No sample is of a benchmark.
        SpecError: A card is not installed.
    """
    found: dict[str, list[Sample]] = {}
    for sample in samples:
        name = sample.attributes.get(NAME)
        if isinstance(name, str) and name:
            found.setdefault(name, []).append(sample)
    if not found:
        raise MissingAnnotation(
            "No sample is of a benchmark: none has the attribute `benchmark`, which says how its "
            "answer is read and scored.",
            subject=NAME,
            hint=_HINT,
        )
    return [QuestionSet(card_of(name, plugin), own) for name, own in found.items()]
