"""The dataset `lmms-eval`."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

from pydantic import Field

from vlmlens.abc import Dataset, Options
from vlmlens.errors import DataError, SpecError
from vlmlens.regions import ATTRIBUTE as REGIONS
from vlmlens.registry import Registry
from vlmlens.sample_table import SampleTable
from vlmlens.samples import Attribute, Sample, asked, check_ids
from vlmlens_plugins.benchmarks.benchmark import EDITION, NAME, OWN, QUESTIONS, STYLE
from vlmlens_plugins.benchmarks.card import Card
from vlmlens_plugins.benchmarks.lmms_eval.joining import joined
from vlmlens_plugins.benchmarks.lmms_eval.log import Logged, log_files, logged
from vlmlens_plugins.benchmarks.lmms_eval.tasks import Task, task_of
from vlmlens_plugins.benchmarks.own_answers import ANSWER
from vlmlens_plugins.benchmarks.pope.questions import YES_NO, bare, named, object_of
from vlmlens_plugins.benchmarks.sources import ImageRoot, digest

TASK = "lmms_eval_task"
"""The attribute with the name of the task in lmms-eval."""
LOGGED = "log"
_IMAGE_NAMES = ("image_source", "image_path", "image", "file_name", "image_name")
_SPLITS = ("split", "category")
_RESERVED = frozenset(
    {
        "question",
        ANSWER,
        NAME,
        EDITION,
        STYLE,
        QUESTIONS,
        REGIONS,
        "region",
        "boxes",
        "pair",
        "role",
    }
)
"""What a row of the log is not to say, since it means something to analyses."""


class LmmsEvalOptions(Options):
    """Options of logs of lmms-eval."""

    benchmark: str | None = Field(
        None,
        description="The benchmark's own data, as for --data (pope:coco/): images, labels and "
        "groups are taken from there, and answers are joined by id.",
    )
    prompt: str = Field(
        LOGGED,
        description="log: the prompt that was asked; or a style of the benchmark, none, or a "
        "suffix of your own, which begins with a space.",
    )
    partial: bool = Field(False, description="Accept a log that answers some questions only.")
    images: str | None = Field(None, description="Folder that image names start from.")
    subset: str | None = Field(None, description="Configuration of the benchmark on the hub.")
    revision: str | None = Field(None, description="Branch, tag or commit on the hub.")
    allow_outside: bool = Field(False, description="Accept images outside their folder.")


class LmmsEval(Dataset):
    """`lmms-eval:FILE`, `lmms-eval:FOLDER`: answers that lmms-eval logged, in `answer`."""

    Options: ClassVar[type[Options]] = LmmsEvalOptions
    options: LmmsEvalOptions

    def samples(self, prompts: Sequence[str]) -> Sequence[Sample]:
        """See `Dataset.samples`.

        Raises:
            DataError: The log is none, or answers and questions do not belong together.
            SpecError: The benchmark is not installed, or is another one than the log's.
        """
        files = log_files(self.source)
        logs = {path: logged(path) for path in files}
        answers = [each for own in logs.values() for each in own]
        if not answers:
            raise DataError(
                f"{self.source!r} has no answers.", subject=self.source, hint="Give another log."
            )
        edition = ", ".join(f"sha256 {digest(path)}" for path in files)
        self.notes = [f"lmms-eval's log: {len(answers):,} answers; {edition}"]
        of_task: defaultdict[str, list[Logged]] = defaultdict(list)
        for answer in answers:
            of_task[answer.task].append(answer)
        made = self._joined(of_task) if self.options.benchmark else self._alone(of_task, edition)
        self.notes = [*self.notes, *_told(answers)]
        check_ids([sample.id for sample in made])
        return SampleTable(self._asked(made, prompts) if prompts else made)

    def _asked(self, samples: Sequence[Sample], prompts: Sequence[str]) -> Iterator[Sample]:
        """The samples with the user's prompts, and without the answers to others."""
        self.notes = [*self.notes, "--prompt asks anew: the logged answers are left out"]
        for sample in asked(samples, prompts):
            known = {name: value for name, value in sample.attributes.items() if name != ANSWER}
            yield replace(sample, attributes={**known, STYLE: OWN})

    def _joined(self, of_task: Mapping[str, Sequence[Logged]]) -> list[Sample]:
        """The benchmark's samples, with answers."""
        card, samples, notes = self._benchmark(list(of_task))
        self.notes = [*self.notes, *notes]
        found = []
        for task, answers in of_task.items():
            partial = self.options.partial
            pairs = joined(answers, samples, task_of(task).part, partial=partial)
            style = self._style(pairs, card)
            found += [self._answered(*pair, card, style) for pair in pairs]
        return found

    def _answered(self, sample: Sample, answer: Logged, card: Card | None, style: str) -> Sample:
        prompt = sample.prompt
        if self.options.prompt == LOGGED:
            prompt = answer.asked or sample.prompt
        elif card is not None:
            prompt = card.prompt(style).of(sample)
        known = {STYLE: style, ANSWER: answer.answer, TASK: answer.task}
        return replace(sample, prompt=prompt, attributes={**sample.attributes, **known})

    def _style(self, pairs: Sequence[tuple[Sample, Logged]], card: Card | None) -> str:
        """The style that all the prompts have that were asked; "" if they have none."""
        if card is None or self.options.prompt != LOGGED:
            return self.options.prompt
        asked_for = [(sample, answer.asked or sample.prompt) for sample, answer in pairs]
        first, text = asked_for[0]
        suffix = text.removeprefix(first.prompt)
        own = [suffix] if suffix != text and suffix[:1].isspace() else []
        styles = sorted([*card.prompts, "none", *own], key=lambda style: style != "lmms-eval")
        for style in styles:
            prompt = card.prompt(style)
            if all(prompt.of(sample) == text for sample, text in asked_for):
                return style
        return ""

    def _benchmark(
        self, tasks: Sequence[str]
    ) -> tuple[Card | None, Sequence[Sample], Sequence[str]]:
        """The card, the samples with bare questions, and the notes of the benchmark."""
        registry = Registry.default()
        manifest, source = registry.dataset_for(str(self.options.benchmark))
        for task in tasks:
            known = task_of(task).benchmark
            if known not in ("", manifest.name):
                raise SpecError(
                    f"{task} is a task of {known}, but the benchmark is {manifest.name}.",
                    subject=task,
                    hint=f"--set options.dataset.benchmark={known}:PATH",
                )
        kind = registry.load(manifest)
        known = kind.Options.model_fields
        given = {
            name: value
            for name in ("images", "subset", "revision", "allow_outside")
            if name in known and (value := getattr(self.options, name)) is not None
        }
        given |= {"prompt": "none"} if "prompt" in known else {}
        dataset = kind(source, registry.options(kind, given))
        samples = dataset.samples([])
        card = getattr(dataset, "card", None)
        return card if isinstance(card, Card) else None, samples, dataset.notes

    def _alone(self, of_task: Mapping[str, Sequence[Logged]], edition: str) -> list[Sample]:
        """Samples of what the log holds, without images unless it names them."""
        root = ImageRoot(self.options.images, Path.cwd(), allow_outside=self.options.allow_outside)
        several = len(of_task) > 1
        made = [
            _sample(answer, task_of(task), self._image(answer, root), edition, several=several)
            for task, answers in of_task.items()
            for answer in answers
        ]
        self.notes = [*self.notes, *_lacking(made)]
        return made

    def _image(self, answer: Logged, root: ImageRoot) -> str | None:
        name = _image_name(answer)
        if name is None or self.options.images is None:
            return None
        return root.path(named(name), answer.place)


