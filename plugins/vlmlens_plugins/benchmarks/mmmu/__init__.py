"""MMMU: questions of college exams with images, with options or short answers."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar, Literal

from pydantic import Field

from vlmlens._display import count
from vlmlens.abc import Options
from vlmlens.errors import ManifestError
from vlmlens.sample_table import SampleTable
from vlmlens.samples import Sample
from vlmlens_plugins.benchmarks.benchmark import Benchmark, BenchmarkOptions, Found
from vlmlens_plugins.benchmarks.card import Card
from vlmlens_plugins.benchmarks.mmmu.card import CARD
from vlmlens_plugins.benchmarks.mmmu.forms import (
    Official,
    form_of,
    samples_of,
)
from vlmlens_plugins.benchmarks.mmmu.hub import subjects_in
from vlmlens_plugins.benchmarks.mmmu.placing import Placing
from vlmlens_plugins.benchmarks.sources import ImageRoot, default_root
from vlmlens_plugins.data._paths import existing

__all__ = ["Mmmu", "MmmuOptions"]


class MmmuOptions(BenchmarkOptions):
    """Options of MMMU."""

    answer_key: str | None = Field(
        None, description="The authors' answer_dict_val.json; its answers replace the rows' own."
    )
    images_at: Literal["named", "before"] = Field(
        "named",
        description="Where images stand: where the question names them, or before the prompt.",
    )


class Mmmu(Benchmark):
    """Questions with their images; `<image 2>` in questions and options says where one stands.

    Rows have the columns of the hub (a configuration per subject, or all in one) or those of
    VLMEvalKit's table.
    """

    Options: ClassVar[type[Options]] = MmmuOptions
    options: MmmuOptions
    card: ClassVar[Card] = CARD

    def found(self) -> Found:
        """See `Benchmark.found`."""
        options = self.options
        subjects = list(subjects_in(self.source, options.subset, options.revision))
        form = form_of(subjects[0].rows)
        root = ImageRoot(
            options.images, default_root(self.source), allow_outside=options.allow_outside
        )
        official = _official(options.answer_key) if options.answer_key else None
        samples = SampleTable(samples_of(subjects, root, official))
        notes = list(_notes(samples))
        if official is not None:
            notes.append(f"the answers are those of {options.answer_key}, joined by id")
        known = subjects[0].rows.digest if len(subjects) == 1 else ""
        said = tuple(f"{CARD.title}: {note}." for note in notes)
        return Found(samples, form, _edition(samples), known, said)

    def samples(self, prompts: Sequence[str]) -> Sequence[Sample]:
        """See `Benchmark.samples`; the images stand where the prompt names them.

        Raises:
            DataError: See `found`; a prompt names an image that is not there.
        """
        placing = Placing(self.options.images_at == "named")
        samples = SampleTable(placing.placed(super().samples(prompts)))
        self.notes = [*self.notes, *(f"{CARD.title}: {note}." for note in placing.notes())]
        return samples


def _official(given: str) -> Official:
    """The right answers of `answer_dict_val.json`.

    Raises:
        DataNotFound: There is no such file.
        ManifestError: It is none of that form.
    """
    path = existing(given)
    try:
        entries = json.loads(path.read_bytes())
        return Official({name: _right(entry) for name, entry in entries.items()})
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ManifestError(
            f"{path} is no file of MMMU's answers ({type(error).__name__}: {error}).",
            subject=given,
            hint="answer_dict_val.json has an object per id, with question_type and ground_truth.",
        ) from error


def _right(entry: Mapping[str, Any]) -> tuple[str, ...]:
    given = entry["ground_truth"]
    return tuple(map(str, given)) if isinstance(given, list) else (str(given),)


def _notes(samples: Sequence[Sample]) -> Iterator[str]:
    unknown = sum(sample.label is None for sample in samples)
    blind = sum(not sample.images for sample in samples)
    strange = Counter(sample.task for sample in samples if not sample.attributes["discipline"])
    if unknown:
        asked = count(unknown, "question")
        yield f"{asked} without an answer (the test split has none): not scored"
    if blind:
        yield f"{count(blind, 'question')} without an image: a run needs --set text_only=true"
    if strange:
        yield f"no subject of MMMU, so in no discipline: {', '.join(map(str, strange))}"


def _edition(samples: Sequence[Sample]) -> str:
    splits = Counter(str(sample.attributes.get("split") or "") for sample in samples)
    subjects = len({sample.task for sample in samples})
    closed = sum(bool(sample.choices) for sample in samples)
    named = ", ".join(f"{split} {number:,}" for split, number in splits.items() if split)
    asked = count(len(samples), "question")
    counts = f"{asked} of {count(subjects, 'subject')}, {closed:,} with options"
    return f"{named}: {counts}" if named else counts
