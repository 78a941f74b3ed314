"""Sites by regular expression: `re:` and an expression that matches whole module paths.

A module answers to its path and to the paths that it had in older versions of its family's code,
which the renames of an adapter tell: each rename is undone. Expressions written for another
version therefore find the same modules.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import product
from typing import TYPE_CHECKING

from vlmlens.errors import SiteSyntaxError

if TYPE_CHECKING:
    from vlmlens.sites.site import Rename

PREFIX = "re:"
"""What a site pattern begins with that is a regular expression."""

_END = r"(?=\.|$)"
_TOKEN = re.compile(
    r"(?P<start>\^)|(?P<end>\$|\(\?=\\\.\|\$\))|\\?(?P<dot>\.)|(?P<text>\w+)"
    r"|\((?:(?P<unnumbered>\?:)|\?P<(?P<name>\w+)>)?"
    r"(?P<group>(?:[^()?\\\[\]]|\\.|\[[^\]]*\])*)\)(?P<maybe>\??)"
)
_WRITTEN = re.compile(r"\\(?P<number>[1-9])|\\g<(?P<name>\w+)>|(?P<text>[\w.]+)")


def paths_matching(pattern: str, paths: Iterable[str], renames: Sequence[Rename]) -> list[str]:
    r"""The module paths of which a name, of today or older, is matched from end to end.

    Args:
        pattern: `re:` and a regular expression.
        paths: Module paths of today.
        renames: What older paths became, as `SiteMap` takes them.

    Raises:
        SiteSyntaxError: It is no regular expression.

    >>> paths_matching(r"re:layers\.[01]\.mlp", ["layers.0", "layers.0.mlp", "layers.2.mlp"], [])
    ['layers.0.mlp']
    """
    text = pattern.removeprefix(PREFIX)
    try:
        expression = re.compile(text)
    except re.error as error:
        raise SiteSyntaxError(
            f"{text!r} is no regular expression: {error}.",
            subject=pattern,
            hint=r"Example: re:model\.layers\.\d+\.mlp.",
        ) from error
    return [
        path
        for path in paths
        if any(expression.fullmatch(name) for name in names_of(path, renames))
    ]


def names_of(path: str, renames: Sequence[Rename]) -> list[str]:
    r"""A module's path and what it was called before, newest first.

    >>> from vlmlens.sites.site import Rename
    >>> names_of("model.llm.norm", [Rename(r"^llm(?=\.|$)", "model.llm")])
    ['model.llm.norm', 'llm.norm']
    """
    names = {path: None}
    for rename in reversed(renames):
        undone = {old: None for name in names for old in older(name, rename)}
        names |= undone
    return list(names)


def older(name: str, rename: Rename) -> Iterator[str]:
    """The names that one rename turns into this one."""
    for inverse in inverses(rename):
        before = inverse.pattern.sub(inverse.template, name)
        if before != name and re.sub(rename.pattern, rename.replacement, before) == name:
            yield before


@dataclass(frozen=True, slots=True)
class Inverse:
    """A rename backwards: what `pattern` finds was once what `template` says."""

    pattern: re.Pattern[str]
    template: str


@lru_cache(maxsize=1024)
def inverses(rename: Rename) -> tuple[Inverse, ...]:
    """The ways to undo a rename; none where its pattern is more than names and groups of them."""
    pieces = _pieces(rename.pattern)
    written = _written(rename.replacement)
    if pieces is None or written is None:
        return ()
    groups = {piece.key: piece for piece in pieces if piece.key}
    numbered = dict(zip(map(str, range(1, len(groups) + 1)), groups, strict=True))
    written = [(kind, numbered.get(text, text)) for kind, text in written]
    kept = {text for kind, text in written if kind == "group"}
    if not kept <= set(groups):
        return ()
    choices = [_texts(piece, kept) for piece in pieces]
    return tuple(
        Inverse(_backwards(pieces, written, groups), template)
        for template in map("".join, product(*choices))
    )


@dataclass(frozen=True, slots=True)
class _Piece:
    """A part of a rename's pattern: an anchor, plain text, or a group's content."""

    kind: str
    text: str
    key: str = ""
    maybe: str = ""


def _pieces(pattern: str) -> list[_Piece] | None:
    found: list[_Piece] = []
    position = 0
    while position < len(pattern):
        match = _TOKEN.match(pattern, position)
        if match is None:
            return None
        position = match.end()
        if match["group"] is not None:
            number = f"g{sum(bool(piece.key) for piece in found) + 1}"
            key = "" if match["unnumbered"] else match["name"] or number
            found.append(_Piece("group", match["group"], key, match["maybe"]))
        else:
            kind = next(k for k in ("start", "end", "dot", "text") if match[k])
            found.append(_Piece("text" if kind == "dot" else kind, match[kind]))
    return found


def _written(replacement: str) -> list[tuple[str, str]] | None:
    """Plain texts and groups of a replacement."""
    found: list[tuple[str, str]] = []
    position = 0
    while position < len(replacement):
        match = _WRITTEN.match(replacement, position)
        if match is None:
            return None
        position = match.end()
        key = match["number"] or match["name"]
        found.append(("group", key) if key else ("text", match["text"]))
    return found


def _texts(piece: _Piece, kept: set[str]) -> list[str]:
    """What a piece of the pattern may have been, as a template."""
    if piece.kind == "text":
        return [piece.text]
    if piece.kind != "group":
        return [""]
    if piece.key in kept:
        return [rf"\g<{piece.key}>"]
    names = piece.text.replace(r"\.", ".").split("|")
    plain = all(re.fullmatch(r"[\w.]*", name) for name in names)
    return [*names, *([""] if piece.maybe else [])] if plain else []


def _backwards(
    pieces: Sequence[_Piece], written: Sequence[tuple[str, str]], groups: Mapping[str, _Piece]
) -> re.Pattern[str]:
    """What a rename writes, as an expression that finds it."""
    text = "^" if pieces[0].kind == "start" else ""
    seen: set[str] = set()
    for kind, value in written:
        if kind == "text":
            text += re.escape(value)
        else:
            group = groups[value]
            new = f"(?P<{value}>{group.text}){group.maybe}"
            text += f"(?P={value})" if value in seen else new
            seen.add(value)
    ends = [piece.text for piece in pieces if piece.kind == "end"]
    return re.compile(text + (ends[0] if ends else _END))
