"""The dataset `table`: one sample per row of a JSONL, CSV, TSV or Parquet file."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from difflib import SequenceMatcher
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self, TypeVar, get_args

from pydantic import Field

from vlmlens.abc.dataset import Dataset
from vlmlens.abc.options import Options
from vlmlens.errors import DataNotFound, ManifestError, did_you_mean
from vlmlens.samples import Sample, check_unique, with_prompts
from vlmlens_plugins.data import _cells
from vlmlens_plugins.data._paths import check_inside, existing
from vlmlens_plugins.data._table_files import SUFFIXES, Row, Rows, read_rows, rows_in_memory

if TYPE_CHECKING:
    from PIL.Image import Image

ColumnName = Literal["id", "image", "images", "prompt", "label", "choices", "group", "task"]
KNOWN: tuple[str, ...] = get_args(ColumnName)
T = TypeVar("T")


class TableOptions(Options):
    """Options of the dataset `table`."""

    columns: dict[ColumnName, str] = Field(
        default_factory=dict,
        description="Column names in the table: columns.prompt=question.",
    )
    allow_outside: bool = Field(False, description="Accept images outside the table's folder.")


class Table(Dataset):
    """One sample per row.

    Columns (all optional, but for a prompt): `id`; `image`, a path read from the table's folder,
    or `images`, a list of them; `prompt`; `label`; `choices`, a list or `red|blue`; `group`;
    `task`. Every other column is an attribute. Rows without an id are called `row-000012`. A row
    with no image is a text-only sample. Prompts of the user's replace the table's, and nothing
    else: label and choices stay.
    """

    Options: ClassVar[type[Options]] = TableOptions
    options: TableOptions

    _rows: Sequence[Mapping[str, Any]] = ()

    @classmethod
    def of_rows(cls, rows: Sequence[Mapping[str, Any]], options: TableOptions) -> Self:
        """A table that is in memory already: cells by column, images as paths or Pillow images."""
        made = cls("rows in memory", options)
        made._rows = rows
        return made

    @classmethod
    def reads(cls, path: str) -> bool:
        """Whether it is a file with a table's suffix."""
        return Path(path).is_file() and Path(path).suffix.lower() in SUFFIXES

    def samples(self, prompts: Sequence[str]) -> list[Sample]:
        """One sample per row and prompt; no image is opened.

        Raises:
            DataNotFound: No such file, or no rows in it.
            ManifestError: It does not parse, or a cell holds a value of the wrong kind; names
                file and line.
            DuplicateSample: Two rows have the same id.
            DataError: An image lies outside the table's folder.
        """
        path = self._path()
        table = rows_in_memory(self._rows) if self._rows else read_rows(path)
        if not table.rows:
            raise DataNotFound(
                f"{path} has no rows.", subject=self.source, hint="Add one row per sample."
            )
        names = _Names(path, table, self.options.columns)
        if not prompts:
            names.check_prompts()
        anywhere = self.options.allow_outside or bool(self._rows)
        reader = _RowReader(path, names, anywhere, own_prompt=not prompts)
        samples = [reader.sample(row) for row in table.rows]
        check_unique(samples)
        return with_prompts(samples, prompts)

    def _path(self) -> Path:
        if self._rows:
            return Path(self.source)
        path = existing(self.source)
        if path.is_file() and path.suffix.lower() in SUFFIXES:
            return path
        kinds = ", ".join(sorted(SUFFIXES))
        raise DataNotFound(
            f"{self.source!r} is not a table.", subject=self.source, hint=f"Tables end in {kinds}."
        )


