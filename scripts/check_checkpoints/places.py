"""Where a checkpoint lies in a folder laid out as on the Hub, how large it is, and its digest."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from math import prod
from pathlib import Path
from typing import Any

from vlmlens.errors import DataNotFound

TINY = "vlmlens-tiny.json"
"""The file that says that a folder is a tiny copy."""

_WEIGHTS = (".safetensors", ".bin", ".pt", ".pth")
_MAIN = {".safetensors": "model", ".bin": "pytorch_model"}
_FULL = 0.5
_SMALLEST = 0.05
_LONGEST_HEADER = 100 * 2**20
_WHOLE_FILE, _SLICE, _SLICES = 64 * 2**20, 2**20, 16


@dataclass(frozen=True)
class Place:
    """A checkpoint's folder.

    Args:
        folder: It has `config.json` (or `params.json`) and the weights.
        revision: Its commit, if it lies in a cache of the Hub.
    """

    folder: Path
    revision: str | None = None

    @cached_property
    def bytes(self) -> int:
        """The size of its weights, in bytes."""
        return sum(path.stat().st_size for path in self._weights())

    @cached_property
    def parameters(self) -> int:
        """The number of its parameters: from headers of safetensors; other files: 2 bytes each."""
        return sum(_parameters(path) for path in self._weights())

    @property
    def has_config(self) -> bool:
        """Whether it has a config."""
        return any((self.folder / name).is_file() for name in ("config.json", "params.json"))

    @property
    def lacking(self) -> str:
        """Which files of weights its index names and are not there, in words; "" if none."""
        names = {path.name for path in self.folder.iterdir() if path.is_file()}
        for kind, main in _MAIN.items():
            index = f"{main}{kind}.index.json"
            named = _named(self.folder / index) if index in names else set()
            if named and any(name.endswith(kind) for name in names):
                there = len(named & names)
                short = f"{there} of the {len(named)} files of weights that {index} names"
                return "" if there == len(named) else short
        return ""

    def is_full(self, billions: float | None) -> bool:
        """Whether it can be the full checkpoint: no tiny copy, and about as large as it should be.

        Args:
            billions: The listed number of parameters, in billions; None: it is not known.
        """
        if (self.folder / TINY).exists():
            return False
        expected = _SMALLEST if billions is None else billions * _FULL
        return self.parameters >= expected * 1e9

    def digest(self) -> str:
        """A digest of its files: names, sizes and content; of files above 64 MiB, 16 slices."""
        found = hashlib.sha256()
        for path in sorted(_files(self.folder)):
            name = path.relative_to(self.folder).as_posix()
            found.update(json.dumps([name, path.stat().st_size]).encode())
            found.update(_content(path))
        return found.hexdigest()[:32]

    def _weights(self) -> list[Path]:
        """The files with weights that are loaded: of several formats and copies, one."""
        there = {path.name: path for path in self.folder.iterdir() if path.is_file()}
        for kind in _WEIGHTS:
            found = [path for name, path in there.items() if name.endswith(kind)]
            named = _named(there.get(f"{_MAIN[kind]}{kind}.index.json")) if kind in _MAIN else set()
            main = there.get(f"{_MAIN[kind]}{kind}") if kind in _MAIN else None
            if named:
                return [path for path in found if path.name in named]
            if found:
                return [main] if main is not None else found
        return []


def find(models: Path, checkpoint: str) -> Place | None:
    """The place of a checkpoint; None if it is not there.

    Args:
        models: A folder with `ORG/NAME/`, or `models--ORG--NAME/snapshots/REV` as in the Hub's
            cache. Of several revisions, it is the one of the branch `main`; else the newest.
        checkpoint: Its id, `ORG/NAME`.
    """
    plain = models / checkpoint
    if plain.is_dir() and any(plain.iterdir()):
        return Place(plain)
    cached = models / f"models--{checkpoint.replace('/', '--')}"
    snapshots = cached / "snapshots"
    if not snapshots.is_dir():
        return None
    found = [path for path in snapshots.iterdir() if path.is_dir()]
    main = cached / "refs/main"
    named = main.read_text(errors="replace").strip() if main.is_file() else ""
    for path in found:
        if path.name == named:
            return Place(path, named)
    newest = max(found, key=lambda path: path.stat().st_mtime, default=None)
    return None if newest is None else Place(newest, newest.name)


def models_folder(given: str | None) -> Path:
    """The folder with checkpoints: the given one, else the Hub's cache.

    Raises:
        DataNotFound: There is no such folder.
    """
    home = os.environ.get("HF_HOME", "~/.cache/huggingface")
    path = Path(given or os.environ.get("HF_HUB_CACHE", f"{home}/hub")).expanduser()
    if path.is_dir():
        return path.resolve()
    raise DataNotFound(
        f"There is no folder {str(path)!r} with checkpoints.",
        subject=str(path),
        hint="Give one with --models: it holds ORG/NAME/ or models--ORG--NAME/ folders.",
    )


def _named(index: Path | None) -> set[str]:
    """The names of the files in an index of weights; empty if there is none, or it is damaged."""
    if index is None:
        return set()
    try:
        return set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
    except (ValueError, RecursionError, KeyError, AttributeError, TypeError):
        return set()


def _files(folder: Path) -> Iterator[Path]:
    for path in folder.rglob("*"):
        if path.is_file() and not any(p.startswith(".") for p in path.relative_to(folder).parts):
            yield path


def _parameters(path: Path) -> int:
    if path.suffix != _WEIGHTS[0]:
        return path.stat().st_size // 2
    return sum(
        prod(about["shape"]) for name, about in _header(path).items() if name != "__metadata__"
    )


def _header(path: Path) -> dict[str, Any]:
    """The header of a safetensors file; empty if it is damaged, which loading will tell."""
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        text = file.read(length) if length <= _LONGEST_HEADER else b""
    try:
        found = json.loads(text)
        usable = all("shape" in v for k, v in found.items() if k != "__metadata__")
    except (ValueError, RecursionError, AttributeError, TypeError):
        return {}
    return dict(found) if usable else {}


def _content(path: Path) -> bytes:
    size = path.stat().st_size
    with path.open("rb") as file:
        if size <= _WHOLE_FILE:
            return hashlib.sha256(file.read()).digest()
        digest = hashlib.sha256()
        for i in range(_SLICES):
            file.seek((size - _SLICE) * i // (_SLICES - 1))
            digest.update(file.read(_SLICE))
    return digest.digest()
