"""Items of a list in a large JSON file, one by one, in little memory."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import IO, Any

from vlmlens.errors import ManifestError

_BLOCK = 1 << 20
_LONGEST = 1 << 28
_BLANK = " \t\r\n"
_IN_NUMBERS = frozenset("0123456789.eE+-")
_DECODER = json.JSONDecoder()


def json_items(path: Path, key: str) -> Iterator[Any]:
    """The items of the list `key` of a JSON object, or of a list that is the whole document.

    Args:
        path: Of the file.
        key: Of the list, at the outermost level.

    Raises:
        ManifestError: The file is no such JSON, or it has no such list.
    """
    with path.open(encoding="utf-8-sig") as file:
        text = _Text(path, file)
        yield from text.items() if text.skip("[") else _in_object(text, key)


def first_key(path: Path, keys: Collection[str]) -> str | None:
    """The first of some keys in the object that a JSON file holds; None where there is none.

    Raises:
        ManifestError: The file is not JSON.
    """
    with path.open(encoding="utf-8-sig") as file:
        text = _Text(path, file)
        names = text.names() if text.skip("{") else iter(())
        return next((name for name in names if name in keys), None)


def json_values(path: Path, *keys: str) -> dict[str, Any]:
    """The values of some keys of the object that a JSON file holds, as far as they are there.

    Raises:
        ManifestError: The file is not JSON.
    """
    found: dict[str, Any] = {}
    with path.open(encoding="utf-8-sig") as file:
        text = _Text(path, file)
        for name in text.names() if text.skip("{") else ():
            if name in keys:
                found[name] = text.value()
            if len(found) == len(keys):
                break
    return found


def _in_object(text: _Text, key: str) -> Iterator[Any]:
    if not text.skip("{"):
        raise text.wrong("expected an object or a list")
    found = False
    for name in text.names():
        if name == key and text.skip("["):
            found = True
            yield from text.items()
    if not found:
        raise text.wrong(f"there is no list {key!r}")


class _Text:
    """The text of a JSON file, of which only a part is held."""

    def __init__(self, path: Path, file: IO[str]) -> None:
        self._path = path
        self._file = file
        self._held = ""
        self._at = 0
        self._passed = 0

    def wrong(self, what: str) -> ManifestError:
        """An error about this file."""
        return ManifestError(
            f"{self._path}: {what}.", subject=str(self._path), hint="Give the file whole."
        )

    def skip(self, sign: str) -> bool:
        """Whether the next sign is this one; it is passed then."""
        if self._next() != sign:
            return False
        self._at += 1
        return True

    def names(self) -> Iterator[str]:
        """The keys of the object whose brace has been passed.

        After each, its value may be taken; else it is passed over.
        """
        while self._next() not in ("}", ""):
            name = self.value()
            if not isinstance(name, str) or not self.skip(":"):
                raise self.wrong("not JSON: a key is expected")
            self._next()
            before = self._passed + self._at
            yield name
            if self._passed + self._at == before:
                self._pass_over()
            self.skip(",")

    def _pass_over(self) -> None:
        """Pass the next value; the items of a list one by one."""
        if self.skip("["):
            for _ in self.items():
                pass
        else:
            self.value()

    def items(self) -> Iterator[Any]:
        """The items of a list whose bracket has been passed."""
        if self.skip("]"):
            return
        while True:
            yield self.value()
            if self.skip("]"):
                return
            if not self.skip(","):
                raise self.wrong("not JSON, or cut off: a comma is expected in a list")

    def _next(self) -> str:
        """The next sign that is no blank; "" at the end."""
        while True:
            while self._at < len(self._held):
                sign = self._held[self._at]
                if sign not in _BLANK:
                    return sign
                self._at += 1
            if not self._more():
                return ""

    def value(self) -> Any:
        """The next value."""
        self._next()
        while True:
            try:
                value, end = _DECODER.raw_decode(self._held, self._at)
            except json.JSONDecodeError as error:
                if not self._more():
                    raise self.wrong(f"not JSON, or cut off: {error.msg}") from error
                continue
            except RecursionError as error:
                raise self.wrong("not JSON: it is nested too deeply") from error
            whole = end < len(self._held) and self._held[end] not in _IN_NUMBERS
            if whole or not self._more():
                self._at = end
                return value

    def _more(self) -> bool:
        """Hold more of the file; False at its end."""
        try:
            block = self._file.read(_BLOCK)
        except UnicodeDecodeError as error:
            raise self.wrong("not UTF-8 text") from error
        if len(self._held) - self._at > _LONGEST:
            raise self.wrong(f"a value of more than {_LONGEST:,} characters")
        self._held = self._held[self._at :] + block
        self._passed += self._at
        self._at = 0
        return bool(block)
