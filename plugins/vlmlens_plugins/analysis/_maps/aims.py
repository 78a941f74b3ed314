"""Which answer of each sample is followed while its image is altered."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from vlmlens.abc import AnalysisContext, ModelAdapter, WorkUnit
from vlmlens.errors import MissingAnnotation
from vlmlens.samples import Sample
from vlmlens_plugins.analysis._altered import Alteration, Question, ask
from vlmlens_plugins.analysis._answer_work import WriteOptions, WrittenAnswers
from vlmlens_plugins.analysis._tasks import ALL

Floats = npt.NDArray[np.float64]
_WRITTEN = 16


@dataclass(frozen=True, slots=True)
class Aim:
    """A sample, and the answer of it that is followed.

    Args:
        sample: The sample.
        answers: The answers whose probability is asked for; a model that compares choices needs
            all of them.
        own: The number of the followed one.
        rival: That of the one it is compared to; None: it is followed alone.
        given: Whether it is the sample's label, not the model's own answer.
    """

    sample: Sample
    answers: tuple[str, ...]
    own: int = 0
    rival: int | None = None
    given: bool = True

    @property
    def answer(self) -> str:
        """The followed answer."""
        return self.answers[self.own]

    @property
    def task(self) -> str:
        """The type of the question."""
        return self.sample.task or ALL

    def question(self, alteration: Alteration | None = None) -> Question:
        """The question about the altered image."""
        return Question(self.sample, self.answers, alteration)

    def score(self, logs: Floats) -> float:
        """The log-probability of the answer, in nats; less that of its rival, if it has one.

        Args:
            logs: The log-probability of each of the answers.
        """
        rival = 0.0 if self.rival is None else logs[self.rival]
        return float(logs[self.own] - rival)

    def probability(self, logs: Floats) -> float:
        """The probability of the answer."""
        return float(np.exp(logs[self.own]))


@dataclass(frozen=True, slots=True)
class Aims:
    """The samples that are followed, with notes and warnings about them."""

    aims: Sequence[Aim]
    warnings: Sequence[str] = ()
    notes: Sequence[str] = ()


def check_followable(vlm: ModelAdapter, samples: Sequence[Sample], name: str) -> None:
    """Raise an error where a model only compares choices, and a sample has none.

    Args:
        vlm: The model, or its skeleton.
        samples: The samples.
        name: The analysis, for the message.

    Raises:
        MissingAnnotation: No sample has choices.
    """
    if compares(vlm) and not any(len(sample.choices) > 1 for sample in samples):
        raise MissingAnnotation(
            f"The analysis {name} follows an answer. This model only compares choices, and no "
            "sample has any.",
            subject="choices",
            hint="Give the data a column of choices, or choose a model that writes.",
        )


def compares(vlm: ModelAdapter) -> bool:
    """Whether the model compares choices and writes nothing."""
    return vlm.choice_scores(()) is not None


def aims_of(
    context: AnalysisContext,
    samples: Sequence[Sample],
    *,
    difference: bool = False,
    only_right: bool = True,
) -> Aims:
    """Ask about the unaltered images, and choose what is followed.

    It is the label; of a sample without one, the most probable choice, else what the model writes.

    Args:
        context: The context of the analysis.
        samples: The samples.
        difference: Compare the answer to the most probable of the other choices, where there are
            choices.
        only_right: Leave out samples whose label is not the most probable choice.

    Raises:
        MissingAnnotation: No sample is left.
    """
    whole = compares(context.model())
    closed = [sample for sample in samples if len(_choices(sample)) > 1]
    logs = dict(
        zip(
            (sample.id for sample in closed),
            ask(context, [Question(sample, _choices(sample)) for sample in closed]),
            strict=True,
        )
    )
    rest = [] if whole else [sample for sample in samples if sample.id not in logs]
    written = _written(context, [sample for sample in rest if sample.label is None])
    kept: list[Aim] = []
    wrong = silent = 0
    for sample in samples:
        if sample.id in logs:
            aim = _closed(sample, logs[sample.id], difference=difference)
            wrong += not _right(aim, logs[sample.id])
            if not only_right or _right(aim, logs[sample.id]):
                kept.append(aim if whole else _narrow(aim))
            continue
        answer = written.get(sample.id) if sample.label is None else sample.label
        if answer and answer.strip() and not whole:
            kept.append(Aim(sample, (answer,), given=sample.label is not None))
        else:
            silent += 1
    warnings = _left_out(len(samples), wrong if only_right else 0, silent)
    if not kept:
        raise MissingAnnotation(
            f"No sample is left to be followed: {' '.join(warnings)}",
            subject="samples",
            hint="Use more samples, a task that the model can do, or only_right=false.",
        )
    return Aims(kept, warnings, [_about(kept)])


def _choices(sample: Sample) -> tuple[str, ...]:
    """The choices, the label among them."""
    if not sample.choices:
        return ()
    more = () if sample.label is None or sample.label in sample.choices else (sample.label,)
    return tuple(dict.fromkeys((*sample.choices, *more)))


def _closed(sample: Sample, logs: Floats, *, difference: bool) -> Aim:
    choices = _choices(sample)
    own = int(logs.argmax()) if sample.label is None else choices.index(sample.label)
    others = [i for i in np.argsort(-logs, kind="stable") if i != own]
    rival = int(others[0]) if difference else None
    return Aim(sample, choices, own, rival, sample.label is not None)


def _right(aim: Aim, logs: Floats) -> bool:
    return int(logs.argmax()) == aim.own


def _narrow(aim: Aim) -> Aim:
    """Of a model that writes, no other choice needs to be asked for."""
    if aim.rival is None:
        return replace(aim, answers=(aim.answer,), own=0)
    return replace(aim, answers=(aim.answer, aim.answers[aim.rival]), own=0, rival=1)


def _written(context: AnalysisContext, samples: Sequence[Sample]) -> dict[str, str]:
    """By sample id, what the model writes."""
    work = WrittenAnswers(WriteOptions(max_new_tokens=_WRITTEN))
    texts = context.run_units(work, [WorkUnit(sample) for sample in samples])
    return {sample.id: text.strip() for sample, text in zip(samples, texts, strict=True)}


def _left_out(samples: int, wrong: int, silent: int) -> list[str]:
    said = []
    if wrong:
        said.append(
            f"{wrong} of {samples} samples are left out: another choice than the label is the most "
            "probable one."
        )
    if silent:
        said.append(f"{silent} of {samples} samples are left out: there is no answer to follow.")
    return said


def _about(aims: Sequence[Aim]) -> str:
    """What is followed, in words."""
    own = sum(not aim.given for aim in aims)
    answer = "the label"
    if own:
        answer += f" ({own} of {len(aims)} samples have none: there, the model's own answer)"
    if any(aim.rival is not None for aim in aims):
        answer += ", less that of the choice that is its strongest rival without alterations"
    return f"What is followed is the log-probability of {answer}; of several tokens, the sum."
