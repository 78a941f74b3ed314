"""The dataset `table`: one sample per row of a JSON, CSV, TSV, Parquet or Excel file."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self, TypeVar

from pydantic import Field

from vlmlens.abc.dataset import Dataset
from vlmlens.abc.options import Options
from vlmlens.errors import DataNotFound, ManifestError
from vlmlens.regions import ATTRIBUTE as REGIONS
from vlmlens.regions import masks_in, with_masks
from vlmlens.sample_table import SampleTable
from vlmlens.samples import Attribute, Sample, asked, check_ids
from vlmlens.videos import Video
from vlmlens_plugins.data import _cells
from vlmlens_plugins.data._answers import Answers, CountFrom
from vlmlens_plugins.data._embedded import Stored
from vlmlens_plugins.data._kit_tables import hinted, no_image, with_options
from vlmlens_plugins.data._known_sets import looks_like
from vlmlens_plugins.data._pairs import grouped, halved, paired
from vlmlens_plugins.data._paths import InFolder, existing
from vlmlens_plugins.data._table_columns import TableColumns
from vlmlens_plugins.data._table_files import KINDS, Row, Rows, is_table, read_rows, rows_in_memory
from vlmlens_plugins.data._usual_names import ColumnName

if TYPE_CHECKING:
    from PIL.Image import Image

T = TypeVar("T")


class TableOptions(Options):
    """Options of the dataset `table`."""

    columns: dict[ColumnName, str | None] = Field(
        default_factory=dict,
        description="Column names in the table: columns.prompt=question; null: none.",
    )
    image_root: str | None = Field(
        None, description="Folder that image paths start from; default: the table's."
    )
    rows: str | None = Field(
        None, description="Name of the list that holds the rows in a JSON object."
    )
    count_from: CountFrom = Field(
        "auto", description="Where labels that are positions of choices start: 0, 1 or auto."
    )
    ask: Literal["question", "options"] = Field(
        "question",
        description="What is asked: the question, or the question with its choices by letters, "
        "which the answers then are.",
    )
    allow_outside: bool = Field(False, description="Accept files outside the table's folder.")


class Table(Dataset):
    """One sample per row.

    Columns (all optional, but for a prompt): `id`; `image`, a path read from the table's folder or
    the image itself (base64, bytes), or `images`, a list of them; `video`, a path, or `frames`, the
    list of a video's images (with their `fps`); `prompt`; `label`; `choices`, a
    list or `red|blue`; `group`; `task`; `pair` and `role`, which say that two rows are a pair.
    Where one is missing, a column of a usual name takes its place (`question` for the prompt,
    `image_path` for the image), which is noted. Every other column is an attribute. Rows without an
    id are called `row-000012`. A line with the objects `clean` and `corrupted` stands for the two
    rows of a pair. Prompts of the user's replace the table's, and nothing else: label and choices
    stay.
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
        return Path(path).is_file() and is_table(Path(path))

    def state(self) -> str | None:
        """See `Dataset.state`: the digest of the file."""
        if self._rows:
            return None
        path = self._path()
        try:
            with path.open("rb") as file:
                return f"{path} {hashlib.file_digest(file, 'sha256').hexdigest()}"
        except OSError:
            return None

    def samples(self, prompts: Sequence[str]) -> Sequence[Sample]:
        """One sample per row and prompt; no image is opened.

        Raises:
            DataNotFound: No such file, or no rows in it.
            ManifestError: It does not parse, or a cell holds a value of the wrong kind; names
                file and line.
            DuplicateSample: Two rows have the same id.
            DataError: An image lies outside the table's folder.
        """
        path = self._path()
        table = rows_in_memory(self._rows) if self._rows else read_rows(path, self.options.rows)
        table = halved(path, table)
        if not table.rows:
            raise DataNotFound(
                f"{path} has no rows.", subject=self.source, hint="Add one row per sample."
            )
        columns = TableColumns(path, table, self.options.columns, asked=bool(prompts))
        if not prompts:
            columns.check_prompts()
        samples = self._read(path, table, columns, own_prompt=not prompts)
        if self.options.ask == "options" and not prompts:
            samples = SampleTable(map(with_options, samples))
        if "pair" in columns.known:
            samples = SampleTable(grouped(samples))
        check_ids(samples.ids)
        for note in (*table.notes, looks_like(path, table)):
            if note:
                columns.note(note)
        if prompts and "prompt" in columns.known:
            columns.note(f"--prompt replaces the prompts of {columns.known['prompt']!r}")
        self.notes = columns.notes
        return SampleTable(asked(samples, prompts)) if prompts else samples

    def _read(
        self, path: Path, table: Rows, columns: TableColumns, *, own_prompt: bool
    ) -> SampleTable:
        root = path.parent if self.options.image_root is None else existing(self.options.image_root)
        anywhere = self.options.allow_outside or bool(self._rows)
        reader = _RowReader(path, columns, root, anywhere, own_prompt)
        reader.refer(table)
        both: list[tuple[str, Sequence[str]]] = []

        def read() -> Iterator[Sample]:
            for row in table.rows:
                sample = reader.sample(row)
                if sample.label is not None and sample.choices:
                    both.append((sample.label, sample.choices))
                yield sample

        samples = SampleTable(read())
        if not both:
            return samples
        answers = Answers(both, self.options.count_from)
        if answers.note:
            columns.note(f"the labels in {columns.known['label']!r} {answers.note}")
        rows = zip(table.rows, samples, strict=True)
        return SampleTable(reader.answered(row, sample, answers) for row, sample in rows)

    def _path(self) -> Path:
        if self._rows:
            return Path(self.source)
        path = existing(self.source)
        if path.is_file() and is_table(path):
            return path
        kinds = ", ".join(sorted(KINDS))
        raise DataNotFound(
            f"{self.source!r} is not a table.",
            subject=self.source,
            hint=f"Tables end in {kinds}; text may be packed (.jsonl.gz).",
        )


