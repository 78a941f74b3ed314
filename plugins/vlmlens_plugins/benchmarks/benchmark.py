"""Benchmark: the base class of datasets with a card."""

from __future__ import annotations

import inspect
from abc import abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence, Sized
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

from pydantic import Field

from vlmlens._files import FILE_MODULE
from vlmlens.abc import Dataset, Options
from vlmlens.errors import DataNotFound, DuplicateSample, SpecError, did_you_mean
from vlmlens.manifest import PluginKind
from vlmlens.registry import Registry
from vlmlens.sample_table import SampleTable
from vlmlens.samples import Sample, asked, check_ids
from vlmlens_plugins.benchmarks.card import OFFICIAL, Card
from vlmlens_plugins.benchmarks.own_answers import OwnAnswers

NAME, EDITION, STYLE, QUESTIONS = "benchmark", "edition", "prompt_style", "questions"
"""Attributes of every sample: the card's name, the edition that was read, the style of prompts, and
how many questions the source has."""

OWN = "own"
"""The style of prompts of the user's own, which replace the questions."""

_read: dict[str, Card] = {}
"""The cards of the sets that this process has read, by the attribute `benchmark` of samples."""


class BenchmarkOptions(Options):
    """Options of every benchmark."""

    images: str | None = Field(
        None, description="Folder that image names start from; default: the questions' folder."
    )
    prompt: str = Field(
        OFFICIAL,
        description="How questions are put: official, another style of the set (llava, lmms-eval, "
        "vlmevalkit, ...), none, or a suffix of your own, which begins with a space.",
    )
    subset: str | None = Field(None, description="Configuration of a dataset of the hub.")
    revision: str | None = Field(None, description="Branch, tag or commit on the hub.")
    allow_outside: bool = Field(False, description="Accept images outside their folder.")
    answers: str | None = Field(
        None,
        description="A file of answers from elsewhere (id, text), joined by id: these are scored, "
        "and no model is needed.",
    )


@dataclass(frozen=True, slots=True)
class Found:
    """What a source holds.

    Args:
        samples: With the bare question as prompt, in the order of the source. `label` is the right
            answer as rules read it ("yes", "B"), `choices` are the possible ones of a closed
            question, `task` is the part that scores are given for, `group` what must not be parted.
        form: How the set is written there: "official files", "hub columns", "VLMEvalKit table".
        edition: Which edition it is, with counts: "coco, 3 x 3,000 questions".
        digest: Of the file or files; "" where it is not known.
        notes: What had to be guessed or left out, in sentences.
    """

    samples: Iterable[Sample]
    form: str
    edition: str
    digest: str = ""
    notes: tuple[str, ...] = ()


