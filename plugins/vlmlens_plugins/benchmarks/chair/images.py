"""Images to be described, and what is known of them: from COCO's files, or from rows of the hub."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from vlmlens.errors import DataError, DataNotFound, did_you_mean
from vlmlens.samples import Sample
from vlmlens_plugins.benchmarks.chair.card import QUESTION
from vlmlens_plugins.benchmarks.chair.coco import Annotated, splits_in
from vlmlens_plugins.benchmarks.chair.readers import INSTANCES, OBJECTS, REFERENCES, STRICT
from vlmlens_plugins.benchmarks.chair.tables import NAMES
from vlmlens_plugins.benchmarks.forms import entries, missing, wrong_form
from vlmlens_plugins.benchmarks.sources import Source
from vlmlens_plugins.data._cells import CellError, text

TITLE = "CHAIR"
FORMS = {
    "COCO's files": "a folder with instances_SPLIT.json and captions_SPLIT.json, or with "
    "annotations/ that has them",
    "hub columns": "image, question_id, gt_object; or image, image_id, objects",
}
_COLUMNS = (("question_id", "gt_object"), ("image_id", "objects"))
_USUAL = "val2014"


@dataclass(frozen=True, slots=True)
class Image:
    """One image and what is known of it.

    Args:
        number: COCO's.
        cell: Its file name, or the image itself.
        place: Where it is named: "FILE, row 3".
        objects: The kinds that are outlined; of rows, what they list.
        captions: The references; None: rows have none.
        split: Of COCO; "" in rows of the hub.
    """

    number: int
    cell: Any
    place: str
    objects: Sequence[str]
    captions: Sequence[str] | None = None
    split: str = ""


def annotations_of(source: Path, given: Path | None) -> tuple[Path, list[str]]:
    """The folder with COCO's annotations, and their splits.

    Args:
        source: The user's: a folder with them, with annotations/, or with the pictures.
        given: The folder that the user says has them.

    Raises:
        DataNotFound: There are none, or half of them.
    """
    base = source if source.is_dir() else source.parent
    beside = (base, base / "annotations", base.parent, base.parent / "annotations")
    place, splits = splits_in([given] if given else beside)
    if place is None:
        raise wrong_form(TITLE, str(given or source), entries(given or base), FORMS)
    return place, splits


def splits_of(source: Path, given: str | None, splits: Sequence[str]) -> list[str]:
    """The splits that are meant: those given, that of the source's name, the usual, or the only.

    Raises:
        DataError: There is no such split, or it is not clear which is meant.
    """
    own = source.stem.partition("_")[2] if source.is_file() else source.name
    usual = next((one for one in (own, _USUAL) if one in splits), "")
    said = given or usual or (splits[0] if len(splits) == 1 else "")
    wanted = [one.strip() for one in said.split(",") if one.strip()]
    for one in wanted or [""]:
        if one not in splits:
            why = f"but not of {one!r}" if one else "and it is not clear which are meant"
            raise DataError(
                f"There are annotations of {', '.join(splits)}, {why}.",
                subject=one or str(source),
                hint=did_you_mean(one, splits) or f"--set options.dataset.split={splits[0]}",
            )
    return list(dict.fromkeys(wanted))


def pictures_of(source: Path, given: Path | None, split: str) -> Path:
    """The folder with a split's pictures."""
    base = given or (source if source.is_dir() else source.parent)
    places = (base / split, base / "images" / split, base.parent / split)
    return next((place for place in places if place.is_dir()), base)


def of_files(known: Annotated, folders: Mapping[str, Path]) -> list[Image]:
    """The annotated images whose files are there.

    Raises:
        DataNotFound: None is.
    """
    there = {split: {path.name for path in place.iterdir()} for split, place in folders.items()}
    found = [
        Image(number, seen.file, f"image {number}", seen.kinds, seen.captions, seen.split)
        for number, seen in known.images.items()
        if seen.file in there[seen.split]
    ]
    if not found:
        places = ", ".join(sorted({str(place) for place in folders.values()}))
        raise DataNotFound(
            f"None of {len(known.images)} annotated images is in {places}.",
            subject=places,
            hint="Name the folder of the pictures with --set options.dataset.images=val2014.",
        )
    return found


def of_rows(source: Source) -> list[Image]:
    """The images of rows, each with a list of what is there.

    Raises:
        DataError: The columns are not CHAIR's, or a cell is wrong.
    """
    named = next((both for both in _COLUMNS if source.has("image", *both)), None)
    if named is None:
        raise wrong_form(TITLE, source.name, source.columns, FORMS)
    return list(_rows(source, *named))


def sample(image: Image, path: str, key: str) -> Sample:
    """An image as a sample; its `objects` are what is there by the strict reading.

    Args:
        image: The image.
        path: Of its file.
        key: The table of names, see `tables.keyed`.
    """
    name, about = str(image.number), {NAMES: key}
    if image.captions is None:
        about[OBJECTS] = _json(image.objects)
    else:
        about |= {INSTANCES: _json(image.objects), REFERENCES: _json(image.captions)}
    made = Sample(name, QUESTION, (path,), group=name, attributes=about)
    return replace(made, attributes={**about, OBJECTS: _json(sorted(STRICT.there(made)))})


def _rows(source: Source, number: str, objects: str) -> Iterator[Image]:
    for row in source.rows:
        value = row.cells.get(objects)
        if isinstance(value, str):
            try:
                value = json.loads(value)
            except (ValueError, RecursionError):
                value = None
        if not isinstance(value, list) or not all(isinstance(one, str) for one in value):
            raise missing(row, objects, "a list of objects", source)
        try:
            own = int(str(text(row.cells.get(number))))
        except (CellError, ValueError) as error:
            raise missing(row, number, "the number of an image", source) from error
        place = f"{source.name}, {row.place}"
        yield Image(own, row.cells["image"], place, tuple(value))


def _json(words: Sequence[str]) -> str:
    return json.dumps(list(words), ensure_ascii=False)