class _RowReader:
    """Makes samples of rows."""

    def __init__(
        self, path: Path, columns: TableColumns, root: Path, allow_outside: bool, own_prompt: bool
    ) -> None:
        self._path = path
        self._columns = columns
        self._root = root
        self._allow_outside = allow_outside
        self._own_prompt = own_prompt
        self._by_index: dict[str, tuple[Stored, ...]] = {}
        self._inside = InFolder(root)

    def refer(self, table: Rows) -> None:
        """Let an image cell name the row, by its index, that holds the image (VLMEvalKit)."""
        image = self._columns.known.get("image")
        index = next((name for name in ("index", "id") if name in table.columns), None)
        if image is None or index is None:
            return
        self._by_index = {
            str(row.cells.get(index)): held
            for row in table.rows
            if (held := _held(row.cells.get(image)))
        }

    def sample(self, row: Row) -> Sample:
        """The sample of one row, its label as it stands there."""
        images, video = self._shown(row)
        return Sample(
            id=self._cell(row, "id", _cells.text) or f"row-{row.number:06d}",
            prompt=self._prompt(row) if self._own_prompt else "",
            images=images,
            label=self._cell(row, "label", _cells.text),
            choices=self._choices(row),
            group=self._cell(row, "group", _cells.text),
            task=self._cell(row, "task", _cells.text),
            attributes=self._attributes(row) | self._pair(row),
            video=video,
        )

    def _prompt(self, row: Row) -> str:
        prompt, hint = self._cell(row, "prompt", _cells.prompt), self._columns.hint
        return prompt if hint is None else hinted(prompt, self._value(row, hint, _cells.text))

    def _attributes(self, row: Row) -> dict[str, Attribute]:
        """The other columns; paths of masks of regions are read like those of images."""
        found = {name: self._value(row, name, _cells.attribute) for name in self._columns.others}
        if masks_in(found.get(REGIONS)):
            found[REGIONS] = with_masks(
                str(found[REGIONS]), lambda path: str(self._image(row, path))
            )
        return found

    def answered(self, row: Row, sample: Sample, answers: Answers) -> Sample:
        """The sample with the text of the right choice as its label."""
        if sample.label is None or not sample.choices:
            return sample
        label = answers.chosen(sample.label, sample.choices)
        if label not in sample.choices:
            what = f"{label!r} is not one of the choices {list(sample.choices)}"
            raise self._wrong(row, self._columns.known["label"], what)
        return replace(sample, label=label)

    def _pair(self, row: Row) -> dict[str, Attribute]:
        column = self._columns.known.get("role")
        if column is None:
            return {}
        pair = self._cell(row, "pair", _cells.text)
        return self._value(row, column, lambda role: paired(pair, _cells.text(role)))

    def _choices(self, row: Row) -> tuple[str, ...]:
        if not self._columns.letters:
            return self._cell(row, "choices", _cells.choices)
        first = self._columns.letters[0]
        cells = [self._value(row, name, _cells.text) for name in self._columns.letters]
        while cells and cells[-1] is None:
            cells.pop()
        return self._value(row, first, lambda _: _cells.choices(cells or None))

    def _shown(self, row: Row) -> tuple[tuple[str | Image, ...], Video | None]:
        """Images, or the frames of a video, or a video whose frames are not chosen yet."""
        images = self._images(row)
        given = self._cell(row, "video", _cells.video)
        listed = given if isinstance(given, tuple) else ()
        frames = self._cell(row, "frames", _cells.frames) or listed
        if (given is not None and not listed) + bool(frames) + bool(images) > 1:
            column = self._columns.known.get("frames") or self._columns.known["video"]
            raise self._wrong(row, column, "the row has images, too, or a video and frames")
        if frames:
            fps = self._value(row, "fps", _cells.rate)
            return tuple(self._image(row, each) for each in frames), Video(fps=fps)
        if given is None or isinstance(given, tuple):
            return images, None
        path = given if isinstance(given, Stored) else self._path_of(row, given)
        return (), Video(str(path))

    def _images(self, row: Row) -> tuple[str | Image, ...]:
        one = self._cell(row, "image", lambda value: _cells.images(value, several=False))
        several = self._cell(row, "images", lambda value: _cells.images(value, several=True))
        if one and several:
            raise self._wrong(row, "images", "there is an image in the column 'image' too")
        numbered = [
            image
            for name in self._columns.numbered
            for image in self._value(row, name, lambda value: _cells.images(value, several=False))
        ]
        if len(one) == 1 and isinstance(one[0], str) and one[0] in self._by_index:
            return tuple(map(str, self._by_index[one[0]]))
        return tuple(self._image(row, given) for given in one or several or numbered)

    def _image(self, row: Row, given: str | Image) -> str | Image:
        if isinstance(given, Stored):
            return str(given)
        if not isinstance(given, str):
            return given
        where = self._root / given
        if wrong := no_image(given, where, held=bool(self._by_index)):
            raise self._wrong(row, self._columns.known.get("image", "image"), wrong)
        return self._path_of(row, given)

    def _path_of(self, row: Row, given: str) -> str:
        """A path from the table's folder, which it must not leave."""
        path = self._root / Path(given).expanduser()
        if "\\" in given and not path.exists():
            path = self._root / given.replace("\\", "/")
        if not self._allow_outside:
            where = f"{self._path}, {row.place}"
            self._inside.check(path, where=where, given=given)
        return str(path)

    def _cell(self, row: Row, name: str, read: Callable[[Any], T]) -> T:
        column = self._columns.known.get(name)
        return read(None) if column is None else self._value(row, column, read)

    def _value(self, row: Row, column: str, read: Callable[[Any], T]) -> T:
        try:
            return read(row.cells.get(column))
        except _cells.CellError as error:
            raise self._wrong(row, column, str(error)) from error
        except RecursionError as error:
            raise self._wrong(row, column, "it is nested too deeply") from error

    def _wrong(self, row: Row, column: str, what: str) -> ManifestError:
        where = f"{self._path}, {row.place}"
        return ManifestError(
            f"{where}: column {column!r}: {what}.", subject=where, hint="Correct the row."
        )


def _held(cell: Any) -> tuple[Stored, ...]:
    """The images that a cell holds itself: one, or a list of them; () of any other cell."""
    if isinstance(cell, str) and not isinstance(cell, Stored) and not cell.lstrip().startswith("["):
        return ()
    try:
        images = _cells.images(cell, several=False)
    except _cells.CellError:
        return ()
    return tuple(image for image in images if isinstance(image, Stored))
