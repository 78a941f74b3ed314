"""Benchmark: the base class of datasets with a card."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

from pydantic import Field

from vlmlens.abc import Dataset, Options
from vlmlens.errors import DataNotFound, SpecError, did_you_mean
from vlmlens.manifest import PluginKind
from vlmlens.registry import Registry
from vlmlens.sample_table import SampleTable
from vlmlens.samples import Sample, asked, check_ids
from vlmlens_plugins.benchmarks.card import OFFICIAL, Card

NAME, EDITION, STYLE = "benchmark", "edition", "prompt_style"
"""Attributes of every sample: the card's name, the edition that was read, the style of prompts."""


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
            SpecError: There is no such style of prompts.
        """
        if not self.source.strip():
            raise DataNotFound(
                f"{self.card.name} needs a source.",
                subject=self.card.name,
                hint=f"--data {self.card.name}:PATH",
            )
        prompt = self.card.prompt(self.options.prompt)
        found = self.found()
        edition = "; ".join(filter(None, (found.edition, found.form, _sha(found.digest))))
        known = {NAME: self.card.name, EDITION: edition, STYLE: self.options.prompt}

        def written() -> Iterator[Sample]:
            for sample in found.samples:
                attributes = {**sample.attributes, **known}
                yield replace(sample, prompt=prompt.of(sample), attributes=attributes)

        samples = SampleTable(written())
        if not len(samples):
            raise DataNotFound(
                f"{self.source!r} has no questions.",
                subject=self.source,
                hint="Choose another file or split.",
            )
        check_ids(samples.ids)
        own = [f"--prompt replaces the questions of {self.card.title}"] if prompts else []
        missing = list(_without_files(samples[0])) if self.options.images is None else []
        self.notes = [f"{self.card.title}: {edition}", *found.notes, *own, *missing]
        return SampleTable(asked(samples, prompts)) if prompts else samples


def card_of(name: str) -> Card:
    """The card of the installed benchmark of that name.

    Raises:
        SpecError: No such dataset is installed, or it has no card.
    """
    registry = Registry.default()
    known = [entry.name for entry in registry.entries(PluginKind.DATASET)]
    if name in known:
        dataset = registry.load(registry.find(PluginKind.DATASET, name))
        card = getattr(dataset, "card", None)
        if isinstance(card, Card):
            return card
    raise SpecError(
        f"There is no benchmark {name!r}.",
        subject=name,
        hint=did_you_mean(name, known) or "vlmlens plugins list shows the installed datasets.",
    )


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
