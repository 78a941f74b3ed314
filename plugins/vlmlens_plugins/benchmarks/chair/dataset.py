"""The dataset `chair`: images of COCO to be described, and what is in them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

from pydantic import Field

from vlmlens._files import expanded
from vlmlens.abc import Options
from vlmlens.errors import DataError, DataNotFound, did_you_mean
from vlmlens.samples import Sample
from vlmlens_plugins.benchmarks import Benchmark, BenchmarkOptions, Found
from vlmlens_plugins.benchmarks.chair.card import CARD, QUESTION
from vlmlens_plugins.benchmarks.chair.coco import Annotated, annotated, splits_in
from vlmlens_plugins.benchmarks.chair.draw import draw_digest, drawn, listed
from vlmlens_plugins.benchmarks.chair.readers import INSTANCES, OBJECTS, REFERENCES, STRICT
from vlmlens_plugins.benchmarks.chair.tables import NAMES, keyed, refuse_pickle, table
from vlmlens_plugins.benchmarks.sources import ImageRoot, Source, is_hub_name, source_of
from vlmlens_plugins.data._cells import CellError, text
from vlmlens_plugins.data._paths import existing
from vlmlens_plugins.data._table_files import Row, is_table

_COLUMNS = (("question_id", "gt_object"), ("image_id", "objects"))
_FORMS = (
    "CHAIR is read from a folder with COCO's instances_SPLIT.json and captions_SPLIT.json "
    "(or annotations/ with them), and from rows with the columns image, question_id and gt_object, "
    "or image, image_id and objects."
)


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
    samples: int | None = Field(500, ge=1, description="How many images are drawn; none: all.")
    seed: int = Field(0, ge=0, description="Seed of the draw.")
    ids: str | None = Field(
        None, description="File that lists the images, by id or file name, instead of a draw."
    )


@dataclass(frozen=True)
class _Image:
    """One image and what is known of it."""

    number: int
    path: str
    about: Mapping[str, str]


class Chair(Benchmark):
    """Images of COCO to be described. `objects` are what is there, by the strict reading."""

    Options: ClassVar[type[Options]] = ChairOptions
    options: ChairOptions
    card = CARD

    def found(self) -> Found:
        """See `Benchmark.found`."""
        refuse_pickle(Path(self.source))
        key = keyed(self.options.synonyms)
        _plain_names(key)
        folder = expanded(self.source)
        if self._is_rows(folder):
            return self._of_rows(key)
        return self._of_files(existing(self.source), key)

    def _is_rows(self, folder: Path) -> bool:
        if not folder.exists():
            return is_hub_name(self.source) or ":" in self.source
        if folder.is_file():
            return is_table(folder) and not folder.name.startswith(("instances_", "captions_"))
        saved = any((folder / name).is_file() for name in ("state.json", "dataset_dict.json"))
        return saved or any(folder.rglob("*.parquet"))

    # --- COCO's own files ---

    def _of_files(self, source: Path, key: str) -> Found:
        place, splits = self._splits(source)
        known = annotated(place, splits)
        folders = {split: self._pictures(source, split) for split in splits}
        there = {split: _names_in(folder) for split, folder in folders.items()}
        here = {number for number, one in known.images.items() if one.file in there[one.split]}
        if not here:
            raise DataNotFound(
                f"None of {len(known.images)} annotated images is in "
                f"{', '.join(sorted({str(folder) for folder in folders.values()}))}.",
                subject=self.source,
                hint="Name the folder of the pictures with --set options.dataset.images=val2014.",
            )
        chosen, drew = self._chosen(here, known)
        count = f"{len(chosen)} of {len(known.images)} images"
        return Found(
            samples=self._read(chosen, known, folders, key),
            form="COCO's files",
            edition=f"{' + '.join(splits)}, {count}, {drew}, ids {draw_digest(chosen)}",
            digest=known.digest,
            notes=self._notes(known, len(here), key),
        )

    def _splits(self, source: Path) -> tuple[Path, list[str]]:
        base = source if source.is_dir() else source.parent
        given = self.options.annotations
        beside = (base, base / "annotations", base.parent, base.parent / "annotations")
        place, splits = splits_in([existing(given)] if given else beside)
        if place is None:
            names = sorted(path.name for path in base.iterdir())[:8]
            raise DataNotFound(
                f"There are no annotations of COCO in {str(base)!r}; it has "
                f"{', '.join(names) or 'nothing'}.",
                subject=self.source,
                hint=f"{_FORMS} Or --set options.dataset.annotations=FOLDER.",
            )
        return place, self._wanted(source, splits)

    def _wanted(self, source: Path, splits: Sequence[str]) -> list[str]:
        stem = source.stem.partition("_")[2] if source.is_file() else source.name
        given = self.options.split or (stem if stem in splits else "")
        if not given:
            given = "val2014" if "val2014" in splits else splits[0] if len(splits) == 1 else ""
        wanted = [one.strip() for one in given.split(",") if one.strip()]
        for one in wanted or [""]:
            if one not in splits:
                raise DataError(
                    f"There are annotations of {', '.join(splits)}"
                    + (f", but not of {one!r}." if one else ": it is not clear which are meant."),
                    subject=one or self.source,
                    hint=did_you_mean(one, splits) or "--set options.dataset.split=val2017",
                )
        return list(dict.fromkeys(wanted))

    def _pictures(self, source: Path, split: str) -> Path:
        given = existing(self.options.images) if self.options.images else None
        base = given or (source if source.is_dir() else source.parent)
        places = (base / split, base / "images" / split, base.parent / split, base)
        usual = [place for place in places if place.is_dir() and place.name == split]
        return next(iter(usual), base)

    def _chosen(self, here: set[int], known: Annotated) -> tuple[list[int], str]:
        if self.options.ids is None:
            chosen = drawn(here, self.options.samples, self.options.seed)
            every = len(chosen) == len(here)
            return chosen, "all that are there" if every else f"drawn with seed {self.options.seed}"
        ids = listed(self.options.ids)
        lost = [one for one in ids if one not in here]
        if lost:
            why = "has no annotations" if lost[0] not in known.images else "has no picture"
            raise DataError(
                f"{len(lost)} of the {len(ids)} images that {self.options.ids!r} lists cannot be "
                f"used: {lost[0]}, for example, {why}.",
                subject=str(lost[0]),
                hint="Give the annotations and the pictures of the split that they are from "
                "(options.dataset.split, options.dataset.images).",
            )
        return ids, "listed"

    def _notes(self, known: Annotated, here: int, key: str) -> tuple[str, ...]:
        gone = len(known.images) - here
        bare = sum(not one.captions for one in known.images.values())
        said = [
            f"{gone} of {len(known.images)} annotated images are not in the folder" if gone else "",
            f"{bare} images have no reference captions" if bare else "",
            _table_note(key),
        ]
        return tuple(filter(None, said))

    def _read(
        self, chosen: Sequence[int], known: Annotated, folders: Mapping[str, Path], key: str
    ) -> Iterator[Sample]:
        outside = self.options.allow_outside
        roots = {
            split: ImageRoot(str(folder), folder, allow_outside=outside)
            for split, folder in folders.items()
        }
        for number in chosen:
            seen = known.images[number]
            about = {
                NAMES: key,
                INSTANCES: json.dumps(list(seen.kinds)),
                REFERENCES: json.dumps(seen.captions, ensure_ascii=False),
            }
            yield _made(_Image(number, roots[seen.split].path(seen.file, f"image {number}"), about))

    # --- rows ---

    def _of_rows(self, key: str) -> Found:
        source = source_of(self.source, self.options.subset, self.options.revision)
        named = next((both for both in _COLUMNS if source.has("image", *both)), None)
        if named is None:
            raise DataError(
                f"{source.name} has the columns {', '.join(source.columns)}, which are none of "
                "CHAIR's.",
                subject=source.name,
                hint=_FORMS,
            )
        images = list(self._images(source, *named, key))
        chosen = self._chosen_rows({one.number for one in images})
        kept = [one for one in images if one.number in chosen]
        return Found(
            samples=map(_made, kept),
            form=f"hub columns ({named[1]})",
            edition=f"{len(kept)} of {len(images)} images, ids {draw_digest(sorted(chosen))}",
            digest=source.digest,
            notes=("what is there is the set's own list, by its makers' rule", _table_note(key)),
        )

    def _chosen_rows(self, here: set[int]) -> set[int]:
        if self.options.ids is not None:
            return set(self._chosen(here, Annotated({}, ""))[0])
        return set(drawn(here, self.options.samples, self.options.seed))

    def _images(self, source: Source, number: str, objects: str, key: str) -> Iterator[_Image]:
        folder = expanded(self.source).parent
        root = ImageRoot(self.options.images, folder, allow_outside=self.options.allow_outside)
        for row in source.rows:
            where = f"{source.name}, {row.place}"
            names = _list_of(row, objects, where)
            about = {NAMES: key, OBJECTS: json.dumps(names, ensure_ascii=False)}
            yield _Image(_number(row, number, where), root.path(row.cells["image"], where), about)


def _made(image: _Image) -> Sample:
    name = str(image.number)
    sample = Sample(name, QUESTION, (image.path,), group=name, attributes=image.about)
    there = json.dumps(sorted(STRICT.there(sample)), ensure_ascii=False)
    return replace(sample, attributes={**image.about, OBJECTS: there})


def _names_in(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def _table_note(key: str) -> str:
    return "objects are named by " + (
        "vlmlens's own table of COCO's 80 kinds, not by the authors' synonyms.txt: figures differ "
        "a little from published ones"
        if key == "coco"
        else f"the table {key.replace('#', ', sha256 ')}"
    )


def _plain_names(key: str) -> None:
    for name in table(key).names.synonyms:
        if "," in name:
            raise DataError(
                f"The object {name!r} of the table has a comma in its name.",
                subject=name,
                hint="Name objects without commas.",
            )


def _number(row: Row, column: str, where: str) -> int:
    value = row.cells.get(column)
    try:
        return int(str(text(value)))
    except (CellError, ValueError) as error:
        raise DataError(
            f"{where}: {column} is {value!r}, where the number of an image of COCO is expected.",
            subject=where,
            hint=_FORMS,
        ) from error


def _list_of(row: Row, column: str, where: str) -> list[str]:
    value: Any = row.cells.get(column)
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except (ValueError, RecursionError):
            value = None
    if not isinstance(value, Iterable) or not all(isinstance(one, str) for one in value):
        raise DataError(
            f"{where}: {column} is {str(row.cells.get(column))[:60]!r}, where a list of objects is "
            "expected.",
            subject=where,
            hint=_FORMS,
        )
    return list(value)