class _Names:
    """What the table calls each known column."""

    def __init__(self, path: Path, table: Rows, renamed: dict[ColumnName, str]) -> None:
        self._path = path
        self._columns = table.columns
        self._renamed: dict[str, str] = dict(renamed)  # type: ignore[arg-type]
        self._check_renamed()
        used = set(self._renamed.values())
        self.known = {name: name for name in KNOWN if name in table.columns and name not in used}
        self.known |= self._renamed
        self.others = [name for name in table.columns if name not in self.known.values()]
        self._check_misspelt()

    def check_prompts(self) -> None:
        """Refuse a table without prompts, where the user gave none either."""
        if "prompt" not in self.known:
            raise self._wrong(
                "there is no column 'prompt', and no --prompt is given",
                'Add --prompt "Describe the image.", or name the column: '
                "--set options.dataset.columns.prompt=NAME.",
            )

    def _check_renamed(self) -> None:
        for name, column in self._renamed.items():
            if column not in self._columns:
                listed = ", ".join(self._columns)
                raise self._wrong(
                    f"there is no column {column!r} to use as {name!r}",
                    did_you_mean(column, self._columns) or f"There are {listed}.",
                )

    def _check_misspelt(self) -> None:
        """Refuse columns such as `Label` or `promt`, which would pass as attributes unnoticed."""
        missing = [name for name in KNOWN if name not in self.known]
        if "image" in self.known or "images" in self.known:
            missing = [name for name in missing if not name.startswith("image")]
        for column in self.others:
            close = [name for name in missing if _alike(column.casefold(), name)]
            if close:
                raise self._wrong(
                    f"the column {column!r} looks like {close[0]!r}",
                    f"Rename it, or --set options.dataset.columns.{close[0]}={column}.",
                )

    def _wrong(self, what: str, hint: str) -> ManifestError:
        return ManifestError(f"{self._path}: {what}.", subject=str(self._path), hint=hint)


class _RowReader:
    """Makes samples of rows."""

    def __init__(self, path: Path, names: _Names, allow_outside: bool, own_prompt: bool) -> None:
        self._path = path
        self._names = names
        self._allow_outside = allow_outside
        self._own_prompt = own_prompt

    def sample(self, row: Row) -> Sample:
        """The sample of one row."""
        label = self._cell(row, "label", _cells.text)
        choices = self._cell(row, "choices", _cells.choices)
        if choices and label is not None and label not in choices:
            raise self._wrong(row, "label", f"{label!r} is not one of the choices {list(choices)}")
        return Sample(
            id=self._cell(row, "id", _cells.text) or f"row-{row.number:06d}",
            prompt=self._cell(row, "prompt", _cells.prompt) if self._own_prompt else "",
            images=self._images(row),
            label=label,
            choices=choices,
            group=self._cell(row, "group", _cells.text),
            task=self._cell(row, "task", _cells.text),
            attributes={
                name: self._value(row, name, _cells.attribute) for name in self._names.others
            },
        )

    def _images(self, row: Row) -> tuple[str | Image, ...]:
        one = self._cell(row, "image", lambda value: _cells.images(value, several=False))
        several = self._cell(row, "images", lambda value: _cells.images(value, several=True))
        if one and several:
            raise self._wrong(row, "images", "there is an image in the column 'image' too")
        return tuple(self._image(row, given) for given in one or several)

    def _image(self, row: Row, given: str | Image) -> str | Image:
        if not isinstance(given, str):
            return given
        path = self._path.parent / given
        if not self._allow_outside:
            where = f"{self._path}, {row.place}"
            check_inside(path, self._path.parent, where=where, given=given)
        return str(path)

    def _cell(self, row: Row, name: str, read: Callable[[Any], T]) -> T:
        return self._value(row, self._names.known.get(name, name), read)

    def _value(self, row: Row, column: str, read: Callable[[Any], T]) -> T:
        try:
            return read(row.cells.get(column))
        except _cells.CellError as error:
            raise self._wrong(row, column, str(error)) from error

    def _wrong(self, row: Row, column: str, what: str) -> ManifestError:
        where = f"{self._path}, {row.place}"
        return ManifestError(
            f"{where}: column {column!r}: {what}.", subject=where, hint="Correct the row."
        )


def _alike(column: str, name: str) -> bool:
    """Whether a column is a known one, but for capitals or a slip of the pen."""
    word = column.isalpha() and len(name) > 2
    return column == name or (word and SequenceMatcher(None, column, name).ratio() >= 0.8)
