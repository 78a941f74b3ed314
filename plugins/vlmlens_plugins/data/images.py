"""The dataset `images`: every image file of a folder."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import ClassVar, Literal

from pydantic import Field

from vlmlens.abc.dataset import Dataset
from vlmlens.abc.options import Options
from vlmlens.errors import DataError, DataNotFound
from vlmlens.samples import Sample, with_prompts
from vlmlens_plugins.data._paths import check_inside, existing

SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff"})
"""Suffixes of image files, in lower case."""

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
    allow_outside: bool = Field(False, description="Follow links to outside the folder.")


class ImageFolder(Dataset):
    """Every image file of a folder, or one image file.

    A sample's id is the file's path in the folder, suffix included (`defect/007.png`), and its
    group is the image. Order is natural (`2.png` before `10.png`). Hidden files are left out.
    """

    Options: ClassVar[type[Options]] = ImageFolderOptions
    options: ImageFolderOptions

    @classmethod
    def reads(cls, path: str) -> bool:
        """Whether it is an image file, or a folder with image files that is no run."""
        place = Path(path)
        if place.is_file():
            return _is_image(place.name)
        if not place.is_dir() or any((place / name).exists() for name in RUN_FILES):
            return False
        return next(_walk(place, recursive=True), None) is not None

    def samples(self, prompts: Sequence[str]) -> list[Sample]:
        """One sample per image and prompt; no image is opened.

        Raises:
            DataNotFound: No such folder, or no image in it.
            DataError: No prompt, a link that leads out of the folder, or, with
                `labels: folders`, an image outside all sub-folders.
        """
        root, names = self._found()
        if not prompts:
            raise DataError(
                f"The images of {self.source!r} come without a question.",
                subject=self.source,
                hint='Add one: --prompt "Describe the image.".',
            )
        labels = self._labels(names)
        images = [
            Sample(id=name, prompt="", images=(str(root / name),), label=label, group=name)
            for name, label in zip(names, labels, strict=True)
        ]
        return with_prompts(images, prompts)

    def _found(self) -> tuple[Path, list[str]]:
        """The folder, and the image paths in it, in order."""
        path = existing(self.source)
        if path.is_file() and _is_image(path.name):
            return path.parent, [path.name]
        names = sorted(_walk(path, recursive=self.options.recursive), key=natural_key)
        if not names:
            raise self._empty()
        for name in names:
            self._check(path, name)
        return path, names

    def _empty(self) -> DataNotFound:
        kinds = ", ".join(sorted(suffix[1:] for suffix in SUFFIXES))
        depth = "sub-folders included" if self.options.recursive else "sub-folders left out"
        return DataNotFound(
            f"No image in {self.source!r}: looked for {kinds} ({depth}).",
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
    """Paths of the images in a folder, relative and with `/`; linked folders once, loops never."""
    seen: set[str] = set()
    for folder, folders, files in os.walk(root, followlinks=True, onerror=_unreadable):
        real = os.path.realpath(folder)
        if real in seen:
            folders.clear()
            continue
        seen.add(real)
        folders[:] = sorted(name for name in folders if recursive and not name.startswith("."))
        here = Path(folder).relative_to(root)
        yield from ((here / name).as_posix() for name in files if _is_image(name))


def _unreadable(error: OSError) -> None:
    raise DataError(
        f"The folder {error.filename!r} cannot be read: {error.strerror}.",
        subject=error.filename,
        hint="Change its permissions, or name another folder.",
    ) from error


def _is_image(name: str) -> bool:
    return not name.startswith(".") and Path(name).suffix.lower() in SUFFIXES
