"""The dataset `pope`."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import ClassVar, Literal

from pydantic import Field

from vlmlens._files import expanded
from vlmlens.abc import Options
from vlmlens.errors import DataError, DataNotFound
from vlmlens.samples import Sample
from vlmlens_plugins.benchmarks.benchmark import Benchmark, BenchmarkOptions, Found
from vlmlens_plugins.benchmarks.card import Card
from vlmlens_plugins.benchmarks.pope.card import CARD, SPLITS
from vlmlens_plugins.benchmarks.pope.editions import edition_of, order_tells, shared
from vlmlens_plugins.benchmarks.pope.forms import (
    LLAVA,
    OFFICIAL,
    Labels,
    form_of,
    named_in,
    questions_in,
)
from vlmlens_plugins.benchmarks.pope.questions import Asked, same_question, sample_of
from vlmlens_plugins.benchmarks.sources import ImageRoot, Source, file_source, source_of

_DEEPEST = 3
_READ_BY_DATASETS = {".parquet", ".arrow", ".csv", ".jsonl", ".json"}


class PopeOptions(BenchmarkOptions):
    """Options of POPE."""

    split: Literal["random", "popular", "adversarial"] | None = Field(
        None, description="Only this split; default: all that are there."
    )


class Pope(Benchmark):
    """`pope:FOLDER`, `pope:FILE`, `pope:ORG/NAME[:SPLIT]`: see `forms` for what can be read."""

    Options: ClassVar[type[Options]] = PopeOptions
    options: PopeOptions
    card: ClassVar[Card] = CARD

    def found(self) -> Found:
        """See `Benchmark.found`."""
        place = expanded(self.source)
        if place.is_dir() and (files := official_files(place)):
            sources, form = [file_source(path) for path in files], OFFICIAL
        else:
            one = _one(self.source, place, self.options)
            sources, form = [one], form_of(one)
        asked, folders = self._asked(sources, form)
        samples = self._samples(asked, folders)
        return Found(samples, form, edition_of(asked), _digest(sources), tuple(_notes(samples)))

    def _asked(self, sources: Sequence[Source], form: str) -> tuple[list[Asked], list[Path]]:
        """The questions, and the folder that each one's image is in unless the user names one."""
        asked, folders = [], []
        for source in sources:
            path = Path(source.name)
            labels = _labels_beside(path) if form == LLAVA else None
            for each in questions_in(source, form, labels):
                if self.options.split in (None, each.split):
                    asked.append(each)
                    folders.append(path.parent if source.digest else Path.cwd())
        return asked, folders

    def _samples(self, asked: Sequence[Asked], folders: Sequence[Path]) -> list[Sample]:
        given, outside = self.options.images, self.options.allow_outside
        roots = {each: ImageRoot(given, each, allow_outside=outside) for each in {*folders}}
        several = len({each.source for each in asked}) > 1
        return [
            sample_of(each, roots[folder], several=several)
            for each, folder in zip(asked, folders, strict=True)
        ]


def _notes(samples: Sequence[Sample]) -> Iterator[str]:
    """What the data gives away, and what was not understood."""
    told = order_tells(samples)
    if told is not None:
        yield (
            f"The order of the questions gives their answers away: whether a number is odd or even "
            f"is right for {told:.1%}. Give neither ids nor positions to a probe, and let --limit "
            "take whole images (6 questions)."
        )
    if common := shared(samples):
        yield (
            f"{common:,} questions about an image are in several splits: what learns from one "
            "split has seen them. Images are groups; hold out objects as well."
        )
    if unnamed := sum(not sample.attributes["object"] for sample in samples):
        yield f"{unnamed:,} questions are worded in another way: no object is known of them."


def official_files(folder: Path) -> list[Path]:
    """The files that are named like POPE's own, in a folder and those inside it, in a fixed order.

    Raises:
        DataError: Two of them are of the same source and split.
    """
    found: dict[tuple[str, str], Path] = {}
    for depth in range(_DEEPEST):
        for path in sorted(folder.glob("*/" * depth + "*pope*.json")):
            own = named_in(path.name)
            if not own[1]:
                continue
            if own in found:
                raise DataError(
                    f"{found[own]} and {path} are both the {' '.join(own)} split.",
                    subject=str(path),
                    hint="Name the folder of one edition.",
                )
            found[own] = path.absolute()
    return [found[key] for key in sorted(found, key=lambda own: (own[0], SPLITS.index(own[1])))]


def _one(source: str, place: Path, options: PopeOptions) -> Source:
    """The rows of a file, of a folder that `datasets` reads, or of the hub."""
    if place.is_file():
        return file_source(place.absolute())
    if place.is_dir() and not _holds_tables(place):
        names = sorted(path.name for path in place.iterdir())
        listed = ", ".join(names[:6]) + (", ..." if len(names) > 6 else "")
        raise DataNotFound(
            f"The folder {source!r} has no file of POPE; it has {listed or 'nothing'}.",
            subject=source,
            hint="Official files are named coco_pope_random.json, coco_pope_popular.json, "
            "coco_pope_adversarial.json. A folder of save_to_disk, a Parquet file, VLMEvalKit's "
            "POPE.tsv and LLaVA's llava_pope_test.jsonl are read, too.",
        )
    return source_of(source, options.subset, options.revision)


def _holds_tables(folder: Path) -> bool:
    return any(path.suffix in _READ_BY_DATASETS for path in folder.rglob("*") if path.is_file())


def _labels_beside(path: Path) -> Labels:
    """The labels of the official coco files in the folder of LLaVA's file, or below it.

    Raises:
        DataError: There are none.
    """
    files = [each for each in official_files(path.parent) if named_in(each.name)[0] == "coco"]
    if not files:
        raise DataError(
            f"{path} has no labels, and no official file lies beside it.",
            subject=str(path),
            hint="Lay the official files coco_pope_random.json, coco_pope_popular.json and "
            "coco_pope_adversarial.json into a folder coco/ beside it, as LLaVA's kit has them.",
        )
    return {
        (each.split, str(each.image), same_question(each.question)): each.label
        for file in files
        for each in questions_in(file_source(file), OFFICIAL)
    }


def _digest(sources: Sequence[Source]) -> str:
    """That of the file; of several, of their digests in order."""
    digests = [source.digest for source in sources]
    if len(digests) == 1 or not all(digests):
        return digests[0] if len(digests) == 1 else ""
    return hashlib.sha256("\n".join(digests).encode()).hexdigest()[:12]
