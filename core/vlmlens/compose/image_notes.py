"""What to tell of images that can be read in several ways: transparent ones, several pages."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from vlmlens.compose.image_cache import Seen
from vlmlens.images import HIDDEN_COLORS, ImageRules


class ImageTally:
    """Counts the distinct images that can be read in several ways.

    Args:
        rules: How they are read.
    """

    def __init__(self, rules: ImageRules) -> None:
        self._rules = rules
        self._clear = _Distinct()
        self._several = _Distinct()
        self._most = 1
        self._deep = False

    def add(self, seen: Mapping[str | int, Seen]) -> None:
        """Count some images; one that was counted already counts no more."""
        for key, each in seen.items():
            self._deep = self._deep or each.deep
            if each.transparent:
                self._clear.add(key)
            if each.pages > 1:
                self._several.add(key)
                self._most = max(self._most, each.pages)

    def notes(self) -> Iterator[str]:
        """What is done with such images, in sentences."""
        if len(self._clear):
            shown = (
                "it is ignored"
                if self._rules.background == HIDDEN_COLORS
                else f"it becomes {self._rules.background}"
            )
            yield (
                f"{self._clear} transparency: {shown} (another color: --set background=NAME; "
                "none: ignore it)."
            )
        if len(self._several):
            most = f"up to {self._most}"
            yield f"{self._several} several pages or frames ({most}): only the first is used."

    def choices(self) -> dict[str, Any]:
        """The rules of `ImageRules` that matter to these images."""
        scaled = self._rules.bits is not None and self._deep
        return {
            **({"background": self._rules.background} if len(self._clear) else {}),
            **({"image_bits": self._rules.bits} if scaled else {}),
        }


class _Distinct:
    """A number of different images, and the name of the first one."""

    def __init__(self) -> None:
        self._first: str | int | None = None
        self._hashes: set[int] = set()

    def add(self, key: str | int) -> None:
        self._first = key if self._first is None else self._first
        self._hashes.add(hash(key))

    def __len__(self) -> int:
        return len(self._hashes)

    def __str__(self) -> str:
        more = "" if len(self) == 1 else ", ..."
        named = f" ({self._first}{more})" if isinstance(self._first, str) else ""
        return f"1 image{named} has" if len(self) == 1 else f"{len(self)} images{named} have"
