"""Which images are captioned: a draw that is recorded, or the ids that the user lists."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path
from typing import Any

from vlmlens.errors import DataError
from vlmlens_plugins.data._paths import existing

_NAME = re.compile(r"(?:.*[/\\])?(?:COCO_\w+?_)?(\d+)(?:\.[A-Za-z]\w*)?")
_KEYS = ("image_id", "cocoid", "question_id", "image", "file_name", "filename", "id")


def drawn(ids: Collection[int], samples: int | None, seed: int) -> list[int]:
    """Some of the ids, in their order; all where `samples` is None or as many as there are.

    They are the first in the order of SHA-256 of "SEED/ID". So the draw needs no generator, and
    a smaller draw is part of a larger one.
    """
    if samples is None or samples >= len(ids):
        return sorted(ids)

    def place(one: int) -> bytes:
        return hashlib.sha256(f"{seed}/{one}".encode()).digest()

    return sorted(sorted(ids, key=place)[:samples])


def listed(path: str) -> list[int]:
    """The ids in a file: a number or a name of a file per line, JSON, or JSON lines.

    Objects say it by `image_id`, `cocoid`, `image` or `file_name`; so a file of answers or the
    questions of another project will do. The split `test` of Karpathy's `dataset_coco.json` is
    taken where the objects have a `split`.

    Raises:
        DataNotFound: There is no such file.
        DataError: It names no image, or something that is none.
    """
    file = existing(path)
    try:
        text = file.read_text(encoding="utf-8-sig")
        found = [_id(one, file) for one in _entries(text)]
    except (OSError, UnicodeError, RecursionError) as error:
        raise _no_ids(file, str(error)) from error
    if not found:
        raise _no_ids(file, "it is empty")
    return list(dict.fromkeys(found))


def draw_digest(ids: Iterable[int]) -> str:
    """The first 12 digits of the SHA-256 of the ids, one per line, by which draws are compared."""
    return hashlib.sha256("\n".join(map(str, ids)).encode()).hexdigest()[:12]


def _entries(text: str) -> Iterator[Any]:
    try:
        data = json.loads(text)
    except ValueError:
        for line in filter(None, map(str.strip, text.splitlines())):
            yield json.loads(line) if line.startswith("{") else line
        return
    rows = data if isinstance(data, list) else [data]
    if isinstance(data, dict) and isinstance(data.get("images"), list):
        rows = data["images"]
    splits = any(_split(one) == "test" for one in rows)
    yield from (one for one in rows if not splits or _split(one) == "test")


def _split(entry: Any) -> Any:
    return entry.get("split") if isinstance(entry, dict) else None


def _id(entry: Any, file: Path) -> int:
    if isinstance(entry, dict):
        entry = next((entry[key] for key in _KEYS if key in entry), None)
    match = None if isinstance(entry, bool) else _NAME.fullmatch(str(entry))
    if match is None:
        raise _no_ids(file, f"{str(entry)[:60]!r} is no id and no name of a file of COCO")
    return int(match[1])


def _no_ids(file: Path, what: str) -> DataError:
    return DataError(
        f"{file} lists no images of COCO: {what}.",
        subject=str(file),
        hint="Write an id (42) or a file name (COCO_val2014_000000000042.jpg) per line, or give "
        "JSON with image_id.",
    )