def _image_name(answer: Logged) -> str | None:
    cells = (answer.doc.get(name) for name in _IMAGE_NAMES)
    return next((each for each in cells if isinstance(each, str) and each.strip()), None)


def _lacking(made: Sequence[Sample]) -> Iterator[str]:
    """What cannot be done with the log alone."""
    blind = sum(not sample.images for sample in made)
    if blind:
        yield (
            f"{blind:,} of {len(made):,} samples have no image, since lmms-eval logs none, and are "
            "groups of their own: name the benchmark's data with "
            "--set options.dataset.benchmark=NAME:PATH (or, where the log names images, their "
            "folder with options.dataset.images)."
        )
    lost = {str(sample.attributes[TASK]) for sample in made if NAME not in sample.attributes}
    if lost:
        yield (
            f"The log of {', '.join(sorted(lost))} does not hold all that its metrics need: name "
            "the benchmark's data to score it."
        )


def _sample(
    answer: Logged, known: Task, image: str | None, edition: str, *, several: bool
) -> Sample:
    label = answer.target.strip()
    closed = label.lower() in YES_NO
    question = answer.doc.get("question")
    prompt = answer.asked or (question if isinstance(question, str) else "")
    if not prompt.strip():
        raise DataError(
            f"{answer.place}: neither the prompt nor the question is logged.",
            subject=answer.place,
            hint="Name the benchmark's data: --set options.dataset.benchmark=NAME:PATH.",
        )
    split = known.part or next((str(answer.doc[x]) for x in _SPLITS if answer.doc.get(x)), "")
    facts: dict[str, Attribute] = {
        key: value for key, value in answer.doc.items() if key not in _RESERVED and _is_plain(value)
    }
    if known.benchmark == "pope" and split:
        facts |= {NAME: known.benchmark, EDITION: f"as logged; {edition}"}
        facts |= {"split": split, "source": "coco", "object": object_of(bare(prompt))}
    return Sample(
        id=f"{answer.task}/{answer.number}" if several else str(answer.number),
        prompt=prompt,
        images=(image,) if image else (),
        label=(label.lower() if closed else label) or None,
        choices=YES_NO if closed else (),
        group=_image_name(answer),
        task=split or answer.task,
        attributes={
            **facts,
            ANSWER: answer.answer,
            TASK: answer.task,
        },
    )


def _is_plain(value: object) -> bool:
    """Whether a value can be an attribute: text, a finite number, true or false."""
    return isinstance(value, str | int) or (isinstance(value, float) and math.isfinite(value))


def _told(answers: Sequence[Logged]) -> Iterator[str]:
    several = sum(answer.answers > 1 for answer in answers)
    if several:
        yield f"{several:,} questions have several answers in the log: the first one is read."
