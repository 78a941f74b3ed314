"""The dataset `hallusionbench`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import ClassVar, Literal

from pydantic import Field

from vlmlens._files import expanded
from vlmlens.abc import Options
from vlmlens.errors import DataNotFound
from vlmlens.samples import Sample
from vlmlens_plugins.benchmarks.benchmark import Benchmark, BenchmarkOptions, Found
from vlmlens_plugins.benchmarks.card import Card
from vlmlens_plugins.benchmarks.forms import rows_of
from vlmlens_plugins.benchmarks.hallusionbench.card import CARD
from vlmlens_plugins.benchmarks.hallusionbench.forms import FILES, FORMS, TITLE, Asked, form_of
from vlmlens_plugins.benchmarks.sources import ImageRoot, Source
from vlmlens_plugins.data._embedded import Stored

_KNOWN = {
    1129: "all questions of November 2023",
    951: "those with a figure",
    178: "those without a figure",
}
_FOLDER = "hallusion_bench"


class HallusionOptions(BenchmarkOptions):
    """Options of the dataset `hallusionbench`."""

    part: Literal["all", "image", "non_image"] = Field(
        "all",
        description="Which questions: all 1,129; image: the 951 with a figure, which lmms-eval and "
        "VLMEvalKit score; non_image: the 178 without.",
    )


class HallusionBench(Benchmark):
    """HallusionBench in its official file, the hub's columns or VLMEvalKit's table.

    A sample's id is `CATEGORY_SUBCATEGORY_SET_FIGURE_QUESTION`, as in the authors' code. The group
    is the set; `figure`, `pair` (the same question on all figures of a set) and `seen` (none,
    original or edited figure) are attributes.
    """

    Options: ClassVar[type[Options]] = HallusionOptions
    options: HallusionOptions
    card: ClassVar[Card] = CARD

    def found(self) -> Found:
        """See `Benchmark.found`."""
        chosen = self.options
        source = rows_of(
            TITLE,
            self.source,
            FILES,
            FORMS,
            subset=chosen.subset,
            revision=chosen.revision,
        )
        form, rows = form_of(source, self.source)
        asked = [each for each in rows if self._wanted(each)]
        if not asked:
            raise DataNotFound(
                f"{self.source!r} has no questions of the part {chosen.part!r}.",
                subject=self.source,
                hint="Choose another part or split: all, image, non_image.",
            )
        samples = self._samples(source, asked)
        return Found(samples, form, _edition(asked), source.digest, tuple(_notes(asked)))

    def _wanted(self, asked: Asked) -> bool:
        return self.options.part in ("all", "non_image" if asked.image is None else "image")

    def _samples(self, source: Source, asked: Sequence[Asked]) -> Iterator[Sample]:
        folder = expanded(source.name).parent
        root = ImageRoot(self.options.images, folder, allow_outside=self.options.allow_outside)
        inner = _inner(root.folder, asked)
        for each in asked:
            cell = each.image
            images = () if cell is None else (root.path(_moved(cell, inner), each.place),)
            yield _sample(each, images)


def _sample(asked: Asked, images: tuple[str, ...]) -> Sample:
    task = f"{asked.category}/{asked.subcategory}"
    group = f"{task}/{asked.set}"
    return Sample(
        id="_".join((asked.category, asked.subcategory, asked.set, asked.figure, asked.number)),
        prompt=asked.question,
        images=images,
        label=asked.label,
        choices=("yes", "no"),
        group=group,
        task=task,
        attributes={
            "category": asked.category,
            "figure": f"{group}/{asked.figure}",
            "pair": f"{group}/{asked.number}",
            "seen": asked.seen,
            **({"details": asked.details} if asked.details else {}),
        },
    )


def _inner(folder: Path, asked: Iterable[Asked]) -> str | None:
    """What stands between the images' folder and `VD/...`; None: the names are as they are.

    The authors' file names `./VD/...` or `./hallusion_bench/VD/...`, and their archive unpacks to a
    folder `hallusion_bench`.
    """
    name = next((e.image for e in asked if e.image and not isinstance(e.image, Stored)), None)
    if not isinstance(name, str) or (folder / name).exists():
        return None
    for inner in (f"{_FOLDER}/", ""):
        if (folder / inner / _bare(name)).exists():
            return inner
    return None


def _moved(cell: object, inner: str | None) -> object:
    return cell if inner is None or isinstance(cell, Stored) else inner + _bare(str(cell))


def _bare(name: str) -> str:
    return name.removeprefix("./").removeprefix(f"{_FOLDER}/")


def _edition(asked: Sequence[Asked]) -> str:
    figures = {(e.category, e.subcategory, e.set, e.figure) for e in asked if e.image is not None}
    pairs = {(e.category, e.subcategory, e.set, e.number) for e in asked}
    known = _KNOWN.get(len(asked), "no published number of questions")
    return (
        f"{len(asked):,} questions ({known}) on {len(figures):,} figures, {len(pairs):,} pairs, "
        f"{sum(e.image is None for e in asked):,} without a figure"
    )


def _notes(asked: Sequence[Asked]) -> Iterator[str]:
    blank = sum(each.image is None for each in asked)
    if 0 < blank < len(asked):
        yield (
            f"{blank} of {len(asked)} questions have no figure: take them along with --set "
            "text_only=true, or leave them out with --set options.dataset.part=image"
        )
    if not all(each.seen for each in asked):
        yield f"{TITLE}: the ids do not say which figures are edited: easy and hard are unknown"
