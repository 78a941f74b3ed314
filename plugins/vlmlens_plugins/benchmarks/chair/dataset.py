"""The dataset `chair`: images of COCO to be described, and what is in them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import ClassVar

from pydantic import Field

from vlmlens._files import expanded
from vlmlens.abc import Options
from vlmlens.errors import DataError
from vlmlens_plugins.benchmarks.benchmark import Benchmark, BenchmarkOptions, Found
from vlmlens_plugins.benchmarks.card import Card
from vlmlens_plugins.benchmarks.chair.card import CARD
from vlmlens_plugins.benchmarks.chair.coco import annotated
from vlmlens_plugins.benchmarks.chair.draw import draw_digest, drawn, listed
from vlmlens_plugins.benchmarks.chair.images import (
    FORMS,
    TITLE,
    Image,
    annotations_of,
    of_files,
    of_rows,
    pictures_of,
    sample,
    splits_of,
)
from vlmlens_plugins.benchmarks.chair.tables import keyed, refuse_pickle, table
from vlmlens_plugins.benchmarks.forms import is_hub_folder, rows_of
from vlmlens_plugins.benchmarks.sources import ImageRoot, is_hub_name
from vlmlens_plugins.data._hf_loading import split_source
from vlmlens_plugins.data._paths import existing
from vlmlens_plugins.data._table_files import is_table
from vlmlens_plugins.object_names import COCO


class ChairOptions(BenchmarkOptions):
    """Options of CHAIR."""

    synonyms: str | None = Field(
        None,
        description="File of object names, such as the authors' synonyms.txt; default: vlmlens's "
        "table of COCO's 80 kinds.",
    )
    annotations: str | None = Field(
        None, description="Folder of COCO's annotation files; default: looked for in the source."
    )
    split: str | None = Field(
        None, description="val2014, train2014, val2017, ..., or several with commas."
    )
    samples: int | None = Field(500, ge=1, description="How many images are drawn; null: all.")
    seed: int = Field(0, ge=0, description="Seed of the draw.")
    ids: str | None = Field(
        None, description="File that lists the images, by id or file name, instead of a draw."
    )


class Chair(Benchmark):
    """Images of COCO to be described, from COCO's own files or the hub's columns.

    A sample's id is COCO's number of the image. `objects` are what is there by the strict reading;
    `instances` and `references`, where the files have them, let other rules say it themselves.
    """

    Options: ClassVar[type[Options]] = ChairOptions
    options: ChairOptions
    card: ClassVar[Card] = CARD

    def found(self) -> Found:
        """See `Benchmark.found`."""
        refuse_pickle(Path(self.source))
        key = keyed(self.options.synonyms)
        place, split = split_source(self.source)
        if self._is_rows(expanded(place)):
            return self._of_rows(key)
        return self._of_files(existing(place), self.options.split or split, key)

    def _is_rows(self, place: Path) -> bool:
        if place.is_dir():
            return is_hub_folder(place)
        if place.is_file():
            return is_table(place) and not place.name.startswith(("instances_", "captions_"))
        return is_hub_name(self.source)

    def _of_files(self, source: Path, split: str | None, key: str) -> Found:
        place, splits = annotations_of(source, _existing(self.options.annotations))
        splits = splits_of(source, split, splits)
        known = annotated(place, splits)
        given = _existing(self.options.images)
        folders = {split: pictures_of(source, given, split) for split in splits}
        images = of_files(known, folders)
        gone = len(known.images) - len(images)
        bare = sum(not seen.captions for seen in known.images.values())
        notes = (
            f"{gone} of {len(known.images)} annotated images are not in the folder" if gone else "",
            f"{bare} images have no reference captions" if bare else "",
        )
        form, name = "COCO's files", " + ".join(splits)
        return self._made(form, name, images, len(known.images), folders, key, known.digest, notes)

    def _of_rows(self, key: str) -> Found:
        subset, revision = self.options.subset, self.options.revision
        source = rows_of(TITLE, self.source, (), FORMS, subset=subset, revision=revision)
        images = of_rows(source)
        folders = {"": _existing(self.options.images) or expanded(self.source).parent}
        notes = ("what is there is the rows' own list, by the rule of those who made it",)
        every = len(images)
        return self._made("hub columns", "", images, every, folders, key, source.digest, notes)

    def _made(
        self,
        form: str,
        name: str,
        images: Sequence[Image],
        every: int,
        folders: Mapping[str, Path],
        key: str,
        digest: str,
        notes: Sequence[str],
    ) -> Found:
        chosen, drew = self._chosen(images)
        outside = self.options.allow_outside
        roots = {
            split: ImageRoot(str(place) if place.exists() else None, place, allow_outside=outside)
            for split, place in folders.items()
        }
        count = f"{len(chosen):,} of {every:,} images, {drew}"
        ids = draw_digest(sorted(image.number for image in chosen))
        return Found(
            samples=(
                sample(image, roots[image.split].path(image.cell, image.place), key)
                for image in chosen
            ),
            form=form,
            edition=", ".join(filter(None, (name, count, f"ids {ids}"))),
            digest=digest,
            notes=tuple(filter(None, (*notes, *_of_table(chosen, key)))),
        )

    def _chosen(self, images: Sequence[Image]) -> tuple[list[Image], str]:
        """The images that are listed or drawn, and a word on how."""
        by_number = {image.number: image for image in images}
        if len(by_number) < len(images):
            twice, _ = Counter(image.number for image in images).most_common(1)[0]
            raise DataError(
                f"{self.source!r} has the image {twice} more than once.",
                subject=str(twice),
                hint="Give one row for each image.",
            )
        if self.options.ids is None:
            ids = drawn(by_number, self.options.samples, self.options.seed)
            every = len(ids) == len(by_number)
            how = "all that are there" if every else f"drawn with seed {self.options.seed}"
            return [by_number[one] for one in ids], how
        ids = listed(self.options.ids)
        lost = [one for one in ids if one not in by_number]
        if lost:
            raise DataError(
                f"{len(lost)} of the {len(ids)} images that {self.options.ids!r} lists have no "
                f"annotation or no picture here, for example {lost[0]}.",
                subject=str(lost[0]),
                hint="Give the annotations and the pictures of the split that they are from "
                "(options.dataset.split, options.dataset.images).",
            )
        return [by_number[one] for one in ids], "listed"


def _existing(given: str | None) -> Path | None:
    return existing(given) if given else None


def _of_table(images: Sequence[Image], key: str) -> list[str]:
    """By which table objects are named, and which kinds it lacks."""
    names = table(key).names
    kinds = {kind for image in images for kind in image.objects}
    lacking = sorted(kind for kind in kinds if names.object_of(kind) is None)
    own = (
        "objects are named by vlmlens's table of COCO's 80 kinds, not by the authors' synonyms.txt "
        "(options.dataset.synonyms): figures differ a little from published ones"
    )
    path, _, digest = key.rpartition("#")
    return [
        own if key == COCO else f"objects are named by {path}, sha256 {digest}",
        f"the table has no {', '.join(lacking)}: they count for nothing" if lacking else "",
    ]
