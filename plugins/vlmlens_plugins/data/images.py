"""The dataset `images`: every image (or video) file of a folder, with its metadata file."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import ClassVar, Literal

from pydantic import Field

from vlmlens.abc.dataset import Dataset
from vlmlens.abc.options import Options
from vlmlens.errors import DataError, DataNotFound
from vlmlens.images import HEIF, SUFFIXES, has_heif
from vlmlens.samples import Sample, check_unique, with_prompts
from vlmlens.video_files import is_video
from vlmlens.videos import Video
from vlmlens_plugins.data._answers import CountFrom
from vlmlens_plugins.data._paths import check_inside, existing
from vlmlens_plugins.data._usual_names import ColumnName
from vlmlens_plugins.data.table import Table, TableOptions

METADATA = ("metadata.csv", "metadata.jsonl", "metadata.parquet")
"""Tables beside images, as an ImageFolder of the package `datasets` has them."""

_NUMBERED = re.compile(r"row-\d+")
_UNTOLD = ("thumbs.db", "desktop.ini")
_MOST_KINDS = 6

RUN_FILES = ("run.json",)
"""Files by which a run folder is told from a folder of images."""


class ImageFolderOptions(Options):
    """Options of the dataset `images`."""

    labels: Literal["auto", "folders", "none"] = Field(
        "auto",
        description="folders: an image's label is its first-level sub-folder; "
        "auto: likewise, where every image lies in one; none: no labels.",
    )
    recursive: bool = Field(True, description="Look into sub-folders.")
    metadata: bool = Field(
        True, description="Read metadata.csv, .jsonl or .parquet: prompts, labels and attributes."
    )
    columns: dict[ColumnName, str | None] = Field(
        default_factory=dict,
        description="Column names in the metadata file: columns.prompt=question; null: none.",
    )
    count_from: CountFrom = Field(
        "auto", description="Where labels that are positions of choices start: 0, 1 or auto."
    )
    allow_outside: bool = Field(False, description="Follow links to outside the folder.")


class ImageFolder(Dataset):
    """Every image file of a folder, or one image file; of a folder without images, every video.

    A sample's id is the file's path in the folder, suffix included (`defect/007.png`), and its
    group is the image. Order is natural (`2.png` before `10.png`). Hidden files are left out; of
    other files that are no images, the number and kinds are noted.

    A `metadata.csv`, `.jsonl` or `.parquet` in the folder (or several in sub-folders) is a table
    with the column `file_name`, a path from its own folder: then a sample is one of its rows.
    """

    Options: ClassVar[type[Options]] = ImageFolderOptions
    options: ImageFolderOptions

    @classmethod
    def reads(cls, path: str) -> bool:
        """Whether it is an image or a video, or a folder with such files that is no run."""
        place = Path(path)
        if place.is_file():
            return _is_shown(place.name)
        if not place.is_dir() or any((place / name).exists() for name in RUN_FILES):
            return False
        return any(_is_shown(name) for name in _walk(place, recursive=True))

    def samples(self, prompts: Sequence[str]) -> list[Sample]:
        """One sample per image and prompt; no image is opened.

        Raises:
            DataNotFound: No such folder, or no image in it.
            DataError: No prompt, a link that leads out of the folder, or, with
                `labels: folders`, an image outside all sub-folders.
        """
        root, names, tables = self._found()
        if tables:
            return with_prompts(self._described(root, names, tables, bool(prompts)), prompts)
        if not prompts:
            raise DataError(
                f"The images of {self.source!r} come without a question.",
                subject=self.source,
                hint='Add one: --prompt "Describe the image.".',
            )
        labels = self._labels(names)
        images = [_sample(root, name, label) for name, label in zip(names, labels, strict=True)]
        return with_prompts(images, prompts)

    def _found(self) -> tuple[Path, list[str], list[str]]:
        """The folder, and the paths of images and of metadata files in it, in order."""
        path = existing(self.source)
        if path.is_file() and _is_shown(path.name):
            return path.parent, [path.name], []
        files = sorted(_walk(path, recursive=self.options.recursive), key=natural_key)
        tables = [name for name in files if self._is_metadata(name)]
        names = [name for name in files if _can_open(name)]
        if not any(map(_is_image, files)):
            names = [name for name in files if is_video(name)]
        left = [name for name in files if name not in {*names, *tables}]
        if not names:
            raise self._empty(left)
        if left:
            self._note(f"{_files(len(left))} left out, not read as images: {_kinds(left)}")
        for name in names:
            self._check(path, name)
        return path, names, tables

    def _is_metadata(self, name: str) -> bool:
        return self.options.metadata and PurePosixPath(name).name.lower() in METADATA

    def _described(
        self, root: Path, names: Sequence[str], tables: Sequence[str], asked: bool
    ) -> list[Sample]:
        """The samples of metadata files; images without a row are noted."""
        several = len(tables) > 1
        found = [sample for name in tables for sample in self._rows_of(root, name, asked, several)]
        check_unique(found)
        told = {os.path.normpath(path) for sample in found for path in _files_of(sample)}
        untold = [name for name in names if os.path.normpath(root / name) not in told]
        if untold:
            self._note(
                f"{_files(len(untold))} left out, for example {untold[0]!r}: no row in "
                f"{' or '.join(tables)} (all images, without it: "
                "--set options.dataset.metadata=false)"
            )
        labels = dict(zip(names, self._labels(names), strict=True))
        if any(sample.label is not None for sample in found):
            return found
        return [replace(s, label=labels.get(_relative(s, root))) for s in found]

    def _rows_of(self, root: Path, name: str, asked: bool, several: bool) -> list[Sample]:
        """The samples of one metadata file, called by their image where each row has its own."""
        own = self.options
        options = TableOptions(
            columns=own.columns, count_from=own.count_from, allow_outside=own.allow_outside
        )
        table = Table(str(root / name), options)
        samples = table.samples(("?",) if asked else ())
        if not any(_files_of(sample) for sample in samples):
            raise DataError(
                f"{root / name} has no column 'file_name', so that its rows belong to no image.",
                subject=str(root / name),
                hint="Rename the column of file names, or read the images without the file: "
                "--set options.dataset.metadata=false.",
            )
        self.notes = [*self.notes, *table.notes]
        if not all(_NUMBERED.fullmatch(sample.id) for sample in samples):
            return list(samples)
        called = [_relative(sample, root) for sample in samples]
        if all(called) and len(set(called)) == len(called):
            pairs = zip(samples, called, strict=True)
            return [replace(s, id=given, group=s.group or given) for s, given in pairs]
        folder = f"{PurePosixPath(name).parent}/" if several else ""
        return [replace(sample, id=folder + sample.id) for sample in samples]

    def _note(self, text: str) -> None:
        self.notes = [*self.notes, f"{self.source}: {text}."]

    def _empty(self, left: Sequence[str]) -> DataNotFound:
        kinds = ", ".join(sorted(suffix[1:] for suffix in SUFFIXES))
        depth = "sub-folders included" if self.options.recursive else "sub-folders left out"
        beside = f" There are {_kinds(left)}." if left else ""
        return DataNotFound(
            f"No image in {self.source!r}, {depth}: looked for {kinds}.{beside}",
            subject=self.source,
            hint="Name a folder that holds image files, or a table of samples.",
        )

    def _check(self, root: Path, name: str) -> None:
        try:
            name.encode()
        except UnicodeEncodeError:
            raise DataError(
                f"The file name {name!r} is no UTF-8.", subject=name, hint="Rename the file."
            ) from None
        if not self.options.allow_outside:
            check_inside(root / name, root, where=self.source, given=name)

    def _labels(self, names: Sequence[str]) -> list[str] | list[None]:
        loose = [name for name in names if "/" not in name]
        mode = self.options.labels
        if mode == "none" or (mode == "auto" and loose):
            return [None] * len(names)
        if loose:
            raise DataError(
                f"{len(loose)} images of {self.source!r} lie in no sub-folder, for example "
                f"{loose[0]!r}.",
                subject=loose[0],
                hint="Sort them into sub-folders, or --set options.dataset.labels=none.",
            )
        return [PurePosixPath(name).parts[0] for name in names]


def natural_key(name: str) -> tuple[tuple[tuple[str | int, ...], ...], str]:
    """Sorts paths folder by folder as people do, numbers by value.

    >>> sorted(["b/10.png", "b/9.png", "a.png"], key=natural_key)
    ['a.png', 'b/9.png', 'b/10.png']
    """
    parts = (re.split(r"([0-9]+)", part.casefold()) for part in name.split("/"))
    key = (
        tuple(int(piece) if i % 2 else piece for i, piece in enumerate(pieces)) for pieces in parts
    )
    return tuple(key), name


def _walk(root: Path, *, recursive: bool) -> Iterator[str]:
    """Paths of the files in a folder, relative and with `/`; linked folders once, loops never."""
    seen: set[str] = set()
    for folder, folders, files in os.walk(root, followlinks=True, onerror=_unreadable):
        real = os.path.realpath(folder)
        if real in seen:
            folders.clear()
            continue
        seen.add(real)
        folders[:] = sorted(name for name in folders if recursive and not name.startswith("."))
        here = Path(folder).relative_to(root)
        seen_here = (name for name in files if not name.startswith("."))
        yield from ((here / name).as_posix() for name in seen_here if name.lower() not in _UNTOLD)


def _unreadable(error: OSError) -> None:
    raise DataError(
        f"The folder {error.filename!r} cannot be read: {error.strerror}.",
        subject=error.filename,
        hint="Change its permissions, or name another folder.",
    ) from error


def _is_image(name: str) -> bool:
    """Whether a file is an image by its name, with or without the packages that read it."""
    path = PurePosixPath(name)
    return not path.name.startswith(".") and path.suffix.lower() in (*SUFFIXES, *HEIF)


def _can_open(name: str) -> bool:
    suffix = PurePosixPath(name).suffix.lower()
    return _is_image(name) and (suffix not in HEIF or has_heif())


def _is_shown(name: str) -> bool:
    return _is_image(name) or (is_video(name) and not PurePosixPath(name).name.startswith("."))


def _sample(root: Path, name: str, label: str | None) -> Sample:
    """The sample of an image or a video."""
    path = str(root / name)
    if is_video(name):
        return Sample(name, "", label=label, group=name, video=Video(path))
    return Sample(name, "", (path,), label, group=name)


def _files_of(sample: Sample) -> list[str]:
    """The paths of a sample's images and of its video."""
    video = [sample.video.source] if sample.video is not None and sample.video.source else []
    return [*map(str, sample.images), *video]


def _files(count: int) -> str:
    return "1 file is" if count == 1 else f"{count} files are"


def _kinds(names: Sequence[str]) -> str:
    """What files there are: `2 .heic (they need pip install vlmlens[heif]), 1 .txt`."""
    count = Counter(PurePosixPath(name).suffix.lower() or "without a suffix" for name in names)
    shown = [
        f"{n} {kind}" + (" (pip install 'vlmlens[heif]' reads it)" if kind in HEIF else "")
        for kind, n in count.most_common(_MOST_KINDS)
    ]
    rest = sum(count.values()) - sum(n for _, n in count.most_common(_MOST_KINDS))
    return ", ".join([*shown, *([f"{rest} others"] if rest else [])])


def _relative(sample: Sample, root: Path) -> str:
    """A sample's first image, or video, as a path in the folder; "" where it has none there."""
    if not _files_of(sample):
        return ""
    path = Path(os.path.normpath(_files_of(sample)[0]))
    return path.relative_to(root).as_posix() if path.is_relative_to(root) else ""
