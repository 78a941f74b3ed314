"""The dataset `cdh`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import Field, field_validator

from vlmlens._display import count
from vlmlens._files import expanded
from vlmlens.abc import Options
from vlmlens.errors import DataError, ManifestError
from vlmlens.images import DEFAULT, ImageRules
from vlmlens.samples import Sample
from vlmlens_plugins.benchmarks.benchmark import Benchmark, BenchmarkOptions, Found
from vlmlens_plugins.benchmarks.card import Card
from vlmlens_plugins.benchmarks.cdh.card import CARD
from vlmlens_plugins.benchmarks.cdh.parsing import CHOICE, normalized
from vlmlens_plugins.benchmarks.cdh.rows import FILES, FORMS, SIDES, TITLE, Asked, asked_in
from vlmlens_plugins.benchmarks.forms import rows_of
from vlmlens_plugins.benchmarks.sources import ImageRoot, Source

_PAIRS = 300
_RESIZED = ImageRules(size=(512, 512))


class CdhOptions(BenchmarkOptions):
    """Options of the dataset `cdh`."""

    resize: Literal["512", "none"] = Field(
        "512", description="512: pictures of 512 x 512 pixels, as the authors show them; none."
    )
    questions: Literal["all", "qa", "choice"] = Field(
        "all", description="Direct questions (qa), those with options (choice), or all."
    )

    @field_validator("resize", mode="before")
    @classmethod
    def _is_text(cls, value: Any) -> Any:
        return str(value) if isinstance(value, int) else value


class CdhBench(Benchmark):
    """CDH-Bench's file and pictures.

    Every pair has four samples: a direct question and one with options, on the common and on the
    odd picture. An id is `Pair_1/commonsense/qa`. The group is the pair; attributes are `pair`,
    `side`, `category`, `subcategory` and the right answer for each picture.
    """

    Options: ClassVar[type[Options]] = CdhOptions
    options: CdhOptions
    card: ClassVar[Card] = CARD

    def found(self) -> Found:
        """See `Benchmark.found`."""
        chosen = self.options
        source = rows_of(
            TITLE, self.source, FILES, FORMS, subset=chosen.subset, revision=chosen.revision
        )
        asked = [
            each for each in asked_in(source, self.source) if chosen.questions in ("all", each.kind)
        ]
        root = ImageRoot(chosen.images, self._pictures(source), allow_outside=chosen.allow_outside)
        samples = self._samples(asked, root)
        notes = self._notes() + (_lacking(asked) if chosen.questions == "all" else ())
        return Found(samples, "official file", _edition(asked), source.digest, notes)

    def _pictures(self, source: Source) -> Path:
        """The folder of the pictures: `images` beside the file."""
        place = expanded(source.name)
        if not place.exists() and not self.options.images:
            raise DataError(
                f"{self.source!r} names its pictures, and has none.",
                subject=self.source,
                hint="Name the folder of its pictures: --set options.dataset.images=FOLDER.",
            )
        folder = place if place.is_dir() else place.parent
        return folder / "images" if (folder / "images").is_dir() else folder

    def _samples(self, asked: Iterable[Asked], root: ImageRoot) -> Iterator[Sample]:
        rules = _RESIZED if self.options.resize == "512" else DEFAULT
        for each in asked:
            inner = f"{_safe(each.subcategory, ' /')}/{_safe(each.pair, ' ')}"
            for side in SIDES:
                image = root.path(f"{inner}/{side}.png", each.place)
                yield _sample(each, side, image, rules)

    def _notes(self) -> tuple[str, ...]:
        if self.options.resize == "none":
            return (f"{TITLE}: pictures keep their size; published figures are of 512 x 512",)
        return (f"{TITLE}: pictures are resized to 512 x 512 (Lanczos), as the authors do",)


def _lacking(asked: Sequence[Asked]) -> tuple[str, ...]:
    """A note if pairs lack the direct question or the one with options."""
    held = Counter(each.pair for each in asked)
    few = [pair for pair, number in held.items() if number == 1]
    if not few:
        return ()
    said = f"{count(len(few), 'pair')} of {len(held)} (the first: {few[0]!r})"
    return (f"{TITLE}: {said} with one question only, not with both kinds",)


def _sample(asked: Asked, side: str, image: str, rules: ImageRules) -> Sample:
    label, choices = _answer(asked, side)
    return Sample(
        id=f"{_safe(asked.pair, ' ')}/{side}/{asked.kind}",
        prompt="\n".join((asked.question, *asked.options)),
        images=(image,),
        label=label,
        choices=choices,
        group=asked.pair,
        task=f"{asked.category.split()[0].lower()}/{asked.kind}",
        attributes={
            "pair": asked.pair,
            "pair_name": asked.name,
            "side": side,
            "category": asked.category,
            "subcategory": asked.subcategory,
            **{each: asked.labels[each] for each in SIDES},
        },
        rules=rules,
    )


def _answer(asked: Asked, side: str) -> tuple[str, tuple[str, ...]]:
    """The right answer, and the possible ones of a closed question."""
    label = asked.labels[side].strip()
    if asked.kind == CHOICE:
        if label.upper() not in asked.letters:
            raise ManifestError(
                f"{asked.place}: the answer {label!r} ({side}) is the letter of no option.",
                subject=asked.place,
                hint=f"The options have the letters {', '.join(asked.letters) or '(none)'}.",
            )
        return label.upper(), asked.letters
    words = [normalized(each) for each in asked.labels.values()]
    closed = all(word in ("yes", "no") for word in words)
    return (normalized(label), ("yes", "no")) if closed else (label, ())


def _safe(name: str, replaced: str) -> str:
    """A name of a folder, as the authors make it of a text."""
    return "".join("_" if sign in replaced else sign for sign in name)


def _edition(asked: Sequence[Asked]) -> str:
    pairs = len({each.pair for each in asked})
    known = "all pairs of 2026" if pairs == _PAIRS else f"the file has {_PAIRS}"
    total = len(asked) * len(SIDES)
    return f"{total:,} questions on {pairs:,} pairs of pictures ({known})"
