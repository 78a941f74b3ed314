"""Sites by regular expression: `re:` followed by an expression that matches whole module paths.

An expression is tried on a module's path of today, and on the paths that the module had in older
versions of the family's code. The older paths come from undoing the adapter's renames. So
expressions written for an older version still find the same modules.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import product
from math import prod
from typing import TYPE_CHECKING

from vlmlens.errors import SiteSyntaxError

if TYPE_CHECKING:
    from vlmlens.sites.site import Rename

PREFIX = "re:"
"""The prefix of a site pattern that is a regular expression."""

_SECONDS = 5
_MOST_REPEATED = 10_000
_COUNT = re.compile(r"\{[\d\s,]*\}")
_LONGEST = 2000
_END = r"(?=\.|$)"
_TOKEN = re.compile(
    r"(?P<start>\^)|(?P<end>\$|\(\?=\\\.\|\$\))|\\?(?P<dot>\.)|(?P<text>\w+)"
    r"|\((?:(?P<unnumbered>\?:)|\?P<(?P<name>\w+)>)?"
    r"(?P<group>(?:[^()?\\\[\]]|\\.|\[[^\]]*\])*)\)(?P<maybe>\??)"
)
_WRITTEN = re.compile(r"\\(?P<number>[1-9])|\\g<(?P<name>\w+)>|(?P<text>[\w.]+)")


def paths_matching(pattern: str, paths: Iterable[str], renames: Sequence[Rename]) -> list[str]:
    r"""The module paths whose current name, or an older one, the expression matches completely.

    Args:
        pattern: `re:` and a regular expression.
        paths: Current module paths.
        renames: How older paths were renamed; see `SiteMap`.

    Raises:
        SiteSyntaxError: It is not a regular expression, or takes too long.

    >>> paths_matching(r"re:layers\.[01]\.mlp", ["layers.0", "layers.0.mlp", "layers.2.mlp"], [])
    ['layers.0.mlp']
    """
    matches = _matcher(pattern.removeprefix(PREFIX), pattern)
    return [path for path in paths if any(matches(name) for name in names_of(path, renames))]


def _matcher(text: str, pattern: str) -> Callable[[str], bool]:
    """Whether a user's expression matches a whole name; all names together have a time limit."""
    import regex  # as `re`, and can be given a time limit

    end = time.monotonic() + _SECONDS
    if len(text) > _LONGEST:
        raise _no_expression(pattern, f"it has more than {_LONGEST} characters")
    if prod(_most(count) for count in _COUNT.findall(text)) > _MOST_REPEATED:
        raise _no_expression(pattern, f"it repeats its parts more than {_MOST_REPEATED} times")
    try:
        expression = regex.compile(text)
    except (regex.error, RecursionError, OverflowError, MemoryError) as error:
        raise _no_expression(pattern, str(error) or type(error).__name__) from error

    def matches(name: str) -> bool:
        left = max(end - time.monotonic(), 0.001)
        try:
            return expression.fullmatch(name, timeout=left) is not None
        except (TimeoutError, MemoryError) as error:
            raise SiteSyntaxError(
                f"{text[:80]!r} takes more than {_SECONDS} seconds to compare with module paths.",
                subject=pattern,
                hint="Write it without repetitions inside repetitions, such as (.*)* or (a+)+.",
            ) from error

    return matches


def _most(count: str) -> int:
    """The largest number in `{2,5}`; at least 1."""
    return max([1, *map(int, re.findall(r"\d+", count))])


def _no_expression(pattern: str, why: str) -> SiteSyntaxError:
    return SiteSyntaxError(
        f"{pattern.removeprefix(PREFIX)[:80]!r} is not a regular expression: {why}.",
        subject=pattern,
        hint=r"Example: re:model\.layers\.\d+\.mlp.",
    )


def names_of(path: str, renames: Sequence[Rename]) -> list[str]:
    r"""A module's path and its older names, newest first.

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
    """The older names that one rename turns into this name."""
    for inverse in inverses(rename):
        before = inverse.pattern.sub(inverse.template, name)
        if before != name and re.sub(rename.pattern, rename.replacement, before) == name:
            yield before


@dataclass(frozen=True, slots=True)
class Inverse:
    """A rename in reverse: a name that `pattern` matches was called `template` before."""

    pattern: re.Pattern[str]
    template: str


@lru_cache(maxsize=1024)
def inverses(rename: Rename) -> tuple[Inverse, ...]:
    """The ways to undo a rename; empty if its pattern is more than plain names and groups."""
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
    """A part of a rename's pattern: an anchor, plain text, or the content of a group."""

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
    """The plain texts and groups in a replacement."""
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
    """The texts that a piece of the pattern can stand for, as templates."""
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
    """An expression that matches what a rename writes."""
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
