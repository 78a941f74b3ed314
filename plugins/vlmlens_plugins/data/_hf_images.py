"""Image cells of the package `datasets` as files: embedded ones are written to the cache."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from vlmlens_plugins.data._cells import CellError
from vlmlens_plugins.data._embedded import Stored, stored, taken_out
from vlmlens_plugins.data._paths import check_inside, existing


class ImageFiles:
    """Turns image cells into paths.

    Args:
        source: The dataset, for messages.
        root: Folder from which relative paths are read; None: where the user is.
        allow_outside: Accept paths that leave it.
    """

    def __init__(self, source: str, root: str | None, allow_outside: bool) -> None:
        self._source = source
        self._root = existing(root) if root is not None else None
        self._allow_outside = allow_outside

    def paths(self, value: Any, where: str) -> tuple[str, ...]:
        """The files of a cell: one image, a list of them, or none.

        Raises:
            CellError: It holds something else.
            DataError: A path leads out of the image folder.
        """
        items = taken_out(value if isinstance(value, list) else [value])
        lost = [i for i, item in enumerate(items, start=1) if item is None or item == ""]
        if lost and len(lost) < len(items):
            raise CellError(f"image {lost[0]} of {len(items)} is missing")
        return () if lost else tuple(self._path(item, where) for item in items)

    def _path(self, item: Any, where: str) -> str:
        if isinstance(item, Stored):
            return str(item)
        if isinstance(item, bytes):
            return str(stored(item))
        if not isinstance(item, str) or not item.strip() or "\0" in item:
            raise CellError(f"expected an image or a path, got {type(item).__name__}")
        if "://" in item:
            raise CellError(f"{item!r} is an address; download the image first")
        return self._joined(item.strip(), where)

    def _joined(self, given: str, where: str) -> str:
        if self._root is None:
            return str(Path(given).expanduser().absolute())
        path = self._root / given
        if not self._allow_outside:
            check_inside(path, self._root, where=f"{self._source}, {where}", given=given)
        return str(path)