class Benchmark(Dataset):
    """A question set with a card. Subclasses give `card` and `found`."""

    Options: ClassVar[type[Options]] = BenchmarkOptions
    options: BenchmarkOptions
    card: ClassVar[Card]

    suggests: Mapping[str, Mapping[str, Any]] | None = None

    @abstractmethod
    def found(self) -> Found:
        """Read the source, in whatever form it is.

        Raises:
            DataError: It is in none of the forms of this set; says which columns or files were
                found and which are expected.
        """

    def samples(self, prompts: Sequence[str]) -> Sequence[Sample]:
        """See `Dataset.samples`; prompts of the user's replace the questions.

        Raises:
            DataError: See `found`; or no source is given.
            SpecError: There is no such style of prompts; or answers from elsewhere are given for
                other questions.
        """
        if not self.source.strip():
            raise DataNotFound(
                f"{self.card.name} needs a source.",
                subject=self.card.name,
                hint=f"--data {self.card.name}:PATH",
            )
        prompt = self.card.prompt(self.options.prompt)
        answers = self._answers(prompts)
        found = self.found()
        edition = "; ".join(filter(None, (found.edition, found.form, _sha(found.digest))))
        bare = found.samples if isinstance(found.samples, Sized) else SampleTable(found.samples)
        known = {
            NAME: self._name,
            EDITION: edition,
            STYLE: OWN if prompts else self.options.prompt,
            QUESTIONS: str(len(bare)),
        }
        _read[self._name] = self.card

        def written() -> Iterator[Sample]:
            for sample in bare:
                attributes = {**sample.attributes, **known}
                yield replace(sample, prompt=prompt.of(sample), attributes=attributes)

        samples = SampleTable(written() if answers is None else answers.joined(written()))
        if not len(samples):
            raise DataNotFound(
                f"{self.source!r} has no questions.",
                subject=self.source,
                hint="Choose another file or split.",
            )
        _check_ids(samples.ids, self.source)
        own = [f"--prompt replaces the questions of {self.card.title}"] if prompts else []
        own += [] if answers is None else [answers.note]
        own += _without_files(samples[0]) if self.options.images is None else []
        self.notes = [f"{self.card.title}: {edition}", *found.notes, *own]
        return SampleTable(asked(samples, prompts)) if prompts else samples

    @property
    def _name(self) -> str:
        """What samples say of their set: the card's name; of a class in a file, its place."""
        if not type(self).__module__.startswith(FILE_MODULE):
            return self.card.name
        return f"{Path(inspect.getfile(type(self))).name}:{type(self).__name__}"

    def _answers(self, prompts: Sequence[str]) -> OwnAnswers | None:
        if self.options.answers is None:
            return None
        if prompts:
            raise SpecError(
                f"The answers in {self.options.answers!r} are to the questions of "
                f"{self.card.title}, not to --prompt.",
                subject="answers",
                hint="Leave --prompt or options.dataset.answers out.",
            )
        return OwnAnswers(self.options.answers)


def card_of(name: str, plugin: str | None = None) -> Card:
    """The card of a benchmark: of one that this process has read, or of an installed dataset.

    Args:
        name: The attribute `benchmark` of samples.
        plugin: The dataset that has the card, by its name or as FILE.py:Class; None: that of
            `name`. A class in a file is only loaded if it is given here: samples of a run that
            somebody else made name no code.

    Raises:
        SpecError: No such dataset is installed, or it has no card.
        PluginError: The file cannot be used.
    """
    if plugin is not None:
        return _card_of_plugin(plugin)
    if name in _read:
        return _read[name]
    registry = Registry.default()
    known = [entry.name for entry in registry.entries(PluginKind.DATASET)]
    if name in known:
        return _card_of_plugin(name)
    own = "If its dataset is a class in a file: --set analysis.benchmark.card=FILE.py:Class."
    raise SpecError(
        f"There is no benchmark {name!r} installed.",
        subject=name,
        hint=f"{did_you_mean(name, known)} {own}".strip(),
    )


def _card_of_plugin(plugin: str) -> Card:
    registry = Registry.default()
    card = getattr(registry.load(registry.find(PluginKind.DATASET, plugin)), "card", None)
    if isinstance(card, Card):
        return card
    raise SpecError(
        f"The dataset {plugin!r} has no card, so its answers have no rule and no metric.",
        subject=plugin,
        hint="Name a benchmark: a subclass of vlmlens_plugins.benchmarks.Benchmark.",
    )


def _check_ids(ids: Sequence[str], source: str) -> None:
    try:
        check_ids(ids)
    except DuplicateSample as error:
        raise DuplicateSample(
            f"{source!r}: {error.message}",
            subject=error.subject,
            hint="A question may be there twice, or several copies be in one file: take the file "
            "as the set's authors publish it. Answers are joined by these ids.",
        ) from error


def _without_files(first: Sample) -> Iterator[str]:
    """What to do where the first image is not beside the questions."""
    for image in first.images[:1]:
        if isinstance(image, str) and not Path(image).is_file():
            yield (
                f"There is no image {image}: name the folder of the images with "
                "--set options.dataset.images=FOLDER"
            )


def _sha(digest: str) -> str:
    return f"sha256 {digest}" if digest else ""
