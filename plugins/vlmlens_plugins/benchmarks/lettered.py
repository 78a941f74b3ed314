"""Questions with lettered options: their texts, and their columns in VLMEvalKit's tables."""

from __future__ import annotations

import json
import string
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import Any

from vlmlens.samples import Attribute, Sample
from vlmlens_plugins.benchmarks.forms import missing
from vlmlens_plugins.benchmarks.sources import ImageRoot, Source
from vlmlens_plugins.data import _cells
from vlmlens_plugins.data._embedded import Stored
from vlmlens_plugins.data._table_files import Row

OPTIONS = "options"
"""Attribute: the texts of options, a list in JSON; the choices are their letters."""

Pictures = Callable[[Row], Mapping[int, str]]
"""The paths of a row's images by their number, from 1."""


def listed(texts: Sequence[object]) -> str:
    """A list as the text of an attribute."""
    return json.dumps(list(texts), ensure_ascii=False)


def texts_in(attributes: Mapping[str, Attribute], name: str) -> tuple[str, ...]:
    """The texts of a list in an attribute; () where there is none."""
    text = attributes.get(name)
    return _unlisted(text) if isinstance(text, str) else ()


def options_of(sample: Sample) -> dict[str, str]:
    """The texts of a sample's options by letter; {} of an open question."""
    return dict(zip(sample.choices, texts_in(sample.attributes, OPTIONS), strict=False))


def letters_for(texts: Sequence[str], row: Row, source: Source) -> tuple[str, ...]:
    """A letter for each option.

    Raises:
        ManifestError: There are more than 26.
    """
    if len(texts) > len(string.ascii_uppercase):
        raise missing(row, OPTIONS, "at most 26 options", source)
    return tuple(string.ascii_uppercase[: len(texts)])


def options_in(row: Row, source: Source) -> tuple[str, ...]:
    """Options in the column `options` or `choices`: a list, or the text of one in Python.

    Raises:
        ManifestError: They are something else.
    """
    column = OPTIONS if source.has(OPTIONS) else "choices"
    given: Any = row.cells.get(column)
    try:
        if isinstance(given, str):
            given = _cells.items_of(given)
        return tuple("" if item is None else str(item) for item in given or ())
    except (_cells.CellError, TypeError) as error:
        raise missing(row, column, "a list of options", source) from error


def options_in_columns(row: Row, source: Source) -> tuple[str, ...]:
    """Options in the columns A, B, C, ..., as in VLMEvalKit's tables.

    Raises:
        ManifestError: There is a gap between them.
    """
    letters = [letter for letter in string.ascii_uppercase if letter in source.columns]
    texts = [row.cells.get(letter) for letter in letters]
    while texts and texts[-1] in (None, ""):
        texts.pop()
    if any(text in (None, "") for text in texts):
        raise missing(row, "A", "options without a gap", source)
    return tuple(str(text) for text in texts)


def hub_pictures(root: ImageRoot, most: int) -> Pictures:
    """Images in the columns image_1, image_2, ..."""

    def pictures(row: Row) -> dict[int, str]:
        cells = {n: row.cells.get(f"image_{n}") for n in range(1, most + 1)}
        return {n: root.path(cell, row.place) for n, cell in cells.items() if cell}

    return pictures


def kit_pictures(source: Source, root: ImageRoot) -> Pictures:
    """Images in base64, a list of it, or the index of the row that has them."""
    own = {row.number: _own_images(row, source) for row in source.rows}
    held = {
        str(row.cells.get("index")): own[row.number]
        for row in source.rows
        if any(isinstance(image, Stored) for image in own[row.number])
    }

    def pictures(row: Row) -> dict[int, str]:
        images = own[row.number]
        named = held.get(str(images[0]), images) if len(images) == 1 else images
        return {n: root.path(image, row.place) for n, image in enumerate(named, start=1)}

    return pictures


def _own_images(row: Row, source: Source) -> Sequence[Any]:
    cell = row.cells.get("image")
    if not isinstance(cell, str) or isinstance(cell, Stored) or not cell.strip().startswith("["):
        return [] if cell in (None, "") else [cell]
    try:
        return _cells.images(cell, several=True)
    except _cells.CellError as error:
        raise missing(row, "image", "an image, or a list of images", source) from error


@lru_cache(4096)
def _unlisted(text: str) -> tuple[str, ...]:
    return tuple(str(item) for item in json.loads(text))
