"""VLMEvalKit's tables: their hints, categories and options, and cells that hold no image."""

from __future__ import annotations

import json
import re
import string
from collections.abc import Collection
from dataclasses import replace
from pathlib import Path

from vlmlens.samples import Sample
from vlmlens_plugins.data._table_files import kind_of

LONGEST_INDEX = 64
"""VLMEvalKit takes longer cells of images for base64."""
_BASE64 = re.compile(r"[A-Za-z0-9+/\s]+={0,2}\s*")
_NUMBER = re.compile(r"\d+")


def is_kit_table(path: Path, columns: Collection[str]) -> bool:
    """Whether a table is one of VLMEvalKit's, by its suffix and columns."""
    shown = "image" in columns or "image_path" in columns
    asked = {"index", "question"} <= set(columns) and ("answer" in columns or "A" in columns)
    return kind_of(path) == ".tsv" and shown and asked


def hinted(prompt: str, hint: str | None) -> str:
    r"""A question behind its hint, if it has one.

    >>> hinted("Which one?", "Look left."), hinted("Which one?", None)
    ('Hint: Look left.\nWhich one?', 'Which one?')
    """
    return f"Hint: {hint}\n{prompt}" if hint else prompt


def with_options(sample: Sample) -> Sample:
    """The sample whose prompt lists its choices by letters, which become its choices.

    The words around them are VLMEvalKit's. A sample without choices stays as it is.
    """
    if not sample.choices or len(sample.choices) > len(string.ascii_uppercase):
        return sample
    letters = tuple(string.ascii_uppercase[: len(sample.choices)])
    listed = [f"{letter}. {text}" for letter, text in zip(letters, sample.choices, strict=True)]
    asked = "Please select the correct answer from the options above."
    label = sample.label
    right = None if label is None else letters[sample.choices.index(label)]
    options = json.dumps(sample.choices, ensure_ascii=False)
    return replace(
        sample,
        prompt="\n".join([sample.prompt, "Options:", *listed, asked]),
        choices=letters,
        label=right,
        attributes={**sample.attributes, "options": options},
    )


def no_image(cell: str, path: Path, *, held: bool) -> str | None:
    """Why a cell is neither a path nor the index of a row with an image; None if it may be one.

    Args:
        cell: The cell, which holds no image itself and is no known index.
        path: What it would be as a path.
        held: Whether other rows of the table hold images.
    """
    if len(cell) > LONGEST_INDEX and _BASE64.fullmatch(cell) and not _is_file(path):
        return (
            f"{len(cell)} characters ({cell[:20]!r}...) are no file, and as base64 no image that "
            "can be read"
        )
    if held and _NUMBER.fullmatch(cell) and not _is_file(path):
        return f"{cell!r} names the row with the index {cell}, which holds no image"
    return None


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):
        return False
