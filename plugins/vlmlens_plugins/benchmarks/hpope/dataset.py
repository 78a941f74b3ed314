"""The dataset `hpope`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import Field, field_validator

from vlmlens._files import expanded
from vlmlens.abc import Options
from vlmlens.errors import DataError, did_you_mean
from vlmlens.sample_table import SampleTable
from vlmlens.samples import Sample
from vlmlens_plugins.benchmarks.benchmark import Benchmark, BenchmarkOptions, Found
from vlmlens_plugins.benchmarks.card import Card
from vlmlens_plugins.benchmarks.hpope.building import Question, questions
from vlmlens_plugins.benchmarks.hpope.card import CARD, LEVELS, SETTINGS
from vlmlens_plugins.benchmarks.hpope.negatives import Negatives
from vlmlens_plugins.benchmarks.hpope.pictures import Picture, pictures_in
from vlmlens_plugins.benchmarks.pope.questions import (
    YES_NO,
    label_of,
    named,
    number_of,
    object_of,
    text_of,
)
from vlmlens_plugins.benchmarks.sources import ImageRoot, Source, file_source, source_of
from vlmlens_plugins.data._table_files import Row

_QUESTION, _LABEL = ("text", "question"), ("label", "answer")
_SETTING = ("setting", "category", "split")
_FORMS = (
    "objects and an image column (CLEVR's scene file, or a table with objects and attributes); "
    "question_id, image, text, label, level and attribute (questions in POPE's layout)"
)


class HPopeOptions(BenchmarkOptions):
    """Options of H-POPE."""

    settings: tuple[Literal["random", "popular", "adversarial", "image-adversarial"], ...] = Field(
        SETTINGS, min_length=1, description="How what is not there is chosen (built questions)."
    )
    objects: int = Field(
        3, ge=1, description="At most so many objects that are there per picture (built questions)."
    )
    object_by: tuple[str, ...] = Field(
        ("size", "material", "shape"),
        min_length=1,
        description="Which attributes name an object of CLEVR; the others are asked for.",
    )
    seed: int = Field(0, ge=0, description="Seed of built questions.")

    @field_validator("settings", "object_by", mode="before")
    @classmethod
    def _listed(cls, value: Any) -> Any:
        return tuple(value.split(",")) if isinstance(value, str) else value


class HPope(Benchmark):
    """`hpope:FILE`: builds questions of objects and attributes, or reads those that are built."""

    Options: ClassVar[type[Options]] = HPopeOptions
    options: HPopeOptions
    card: ClassVar[Card] = CARD

    def found(self) -> Found:
        """See `Benchmark.found`."""
        place = expanded(self.source)
        read = file_source(place.absolute()) if place.is_file() else None
        source = read or source_of(self.source, self.options.subset, self.options.revision)
        folder = Path(source.name).parent if source.digest else Path.cwd()
        outside = self.options.allow_outside
        root = ImageRoot(self.options.images, folder, allow_outside=outside)
        if source.has("level"):
            return self._read(source, root)
        if source.has("objects"):
            return self._built(source, root)
        raise DataError(
            f"{source.name} has the columns {', '.join(source.columns) or '(none)'}, which is no "
            "form of H-POPE.",
            subject=source.name,
            hint=f"Forms: {_FORMS}.",
        )

    def _read(self, source: Source, root: ImageRoot) -> Found:
        samples = [_read(row, f"{source.name}, {row.place}", root) for row in source.rows]
        return Found(samples, "POPE's layout with levels", _counted(samples), source.digest)

    def _built(self, source: Source, root: ImageRoot) -> Found:
        pictures = list(pictures_in(source, self.options.object_by))
        _check_once(pictures)
        samples = SampleTable(self._questions(pictures, root))
        if pictures and not len(samples):
            raise DataError(
                f"No picture of {source.name} gives a question.",
                subject=source.name,
                hint="What is not in a picture is taken from the others: give pictures of "
                "different objects, or objects with attributes.",
            )
        asked = len({sample.group for sample in samples})
        edition = f"built with seed {self.options.seed} from {asked:,} pictures, "
        notes = tuple(_notes(pictures, asked))
        return Found(samples, "built", edition + _counted(samples), source.digest, notes)

    def _questions(self, pictures: Sequence[Picture], root: ImageRoot) -> Iterator[Sample]:
        negatives = Negatives(pictures)
        most, seed = self.options.objects, self.options.seed
        images = [root.path(named(each.image), each.place) for each in pictures]
        for setting in self.options.settings:
            for picture, image in zip(pictures, images, strict=True):
                made = questions(picture, negatives, setting, most=most, seed=seed)
                for number, question in enumerate(made, start=1):
                    yield _sample(picture.name, image, setting, number, question)


def _sample(name: str, image: str, setting: str, number: int, question: Question) -> Sample:
    return Sample(
        id=f"{setting}/{name}/{number}",
        prompt=question.text,
        images=(image,),
        label=question.label,
        choices=YES_NO,
        group=name,
        task=f"{setting}/{question.level}",
        attributes={
            "object": question.object,
            "level": question.level,
            "attribute": question.attribute,
            "attribute_type": question.kind,
            "setting": setting,
        },
    )


def _read(row: Row, where: str, root: ImageRoot) -> Sample:
    question = text_of(row, _of(row, _QUESTION), where).strip()
    level = _one_of(row.cells.get("level"), LEVELS, where, "level")
    setting = _one_of(row.cells.get(_of(row, _SETTING)), SETTINGS, where, "setting")
    attribute = str(row.cells.get("attribute") or "").strip().lower()
    image = row.cells.get("image")
    path = root.path(named(image), where)
    group = row.cells.get("image_source") or Path(path).name
    task = f"{setting}/{level}"
    return Sample(
        id=f"{task}/{number_of(row, 'question_id', where)}",
        prompt=question,
        images=(path,),
        label=label_of(row.cells.get(_of(row, _LABEL)), where),
        choices=YES_NO,
        group=str(group).removesuffix(".jpg"),
        task=task,
        attributes={
            "object": asked_of(question, attribute),
            "level": level,
            "attribute": attribute,
            "setting": setting,
        },
    )


def asked_of(question: str, attribute: str) -> str:
    """The object that a question of either level is about; "" if it is worded in another way.

    >>> asked_of("Is the umbrella green in the image?", "green")
    'umbrella'
    """
    text = question.strip().lower()
    end = f" {attribute} in the image?"
    if attribute and text.startswith("is the ") and text.endswith(end):
        return text.removeprefix("is the ").removesuffix(end)
    return object_of(question)


def _of(row: Row, names: Sequence[str]) -> str:
    return next((name for name in names if row.cells.get(name) not in (None, "")), names[0])


def _one_of(value: object, known: Sequence[str], where: str, column: str) -> str:
    text = str(value or "").strip().lower()
    if text in known:
        return text
    raise DataError(
        f"{where}: the {column} is {text[:40]!r}.",
        subject=where,
        hint=did_you_mean(text, known) or f"Expected {', '.join(known)}.",
    )


def _check_once(pictures: Sequence[Picture]) -> None:
    seen: dict[str, Picture] = {}
    for picture in pictures:
        if seen.setdefault(picture.name, picture) is not picture:
            first = seen[picture.name].place.rpartition(", ")[2]
            raise DataError(
                f"{picture.place}: {picture.name!r} is in {first}, too.",
                subject=picture.place,
                hint="Write a row for each picture, with all its objects; or give the rows ids.",
            )


def _counted(samples: Sequence[Sample]) -> str:
    counts = Counter(str(sample.attributes["level"]) for sample in samples)
    return " and ".join(f"{counts[level]:,} {level} questions" for level in LEVELS)


def _notes(pictures: Sequence[Picture], asked: int) -> Iterator[str]:
    if asked < len(pictures):
        yield f"{len(pictures) - asked:,} of {len(pictures):,} pictures give no question."
    several = sum(len(picture.kinds) - len(picture.single) for picture in pictures)
    if several:
        yield (
            f"{several:,} times a picture has several objects of one name: no attribute of these "
            "is asked for."
        )
    loose = sum(
        not kind for picture in pictures for one in picture.things for kind, _ in one.attributes
    )
    if loose:
        yield (
            f"{loose:,} attributes have no type, so that a false one may hold as well: write "
            '{"color": "green"}.'
        )
