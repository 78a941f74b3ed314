"""Reading the files of a tuned folder: bounded, without torch, and never outside the folder."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from vlmlens.errors import CheckpointError, SpecError
from vlmlens.spec.nesting import check_nesting

_LARGEST_JSON = 8 * 2**20
_PIECE = 2**20


def read_object(path: Path) -> dict[str, Any]:
    """The object in a JSON file.

    Raises:
        CheckpointError: The file is too large, no JSON, nested too deeply, or holds no object.
    """
    try:
        if path.stat().st_size > _LARGEST_JSON:
            raise ValueError(f"it has more than {_LARGEST_JSON // 2**20} MiB")
        found = json.loads(path.read_text(encoding="utf-8"))
        check_nesting(found, path.name)
    except (OSError, ValueError, RecursionError, SpecError) as error:
        raise _unreadable(path, " ".join(str(error).split())[:200]) from error
    if not isinstance(found, dict):
        raise _unreadable(path, "it holds no object")
    return found


def shapes_in(path: Path) -> dict[str, tuple[int, ...]]:
    """The shapes of the tensors in a safetensors file, by name; no tensor is read.

    Raises:
        CheckpointError: The file is damaged, or of another kind.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(str(path), framework="np") as opened:
            return {name: tuple(opened.get_slice(name).get_shape()) for name in opened.keys()}  # noqa: SIM118
    except (SafetensorError, OSError, ValueError) as error:
        raise _unreadable(path, " ".join(str(error).split())[:200]) from error


def digest_of(paths: Iterable[Path]) -> str:
    """SHA-256 over names and contents of files, as hexadecimal text."""
    digest = hashlib.sha256()
    for path in sorted(paths):
        digest.update(json.dumps([path.name, path.stat().st_size]).encode())
        with path.open("rb") as file:
            while piece := file.read(_PIECE):
                digest.update(piece)
    return digest.hexdigest()


def check_inside(folder: Path, paths: Iterable[Path]) -> None:
    """Check that files of a folder are files, and no links to elsewhere.

    In the cache of the hub, files are links to the `blobs` of the same repository.

    Raises:
        CheckpointError: One is not, or cannot be read.
    """
    root = folder.resolve()
    roots = [root, root.parent.parent / "blobs"] if root.parent.name == "snapshots" else [root]
    for path in paths:
        there = path.resolve()
        if not any(there.is_relative_to(each) for each in roots):
            raise CheckpointError(
                f"{str(path)!r} is a link to {str(there)!r}, outside its folder.",
                subject=str(path),
                hint="Copy the file itself into the folder.",
            )
        if not there.is_file():
            raise _unreadable(path, "it is no file")


def _unreadable(path: Path, why: str) -> CheckpointError:
    return CheckpointError(
        f"{str(path)!r} cannot be read: {why}.",
        subject=str(path),
        hint="It is damaged, incomplete or of another kind: copy or save it again.",
    )
