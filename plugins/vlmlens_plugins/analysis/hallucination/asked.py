"""What the model answers, with the image and without, and whether that is what has to be told."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from vlmlens.abc import AnalysisContext, ModelAdapter, WorkUnit
from vlmlens.abc.model_work import JSON
from vlmlens.samples import Sample
from vlmlens_plugins.analysis._answer_work import ChoiceScores, WriteOptions, WrittenAnswers
from vlmlens_plugins.analysis._blank_images import handed_over
from vlmlens_plugins.analysis._key_regions import Names, key_regions
from vlmlens_plugins.analysis._scoring import AnswerScorer, parting
from vlmlens_plugins.analysis._tasks import ALL, first_of_tasks
from vlmlens_plugins.analysis.blind_test.answer_text import KnownAnswers, normalized
from vlmlens_plugins.analysis.hallucination.options import ABSENT, HallucinationOptions
from vlmlens_plugins.analysis.hallucination.work import Inside, InsideOptions


@dataclass(frozen=True, slots=True)
class Case:
    """A question with the model's answer.

    Args:
        sample: The question.
        answer: What the model answers, as it wrote or chose it.
        bad: What has to be told: the answer is wrong, or the object is absent.
        sure: How sure the answer is. For wrong answers, its log-probability (among the choices,
            where there are some); for absent objects, the log-odds of an answer that says absent.
        blind: The same without the image.
        object: The named object, or the question's text.
        named: Whether `object` is an object.
        inside: The result of `Inside`.
    """

    sample: Sample
    answer: str
    bad: bool
    sure: float
    blind: float
    object: str
    named: bool
    inside: JSON

    @property
    def task(self) -> str:
        """The task."""
        return self.sample.task or ALL

    @property
    def finite(self) -> bool:
        """Whether all numbers are finite."""
        told = [self.inside[text] for text in ("answer", "object")]
        numbers = [self.sure, self.blind, self.inside["entropy"], *(self.inside["looks"] or ())]
        numbers += [value for one in told if one is not None for value in one["confidence"]]
        rows = [row for name in ("image", "last") for row in self.inside[name]]
        return bool(np.isfinite(numbers).all()) and all(np.isfinite(row).all() for row in rows)

    @property
    def stratum(self) -> str:
        """Wrong answers are told apart from right ones with the same label."""
        return str(self.sample.label)


def usable(
    samples: Sequence[Sample], options: HallucinationOptions
) -> tuple[list[Sample], list[str]]:
    """The samples with a label and an image, at most so many of each task; and what is left out.

    If wrong answers are to be told, a label has to be one of the choices, where there are some.
    """
    labelled = [sample for sample in samples if sample.label is not None and sample.images]
    known = [sample for sample in labelled if options.target == ABSENT or _is_possible(sample)]
    said = []
    if len(labelled) < len(samples):
        missing = len(samples) - len(labelled)
        said.append(f"{missing} of {len(samples)} samples are left out: without label or image.")
    if len(known) < len(labelled):
        foreign = len(labelled) - len(known)
        said.append(
            f"{foreign} of {len(samples)} samples are left out: their label is not among their "
            "choices, so that no answer could be right."
        )
    used, unused = first_of_tasks(known, options.samples, "hallucination")
    return used, said + unused


def _is_possible(sample: Sample) -> bool:
    return not sample.choices or str(sample.label) in sample.choices


def asked(
    context: AnalysisContext, samples: Sequence[Sample], options: HallucinationOptions
) -> list[Case]:
    """Ask the questions: the answers, the same without the image, and what is inside."""
    vlm = context.model()
    edited = bool(vlm.active_edits)
    written = _written(context, [one for one in samples if not one.choices], options)
    lists = [sample.choices or (written[sample.id],) for sample in samples]
    plain = [WorkUnit(s, {"choices": list(c)}) for s, c in zip(samples, lists, strict=True)]
    seeing = context.run_units(ChoiceScores(), plain)
    answers = [own[int(np.argmax(logs))] for own, logs in zip(lists, seeing, strict=True)]
    hidden = [
        _blind(sample, choices, options, context.seed, edited=edited)
        for sample, choices in zip(samples, lists, strict=True)
    ]
    blind = context.run_units(ChoiceScores(), hidden)
    spoken = AnswerScorer(vlm)
    regions = key_regions(samples, options.region)
    units = [
        WorkUnit(sample, _arguments(spoken, sample, answer, region, options))
        for sample, answer, region in zip(samples, answers, regions, strict=True)
    ]
    work = Inside(InsideOptions(depths=options.depths))
    found = context.run_units(work, units)
    known = _known(samples)
    return [
        Case(
            sample,
            answer,
            _is_bad(sample, answer, known[sample.task or ALL], options),
            _sure(with_image, choices, answer, options),
            _sure(without, choices, answer, options),
            object_of(sample, options.object) or sample.prompt,
            bool(object_of(sample, options.object)),
            inside,
        )
        for sample, answer, choices, with_image, without, inside in zip(
            samples, answers, lists, seeing, blind, found, strict=True
        )
    ]


def object_of(sample: Sample, attribute: str) -> str:
    """The named object; "" where there is none."""
    value = sample.attributes.get(attribute)
    return "" if value is None else str(value).strip()


def says_absent(text: str, options: HallucinationOptions) -> bool:
    """Whether a label or an answer says that the object is absent."""
    return normalized(text) in {normalized(word) for word in options.absent}


def _written(
    context: AnalysisContext, samples: Sequence[Sample], options: HallucinationOptions
) -> dict[str, str]:
    """What the model writes, by sample id."""
    work = WrittenAnswers(WriteOptions(max_new_tokens=options.max_new_tokens))
    texts = context.run_units(work, [WorkUnit(sample) for sample in samples])
    return {sample.id: text for sample, text in zip(samples, texts, strict=True)}


def _blind(
    sample: Sample,
    choices: Sequence[str],
    options: HallucinationOptions,
    seed: int,
    *,
    edited: bool,
) -> WorkUnit:
    shown, said = handed_over(sample, options.blank, seed, regions=edited)
    return WorkUnit(shown, {**said, "choices": list(choices)})


def _known(samples: Sequence[Sample]) -> dict[str, KnownAnswers]:
    """By task, how answers are read."""
    labels: dict[str, list[str]] = {}
    for sample in samples:
        labels.setdefault(sample.task or ALL, []).append(str(sample.label))
    return {task: KnownAnswers(own) for task, own in labels.items()}


def _is_bad(
    sample: Sample, answer: str, known: KnownAnswers, options: HallucinationOptions
) -> bool:
    if options.target == ABSENT:
        return says_absent(str(sample.label), options)
    if sample.choices:
        return answer != sample.label
    return known.read(answer) != normalized(str(sample.label))


def _sure(
    logs: Sequence[float], choices: Sequence[str], answer: str, options: HallucinationOptions
) -> float:
    scores = np.array(logs, np.float64)
    own = np.array([choice == answer for choice in choices])
    if options.target == ABSENT:
        own = np.array([says_absent(choice, options) for choice in choices])
    if len(choices) > 1:
        scores = scores - np.logaddexp.reduce(scores)
    if options.target == ABSENT and (own.all() or not own.any()):
        sign = 1.0 if own.all() else -1.0
        return sign * float(scores.max())
    sure = float(np.logaddexp.reduce(scores[own]))
    if options.target != ABSENT:
        return sure
    return sure - float(np.logaddexp.reduce(scores[~own]))


def _arguments(
    scorer: AnswerScorer,
    sample: Sample,
    answer: str,
    region: Names,
    options: HallucinationOptions,
) -> dict[str, JSON]:
    """What `Inside` is told of a sample."""
    own = scorer.answer_ids(answer)
    shared = parting([own, *map(scorer.answer_ids, sample.choices)]) or 0
    words = object_of(sample, options.object).split()
    return {
        "prefix": own[:shared],
        "answer": [_spoken(scorer.vlm, own[shared:])] if own else [],
        "object": [_spoken(scorer.vlm, scorer.answer_ids(word)) for word in words],
        "region": list(region),
    }


def _spoken(vlm: ModelAdapter, ids: Sequence[int]) -> list[int]:
    """The tokens of a word that are not only a space."""
    return [token for token in ids if vlm.decode([token]).strip()] or list(ids)
