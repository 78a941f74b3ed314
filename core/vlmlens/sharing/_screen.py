"""Texts without what must not leave this machine: credentials, its paths, pictures in base64."""

from __future__ import annotations

import html
import json
import os
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

from vlmlens._clean import SECRET_WORD, redacted, without_tokens
from vlmlens._files import cache_folder, state_folder

HIDDEN = "***"
NO_PICTURE = "(picture left out)"

_SECRET_NAME = re.compile(r"(?:^|_)(?:TOKEN|KEY|PASS|PWD|AUTH|PAT)$", re.IGNORECASE)
_SHORTEST_SECRET = 12
_HEADS = "|".join(
    [
        "iVBORw0KGgo", "[/_]9j[/_]", "R0lGOD[dl]", "UklGR", "SUkqA", "TU0AK",
        "AAAA[A-Za-z0-9+/_-]{2}Z0eX[A-D]",
    ]
)  # fmt: skip
"""How PNG, JPEG, GIF, WebP, TIFF, and the family of MP4, HEIC and AVIF begin in base64."""
_PICTURE = re.compile(
    rf"(?:data:(?:image|video)/[\w.+-]{{1,40}};base64,|(?<![A-Za-z0-9+/_-])(?:{_HEADS}))"
    r"(?:[A-Za-z0-9+/_-]{20,}\s?)+[A-Za-z0-9+/_-]*={0,2}"
    r"|(?:89504e470d0a1a0a|ffd8ffe[0-9a-f])[0-9a-f]{40,}",
    re.ASCII,
)
_PATH = re.compile(r"(?<![\w/.~<\])}>*-])~?/(?:[^\s/'\"`,;:()\[\]{}<>|=]+/)+(?=[^\s/])")
_WHOLE_PATH = re.compile(r"\A~?/(?:[^/\s]+/)+(?=[^/\s]+\Z)")


class Screen:
    """Takes out of texts what is of this machine or user, and counts what it found.

    Args:
        folders: Folders of this machine whose names are taken out, beside the user's home, cache
            and working folder.
        secrets: Texts that must not leave this machine.
        relative: Paths that settings name from the working folder; their last part stays.
    """

    def __init__(
        self,
        folders: Iterable[str] = (),
        secrets: Iterable[str] = (),
        relative: Iterable[str] = (),
    ) -> None:
        known = {os.path.normpath(each) for each in (*folders, *_own_folders()) if each}
        named = sorted((each for each in known if each.count("/") > 0), key=len, reverse=True)
        inner = "|".join(re.escape(each) for each in named if each.strip("/"))
        self._folders = re.compile(
            rf"(?:file://)?(?<![\w.])(?:{inner})(?:/+|(?![\w.-]))" if inner else r"(?!)"
        )
        before = "|".join(
            rf"{re.escape(folder)}/+(?={re.escape(name)}(?![\w-]))"
            for folder, _, name in (each.rstrip("/").rpartition("/") for each in relative)
            if folder
        )
        self._relative = re.compile(rf"(?<![\w./-])(?:\./)?(?:{before})" if before else r"(?!)")
        written = {form for each in secrets if each for form in _forms(each)}
        self._secrets = sorted(written, key=len, reverse=True)
        self.found: Counter[str] = Counter()
        """How many texts held a "credential", "path" or "picture"."""

    def data(self, text: str) -> str:
        """A text of the data or of the model: only what is surely not part of it is taken out."""
        return self._changed(text, without_tokens, _WHOLE_PATH)

    def words(self, text: str) -> str:
        """A text of settings or of messages: all that looks like a credential or a path goes."""
        return self._changed(text, redacted, _PATH)

    def every(self, value: Any, *, words: bool = False) -> Any:
        """JSON-ready data with all texts in it screened, names of mappings too."""
        if isinstance(value, str):
            return self.words(value) if words else self.data(value)
        if isinstance(value, Mapping):
            return {
                self.every(key, words=words): self.every(item, words=words)
                for key, item in value.items()
            }
        if isinstance(value, list | tuple):
            return [self.every(item, words=words) for item in value]
        return value

    def place(self, text: str) -> str:
        """A path or a URI of this machine as its last part; another text as `words`."""
        if text.startswith(("/", "~", "./", "../")) or "://" in text:
            text = text.rstrip("/").rpartition("/")[2]
        return self.words(text)

    def holds(self, text: bytes) -> bool:
        """Whether a file's content holds one of the secrets."""
        return any(each.encode() in text for each in self._secrets)

    def _changed(self, text: str, hide: Any, path: re.Pattern[str]) -> str:
        shown = text
        for secret in self._secrets:
            shown = shown.replace(secret, HIDDEN)
        shown = hide(shown)
        self.found["credential"] += shown != text
        if len(shown) > _SHORTEST_SECRET:
            before = shown
            shown = _PICTURE.sub(NO_PICTURE, shown)
            self.found["picture"] += shown != before
        if "/" in shown:
            before = shown
            shown = path.sub("", self._relative.sub("", self._folders.sub("", shown)))
            self.found["path"] += shown != before
        return shown


def secrets_here(token: str | None) -> list[str]:
    """The user's token of the hub, and values of environment variables that are named as secrets.

    Args:
        token: The token of the hub, if there is one.
    """
    named = [
        value.strip()
        for name, value in os.environ.items()
        if (SECRET_WORD.search(name) or _SECRET_NAME.search(name)) and not os.path.isabs(value)  # noqa: PTH117 - a text
    ]
    return [each for each in (token or "", *named) if len(each) >= _SHORTEST_SECRET]


def _forms(secret: str) -> set[str]:
    """A secret as JSON, JSON in JSON, HTML and an address write it, too."""
    found = {secret, html.escape(secret), quote(secret, safe="")}
    for _ in range(2):
        found |= {
            json.dumps(each, ensure_ascii=way)[1:-1] for each in found for way in (True, False)
        }
    return found


def _own_folders() -> list[str]:
    try:
        home = str(Path.home())
    except RuntimeError:
        home = ""
    return [
        home,
        os.path.realpath(home) if home else "",
        str(Path.cwd()),
        str(cache_folder()),
        str(state_folder()),
    ]
