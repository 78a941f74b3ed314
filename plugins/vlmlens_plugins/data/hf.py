"""The dataset `hf`: what the package `datasets` loads, from the hub or from disk."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field

from vlmlens.abc.dataset import Dataset
from vlmlens.abc.options import Options
from vlmlens.errors import DataNotFound, ManifestError
from vlmlens.samples import Attribute, Sample, check_unique, with_prompts
from vlmlens.videos import Video
from vlmlens_plugins.data import _cells
from vlmlens_plugins.data._answers import Answers, CountFrom
from vlmlens_plugins.data._hf_columns import Columns
from vlmlens_plugins.data._hf_images import ImageFiles
from vlmlens_plugins.data._hf_loading import load, split_source
from vlmlens_plugins.data._pairs import grouped, paired
from vlmlens_plugins.data._usual_names import ColumnName

if TYPE_CHECKING:
    from datasets import Dataset as HubTable

_ROWS_AT_ONCE = 64
_ON_DISK = ("dataset_dict.json", "state.json")


class HubOptions(Options):
    """Options of the dataset `hf`."""

    columns: dict[ColumnName, str | None] = Field(
        default_factory=dict,
        description="Column names in the data: columns.prompt=question; null: none.",
    )
    image_root: str | None = Field(
        None, description="Folder that paths in the image column start from."
    )
    subset: str | None = Field(None, description="Configuration, if the dataset has several.")
    revision: str | None = Field(None, description="Branch, tag or commit on the hub.")
    count_from: CountFrom = Field(
        "auto", description="Where labels that are positions of choices start: 0, 1 or auto."
    )
    allow_outside: bool = Field(False, description="Accept files outside their folder.")


class HubDataset(Dataset):
    """One sample per row of a dataset of the package `datasets`.

    The source is `ORG/NAME` or `ORG/NAME:SPLIT` on the hub, or the path of a folder that
    `save_to_disk` wrote, of a folder that `load_dataset` reads, or of a Parquet, JSON, CSV or
    Arrow file. The columns are those of `table`; where one is missing, a column of a usual name
    takes its place (`question` for the prompt, `answer` for the label), which is reported. Class
    numbers become names. Embedded images are written to vlmlens' cache folder as they are, named
    by their content.
    """

    Options: ClassVar[type[Options]] = HubOptions
    options: HubOptions

    @classmethod
    def reads(cls, path: str) -> bool:
        """Whether `save_to_disk` wrote that folder."""
        return any((Path(path) / name).is_file() for name in _ON_DISK)

    def samples(self, prompts: Sequence[str]) -> list[Sample]:
        """One sample per row and prompt; no image is decoded.

        Raises:
            DataNotFound: No such dataset, split or rows.
            ManifestError: A column is missing, or a cell holds a value of the wrong kind.
            DuplicateSample: Two rows have the same id.
            DataError: An image lies outside its folder.
        """
        path, split = split_source(self.source)
        table = load(self.source, path, split, self.options.subset, self.options.revision)
        if not len(table):
            raise DataNotFound(
                f"{self.source} has no rows.", subject=self.source, hint="Choose another split."
            )
        columns = Columns(self.source, table.features, self.options.columns, asked=bool(prompts))
        if not prompts:
            columns.check_prompt()
        samples = _Reader(self, columns, own_prompt=not prompts).samples(table)
        check_unique(samples)
        if prompts and "prompt" in columns.known:
            columns.note(f"--prompt replaces the prompts of {columns.known['prompt']!r}")
        self.notes = columns.notes
        return with_prompts(samples, prompts)


class _Reader:
    """Makes samples of rows."""

    def __init__(self, data: HubDataset, columns: Columns, *, own_prompt: bool) -> None:
        self._source = data.source
        self._columns = columns
        self._own_prompt = own_prompt
        self._count_from = data.options.count_from
        self._files = ImageFiles(data.source, data.options.image_root, data.options.allow_outside)

    def samples(self, table: HubTable) -> list[Sample]:
        """All samples; rows are read a few at a time, with nothing decoded."""
        found: list[Sample] = []
        for block in table.with_format("arrow").iter(_ROWS_AT_ONCE):
            for cells in block.to_pylist():
                found.append(self._sample(len(found) + 1, cells))
        answered = self._answered(found)
        return list(grouped(answered)) if "pair" in self._columns.known else answered

    def _answered(self, samples: list[Sample]) -> list[Sample]:
        """The samples with the text of the right choice as their label."""
        both = [(s.label, s.choices) for s in samples if s.label is not None and s.choices]
        answers = Answers(both, self._count_from)
        if both and answers.note:
            self._columns.note(f"the labels in {self._columns.known['label']!r} {answers.note}")
        return [self._chosen(i, sample, answers) for i, sample in enumerate(samples, start=1)]

    def _chosen(self, number: int, sample: Sample, answers: Answers) -> Sample:
        if sample.label is None or not sample.choices:
            return sample
        label = answers.chosen(sample.label, sample.choices)
        if label not in sample.choices:
            what = f"{label!r} is not one of the choices {list(sample.choices)}"
            raise self._wrong(f"row {number}", "label", what)
        return replace(sample, label=label)

    def _sample(self, number: int, cells: dict[str, Any]) -> Sample:
        where = f"row {number}"
        choices = self._cell(where, cells, "choices", _cells.choices)
        label = self._cell(where, cells, "label", self._columns.label)
        prompt = self._cell(where, cells, "prompt", _cells.prompt) if self._own_prompt else ""
        images, video = self._shown(where, cells)
        return Sample(
            id=self._cell(where, cells, "id", _cells.text) or f"row-{number:06d}",
            prompt=prompt,
            images=images,
            label=label,
            choices=choices or (),
            group=self._cell(where, cells, "group", _cells.text),
            task=self._cell(where, cells, "task", _cells.text),
            attributes=MappingProxyType(
                {
                    name: self._value(where, name, cells[name], _cells.attribute)
                    for name in self._columns.others
                }
                | self._pair(where, cells)
            ),
            video=video,
        )

    def _pair(self, where: str, cells: dict[str, Any]) -> dict[str, Attribute]:
        if "role" not in self._columns.known:
            return {}
        pair = self._cell(where, cells, "pair", _cells.text)
        known = self._cell(where, cells, "role", lambda role: paired(pair, _cells.text(role)))
        return dict(known)

    def _shown(self, where: str, cells: dict[str, Any]) -> tuple[tuple[str, ...], Video | None]:
        """Images, or the frames of a video, or a video whose frames are not chosen yet."""
        images = self._images(where, cells)
        files = self._cell(where, cells, "video", lambda value: self._files.paths(value, where))
        frames = self._cell(where, cells, "frames", lambda value: self._files.paths(value, where))
        if bool(images) + bool(files) + bool(frames) > 1:
            raise self._wrong(where, "video", "the row has images, too, or a video and frames")
        listed = isinstance(cells.get(self._columns.known.get("video", "")), list)
        if frames or (files and listed):
            fps = self._value(where, "fps", cells.get("fps"), _cells.rate)
            return frames or files, Video(fps=fps)
        return (images, None) if not files else ((), Video(files[0]))

    def _images(self, where: str, cells: dict[str, Any]) -> tuple[str, ...]:
        one = self._cell(where, cells, "image", lambda value: self._files.paths(value, where))
        several = self._cell(where, cells, "images", lambda value: self._files.paths(value, where))
        return (one or ()) + (several or ())

    def _cell(self, where: str, cells: dict[str, Any], name: str, read: Any) -> Any:
        column = self._columns.known.get(name)
        return None if column is None else self._value(where, column, cells[column], read)

    def _value(self, where: str, column: str, value: Any, read: Any) -> Any:
        try:
            return read(value)
        except _cells.CellError as error:
            raise self._wrong(where, column, str(error)) from error

    def _wrong(self, where: str, column: str, what: str) -> ManifestError:
        return ManifestError(
            f"{self._source}, {where}: column {column!r}: {what}.",
            subject=f"{self._source}, {where}",
            hint="Read another column: --set options.dataset.columns.NAME=COLUMN (null: none).",
        )
