"""Where an SAE lies: a folder, or one file in it. Nothing is read from anywhere else."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vlmlens._files import expanded
from vlmlens.errors import DataError, DataNotFound

_LARGEST_CONFIG = 1 << 24


@dataclass(frozen=True, slots=True)
class Place:
    """A folder with the files of one SAE, and the file that holds its weights if it was named.

    Args:
        given: The path as the user gave it.
        folder: The folder.
        weights: The name of the file in it that the user named; "" for a folder.
    """

    given: str
    folder: Path
    weights: str = ""

    @classmethod
    def at(cls, path: str | Path) -> Place:
        """The place of a path.

        Raises:
            DataNotFound: There is neither a folder nor a file.
        """
        found = expanded(path)
        try:
            folder, there = found.is_dir(), found.exists()
        except OSError:  # a name that is too long, a folder that must not be looked into
            folder = there = False
        if not there:
            raise DataNotFound(
                f"There is no file or folder {str(path)!r}.",
                subject=str(path),
                hint="Name a folder with an SAE, or the file of its weights. Those of the hub are "
                "downloaded first: hf download NAME --local-dir FOLDER.",
            )
        return cls(str(path), found) if folder else cls(str(path), found.parent, found.name)

    def has(self, name: str) -> bool:
        """Whether the folder has this file."""
        return (self.folder / name).exists()

    def file(self, name: str) -> Path:
        """A file of the folder.

        Raises:
            DataError: There is none, it is no file, or it is a link to somewhere else.
        """
        path = self.folder / name
        if not path.is_file():
            raise self.refused(f"it has no file {name!r}")
        if not self._is_own(path):
            raise self.refused(f"{name!r} is a link that leaves the folder")
        return path

    def record(self, name: str) -> dict[str, Any]:
        """The JSON object in a file.

        Raises:
            DataError: The file holds something else, or is too large for a configuration.
        """
        path = self.file(name)
        if path.stat().st_size > _LARGEST_CONFIG:
            raise self.refused(f"{name!r} is too large for a configuration")
        return self.object_in(path.read_bytes(), name)

    def object_in(self, text: bytes, name: str) -> dict[str, Any]:
        """The JSON object that a text is.

        Raises:
            DataError: It is something else.
        """
        try:
            found = json.loads(text)
        except (ValueError, RecursionError) as error:
            reason = "nested too deeply" if isinstance(error, RecursionError) else "no JSON"
            raise self.refused(f"{name!r} is {reason}") from error
        if not isinstance(found, dict):
            raise self.refused(f"{name!r} holds a {type(found).__name__}, not an object")
        return found

    def refused(self, reason: str, hint: str = "") -> DataError:
        """The error that says why this is not read."""
        return DataError(
            f"{self.given!r} cannot be read as an SAE: {reason}.",
            subject=self.given,
            hint=hint or "The file is damaged, or of another format.",
        )

    def _is_own(self, path: Path) -> bool:
        """Whether a file lies in the folder, or in the cache of the hub that the folder is in."""
        folder, real = self.folder.resolve(), path.resolve()
        shelves = [each.parent / "blobs" for each in folder.parents if each.name == "snapshots"]
        return any(real.is_relative_to(each) for each in (folder, *shelves))


@dataclass(frozen=True, slots=True)
class Config:
    """A configuration of another tool, whose values are checked when they are asked for.

    Args:
        place: Where it was read.
        values: What it holds.
    """

    place: Place
    values: Mapping[str, Any]

    def part(self, name: str) -> Config:
        """A configuration inside this one; an empty one if there is none.

        Raises:
            DataError: The value is something else.
        """
        found = self.values.get(name)
        if found is None:
            return Config(self.place, {})
        if not isinstance(found, dict):
            raise self._wrong(name, "an object")
        return Config(self.place, found)

    def whole(self, name: str, default: int | None = None) -> int:
        """A whole number of 1 or more.

        Raises:
            DataError: The value is something else, or missing without a default.
        """
        found = self.values.get(name, default)
        if isinstance(found, float) and found.is_integer():
            found = int(found)
        if isinstance(found, bool) or not isinstance(found, int) or found < 1:
            raise self._wrong(name, "a whole number of 1 or more")
        return found

    def flag(self, name: str, default: bool = False) -> bool:
        """True or false.

        Raises:
            DataError: The value is something else.
        """
        found = self.values.get(name)
        if found is not None and not isinstance(found, bool):
            raise self._wrong(name, "true or false")
        return default if found is None else found

    def text(self, name: str, default: str = "") -> str:
        """A text.

        Raises:
            DataError: The value is something else.
        """
        found = self.values.get(name)
        if found is not None and not isinstance(found, str):
            raise self._wrong(name, "a text")
        return default if found is None else found

    def said(self, *names: str) -> dict[str, Any]:
        """Those of the values that are plain and given, to be kept with the SAE."""
        plain = (str, int, float, bool)
        return {
            name: self.values[name] for name in names if isinstance(self.values.get(name), plain)
        }

    def must_be(self, name: str, found: int, default: int | None = None) -> None:
        """Refuse a configuration whose number is not that of the tensors.

        Raises:
            DataError: They differ.
        """
        said = self.whole(name, default)
        if said != found:
            raise self.place.refused(
                f"its configuration says {name} = {said}, its tensors say {found}"
            )

    def must_expand(self, name: str, inputs: int, features: int, default: int | None) -> None:
        """Refuse a configuration whose factor does not make the features of the inputs.

        Raises:
            DataError: It does not.
        """
        if self.whole(name, default) * inputs != features:
            raise self.place.refused(
                f"its configuration says {name} = {self.whole(name, default)}, its tensors have "
                f"{features} features for {inputs} inputs"
            )

    def _wrong(self, name: str, expected: str) -> DataError:
        found = repr(self.values.get(name))
        shown = found if len(found) <= 60 else found[:59] + "…"
        return self.place.refused(f"its configuration has {name} = {shown}, expected {expected}")
