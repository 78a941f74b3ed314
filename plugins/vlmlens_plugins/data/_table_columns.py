"""Which column of a table is read as what; what is guessed or left out is noted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from difflib import SequenceMatcher
from pathlib import Path
from typing import Any

from vlmlens.errors import ManifestError, did_you_mean
from vlmlens_plugins.data import _usual_names as usual
from vlmlens_plugins.data._cells import CellError, items_in
from vlmlens_plugins.data._embedded import Stored
from vlmlens_plugins.data._kit_tables import is_kit_table
from vlmlens_plugins.data._pairs import pair_columns
from vlmlens_plugins.data._table_files import Rows
from vlmlens_plugins.data._usual_names import CLIPS, KNOWN, ColumnName

_LOOKED_AT = 1_000
_IMAGES = ("image", "images")
_HELD: Mapping[str, tuple[type, ...]] = {"prompt": (str,), "label": (str, int, float)}


class TableColumns:
    """What a table calls each known column.

    Args:
        path: Of the table, for messages.
        table: Its columns and rows.
        given: The user's choice by known name; None: read no column as this.
        asked: Whether the user gave prompts: then none is guessed.

    Raises:
        ManifestError: A column that the user named does not exist, a name looks misspelt, or
            several columns could be the images.
    """

    def __init__(
        self, path: Path, table: Rows, given: Mapping[ColumnName, str | None], *, asked: bool
    ) -> None:
        self._path = path
        self._table = table
        self.notes: list[str] = []
        self.known: dict[str, str] = {}
        self._take_given(given)
        free = [name for name in KNOWN if name not in given]
        self._take_own_names(free)
        self.numbered = self._numbered(free)
        self.letters = self._letters(free)
        for name in free:
            if not (asked and name == "prompt"):
                self._guess(name)
        self._guess_clips([name for name in CLIPS if name not in given])
        if "image" in free and not self._has_pictures:
            self._guess_by_files()
        self.hint: str | None = None
        if is_kit_table(path, table.columns):
            self._take_kits(free)
        self._take_pairs(given)
        taken = {*self.known.values(), *self.numbered, *self.letters}
        self.others = [name for name in table.columns if name not in taken]
        self._check_misspelt(free)
        self._note_unused()

    @property
    def has_images(self) -> bool:
        """Whether a column holds images."""
        return bool(self.numbered) or any(name in self.known for name in _IMAGES)

    def check_prompts(self) -> None:
        """Refuse a table without prompts, where the user gave none either."""
        if "prompt" not in self.known:
            raise self._wrong(
                "there is no column 'prompt', and no --prompt is given",
                'Add --prompt "Describe the image.", or name the column: '
                "--set options.dataset.columns.prompt=NAME. "
                f"There are {', '.join(self._table.columns)}.",
            )

    def note(self, text: str) -> None:
        """Tell the user something about the table, once."""
        line = f"{self._path.name}: {text}."
        if line not in self.notes:
            self.notes.append(line)

    def _take_given(self, given: Mapping[ColumnName, str | None]) -> None:
        for name, column in given.items():
            if column is None:
                continue
            if column not in self._table.columns:
                raise self._wrong(
                    f"there is no column {column!r} to use as {name!r}",
                    did_you_mean(column, self._table.columns)
                    or f"There are {', '.join(self._table.columns)}.",
                )
            self.known[name] = column

    def _take_own_names(self, free: Sequence[str]) -> None:
        used = set(self.known.values())
        for name in free:
            if name in self._table.columns and name not in used:
                self.known[name] = name

    def _take_pairs(self, given: Mapping[ColumnName, str | None]) -> None:
        try:
            self.known |= pair_columns(given, self._free_columns())
        except CellError as error:
            raise self._wrong(str(error), "Pairs need both. Name the other column, too.") from error

    def _numbered(self, free: Sequence[str]) -> list[str]:
        """`image_1`, `image_2`, ...: the images, where no other column holds them."""
        if self.has_images_named or not set(_IMAGES) <= set(free):
            return []
        found = [
            column
            for column in usual.numbered(self._free_columns())
            if not all(isinstance(value, int | float) for value in self._values(column))
        ]
        if found:
            self.note(f"the columns {', '.join(map(repr, found))} are the images, in this order")
        return found

    @property
    def has_images_named(self) -> bool:
        """Whether a column holds images by its own name or by the user's choice."""
        return any(name in self.known for name in _IMAGES)

    def _letters(self, free: Sequence[str]) -> list[str]:
        """Columns `A`, `B`, ... of single choices, where no other column holds them."""
        if "choices" in self.known or "choices" not in free:
            return []
        found = usual.choice_columns(self._free_columns())
        if found:
            self.note(f"the columns {found[0]!r} to {found[-1]!r} are the choices")
        return found

    def _guess(self, name: str) -> None:
        if name in self.known or (name in _IMAGES and self.has_images):
            return
        if name == "choices" and self.letters:
            return
        found = usual.guessed(name, self._free_columns(), self._fits)
        if found is not None:
            self.known[name] = found
            if found != name:
                self.note(usual.guess_note(found, name))

    def _guess_by_files(self) -> None:
        """Take the only column whose cells are all names of image files."""
        found = [
            column for column in self._free_columns() if usual.are_pictures(self._values(column))
        ]
        if len(found) > 1:
            raise self._wrong(
                f"several columns hold images: {', '.join(map(repr, found))}",
                f"Say which to use: --set options.dataset.columns.image={found[0]}.",
            )
        if found:
            self.known["image"] = found[0]
            self.note(usual.guess_note(found[0], "image"))

    def _guess_clips(self, free: Sequence[str]) -> None:
        """Take a column of videos, or of lists of frames, where none holds images."""
        for name in free:
            if not self._has_pictures:
                self._guess(name)

    @property
    def _has_pictures(self) -> bool:
        """Whether a column holds images or videos."""
        return self.has_images or any(name in self.known for name in CLIPS)

    def _take_kits(self, free: Sequence[str]) -> None:
        """VLMEvalKit's own columns: `category` is the task, and `hint` belongs to the question."""
        if "task" in free and "task" not in self.known and "category" in self._free_columns():
            self.known["task"] = "category"
            self.note(usual.guess_note("category", "task"))
        if "hint" in self._free_columns() and self._values("hint"):
            self.hint = "hint"
            self.note("the cells of 'hint' stand before the questions")

    def _fits(self, name: str, column: str) -> bool:
        """Whether a column with a usual name holds what it should; empty ones fit nothing."""
        values = self._values(column)
        if not values:
            return False
        if name == "id":
            cells = [row.cells.get(column) for row in self._table.rows]
            texts = {str(cell) for cell in cells}
            return len(texts) == len(cells) and all(isinstance(c, str | int) and c for c in cells)
        if name in _HELD:
            return all(isinstance(value, _HELD[name]) for value in values)
        if name in CLIPS:
            return self._holds_clips(name, column, values)
        if name in _IMAGES:
            return not usual.is_vague(column) or usual.are_pictures(values)
        return True

    def _holds_clips(self, name: str, column: str, values: Sequence[Any]) -> bool:
        """Whether a column holds names of videos, or lists of their frames."""
        if name == "video":
            stored = all(isinstance(value, Stored) for value in values)
            return usual.are_videos(values) or (stored and not usual.is_vague(column))
        listed = any(isinstance(row.cells.get(column), list) for row in self._table.rows)
        written = [items_in(value) for value in values]
        items = [i for value, own in zip(values, written, strict=True) for i in own or [value]]
        return (listed or any(written)) and usual.are_pictures(items)

    def _free_columns(self) -> list[str]:
        used = set(self.known.values())
        return [name for name in self._table.columns if name not in used]

    def _values(self, column: str) -> list[Any]:
        """Some of a column's cells that are not empty; the items of lists."""
        cells = (row.cells.get(column) for row in self._table.rows[:_LOOKED_AT])
        items = [i for cell in cells for i in (cell if isinstance(cell, list) else [cell])]
        return [item for item in items if item is not None and item != ""]

    def _check_misspelt(self, free: Sequence[str]) -> None:
        """Refuse columns such as `promt`, which would pass as attributes unnoticed."""
        missing = [name for name in free if name not in self.known]
        if self.has_images:
            missing = [name for name in missing if not name.startswith("image")]
        for column in (name for name in self.others if name not in KNOWN):
            close = [name for name in missing if _alike(column.casefold(), name)]
            if close:
                raise self._wrong(
                    f"the column {column!r} looks like {close[0]!r}",
                    f"Rename it, or --set options.dataset.columns.{close[0]}={column}.",
                )

    def _note_unused(self) -> None:
        unused = {}
        for column in self.others:
            values = self._values(column)
            kind = usual.looks_like(column, values, images_taken=self.has_images)
            if kind is not None and values:
                unused[column] = kind
        if unused:
            self.note(usual.unused_note(unused).rstrip("."))

    def _wrong(self, what: str, hint: str) -> ManifestError:
        return ManifestError(f"{self._path}: {what}.", subject=str(self._path), hint=hint)


def _alike(column: str, name: str) -> bool:
    """Whether a column is a known one, but for capitals or a slip of the pen."""
    word = column.isalpha() and len(name) > 2
    return column == name or (word and SequenceMatcher(None, column, name).ratio() >= 0.8)
