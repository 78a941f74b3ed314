"""VQAv2: open questions about pictures of COCO, with the answers of ten people each."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import ClassVar

from pydantic import Field

from vlmlens._display import count
from vlmlens.abc import Options
from vlmlens.sample_table import SampleTable
from vlmlens.samples import Attribute, Sample
from vlmlens_plugins.benchmarks.benchmark import Benchmark, BenchmarkOptions, Found
from vlmlens_plugins.benchmarks.card import Card
from vlmlens_plugins.benchmarks.sources import ImageRoot, digest
from vlmlens_plugins.benchmarks.vqav2.card import CARD
from vlmlens_plugins.benchmarks.vqav2.hub import HubQuestions, folder_of
from vlmlens_plugins.benchmarks.vqav2.metrics import ANSWER_TYPE, COMPLEMENT
from vlmlens_plugins.benchmarks.vqav2.official import (
    HUB,
    OFFICIAL,
    Annotation,
    Files,
    Questions,
    complements,
    files_of,
)
from vlmlens_plugins.benchmarks.vqav2.rules import ANSWERS, answers_of

__all__ = ["VqaV2", "VqaV2Options"]

_PEOPLE = 10


class VqaV2Options(BenchmarkOptions):
    """Options of VQAv2."""

    annotations: str | None = Field(
        None, description="The file of annotations; default: that beside the questions."
    )
    pairs: str | None = Field(
        None, description="The file of complementary pairs; default: that beside the questions."
    )


class VqaV2(Benchmark):
    """Open questions; the label is the most common of ten answers.

    The source is the file of questions (or its folder), with the annotations beside it, or rows
    with the columns of the hub. Large files are read item by item.
    """

    Options: ClassVar[type[Options]] = VqaV2Options
    options: VqaV2Options
    card: ClassVar[Card] = CARD

    def found(self) -> Found:
        """See `Benchmark.found`."""
        files = files_of(self.source, self.options.annotations, self.options.pairs)
        return self._official(files) if files else self._hub()

    def _official(self, files: Files) -> Found:
        other = complements(files.pairs) if files.pairs else {}
        names = _Pictures(files, self.options)
        questions = Questions(files)

        seen = _Seen()
        samples = SampleTable(
            seen.one(_sample(name, question, names.path(image), image, known, other))
            for name, question, image, known in questions
        )
        notes = list(seen.notes(pairs=bool(other)))
        if questions.left:
            notes.append(
                f"not used: {count(questions.left, 'annotation')} of no question of the file"
            )
        version = f"v{files.version} " if files.version else ""
        digests = [digest(path) for path in (files.questions, files.annotations) if path]
        edition = f"{version}{files.subtype}, {seen.counts}"
        return Found(samples, OFFICIAL, edition, "+".join(digests), _said(notes))

    def _hub(self) -> Found:
        options = self.options
        rows = HubQuestions(self.source, options.subset, options.revision)
        root = ImageRoot(
            options.images, folder_of(self.source), allow_outside=options.allow_outside
        )
        other = complements(Path(options.pairs)) if options.pairs else {}

        seen = _Seen()

        def made() -> Iterator[Sample]:
            for row, where in rows:
                name, image = rows.number(row, "question_id"), rows.number(row, "image_id")
                cell = row.cells.get("image")
                path = root.path(cell, where) if cell else ""
                question, known = rows.question(row), rows.annotation(row)
                yield seen.one(_sample(str(name), question, path, image, known, other))

        samples = SampleTable(made())
        return Found(samples, HUB, seen.counts, notes=_said(seen.notes(pairs=bool(other))))


class _Pictures:
    """The paths of COCO's pictures, by number.

    Args:
        files: Of the questions.
        options: Where the pictures are.
    """

    def __init__(self, files: Files, options: VqaV2Options) -> None:
        self._subtype = files.subtype.replace("test-dev", "test")
        root = ImageRoot(options.images, files.questions.parent, allow_outside=True)
        self._folder = root.folder
        self._pattern: str | None = None

    def path(self, number: int) -> str:
        """The path of a picture, named as the first picture is that is there."""
        if self._pattern is None:
            self._pattern = self._found(number)
        return str(self._folder / self._pattern.format(number))

    def _found(self, number: int) -> str:
        names = (f"COCO_{self._subtype}_{{:012d}}.jpg", "{:012d}.jpg")
        patterns = [f"{folder}{name}" for folder in ("", f"{self._subtype}/") for name in names]
        there = (p for p in patterns if (self._folder / p.format(number)).is_file())
        return next(there, patterns[0])


def _sample(
    name: str,
    question: str,
    path: str,
    image: int,
    known: Annotation | None,
    other: Mapping[str, str],
) -> Sample:
    attributes: dict[str, Attribute] = {"image_id": image}
    if known:
        attributes[ANSWERS] = json.dumps(known.answers, ensure_ascii=False)
        attributes[ANSWER_TYPE] = known.answer_type
        attributes["question_type"] = known.question_type
    if name in other:
        attributes[COMPLEMENT] = other[name]
    return Sample(
        name,
        question,
        (path,) if path else (),
        label=(known.common or None) if known else None,
        group=str(image),
        task=(known.answer_type or None) if known else None,
        attributes=attributes,
    )


def _said(notes: Iterable[str]) -> tuple[str, ...]:
    return tuple(f"{CARD.title}: {note}." for note in notes)


class _Seen:
    """Counts samples as they are made."""

    def __init__(self) -> None:
        self._images: set[str | None] = set()
        self._found: Counter[str] = Counter()

    def one(self, sample: Sample) -> Sample:
        """Count a sample."""
        self._images.add(sample.group)
        people = answers_of(sample)
        self._found["questions"] += 1
        self._found["without answers: not scored"] += not people
        self._found[f"with another number of answers than {_PEOPLE}"] += 0 < len(people) != _PEOPLE
        self._found["without an image: a run needs --set text_only=true"] += not sample.images
        return sample

    @property
    def counts(self) -> str:
        """How many questions and images there are."""
        asked = count(self._found["questions"], "question")
        return f"{asked} on {count(len(self._images), 'image')}"

    def notes(self, *, pairs: bool) -> Iterator[str]:
        """What is missing, in sentences."""
        for what, number in self._found.items():
            if what != "questions" and number:
                yield f"{count(number, 'question')} {what}"
        if not pairs:
            yield "no file of complementary pairs: the metric `pairs` is left out"
