"""Site patterns: splitting them into parts, and matching names."""

from __future__ import annotations

import re
from collections.abc import Sequence

from vlmlens.errors import SiteSyntaxError

_NUMBERS = r"[0-9]{1,9}(?:-[0-9]{1,9})?(?:,[0-9]{1,9}(?:-[0-9]{1,9})?)*"
_PART = re.compile(r"\*|-[1-9][0-9]{0,8}|[0-9]{1,9}-[0-9]{1,9}|\w+|\{\w+(?:,\w+)*\}")
_BRACKETS = re.compile(r"(?<![^.])\[([0-9]{1,9}-[0-9]{1,9})\](?![^.])")
_CALL = re.compile(r"#([0-9]{1,9})\Z")
_HEADS = re.compile(rf"\.heads(?:\[(?P<which>\*|{_NUMBERS})\])?\Z")
_INPUT = ":in"


def parse_pattern(pattern: str) -> list[str]:
    """The parts of a site pattern.

    Raises:
        SiteSyntaxError: A part is empty, or is not a name, number, range, `*` or `{a,b}`.

    >>> parse_pattern("llm.block.3-7.{mlp,self_attn}")
    ['llm', 'block', '3-7', '{mlp,self_attn}']
    >>> parse_pattern("llm.block.[8-16].attn")
    ['llm', 'block', '8-16', 'attn']
    """
    parts = _BRACKETS.sub(r"\1", pattern).split(".")
    for part in parts:
        if not _PART.fullmatch(part):
            raise SiteSyntaxError(
                f"{pattern!r} is not a site: {part!r} is not a name, number, range (3-7), "
                "'*' or choice ({a,b}).",
                subject=pattern,
                hint="Examples: llm.block.14, vision.block.*, llm.block.3-7.mlp.",
            )
    return parts


def split_call(pattern: str) -> tuple[str, int | None]:
    """A pattern without its `#k`, and `k`."""
    match = _CALL.search(pattern)
    return (pattern[: match.start()], int(match[1])) if match else (pattern, None)


def split_input(pattern: str) -> tuple[str, bool]:
    """A pattern without its `:in`, and whether it had one.

    >>> split_input("llm.block.3:in")
    ('llm.block.3', True)
    """
    return pattern.removesuffix(_INPUT), pattern.endswith(_INPUT)


def split_heads(pattern: str) -> tuple[str, str | None]:
    """A pattern without `.heads` or `.heads[...]`, and which heads it names.

    Returns:
        The pattern, and "" for the heads side by side, "*" or numbers for single heads, or None
        if the pattern names no heads.

    >>> split_heads("llm.block.3.attn.heads[0-2,5]"), split_heads("llm.block.3.attn.heads")
    (('llm.block.3.attn', '0-2,5'), ('llm.block.3.attn', ''))
    """
    match = _HEADS.search(pattern)
    return (pattern[: match.start()], match["which"] or "") if match else (pattern, None)


def head_numbers(which: str, count: int) -> list[int]:
    """The numbers that `*`, `5`, `0-3` or `0-3,7` names, of `count` heads.

    >>> head_numbers("0-2,5", 8), head_numbers("*", 3)
    ([0, 1, 2, 5], [0, 1, 2])
    """
    if which == "*":
        return list(range(count))
    found: dict[int, None] = {}
    for each in which.split(","):
        low, _, high = each.partition("-")
        # A range that ends far behind the last head names one that does not exist; no more do.
        found |= dict.fromkeys(range(int(low), min(int(high or low), int(low) + count) + 1))
    return list(found)


def matching(names: Sequence[str], parts: Sequence[str]) -> list[str]:
    """The names that have as many parts as the pattern and match it part by part."""
    live = [(name, name.split(".")) for name in names]
    live = [(name, split) for name, split in live if len(split) == len(parts)]
    for depth, part in enumerate(parts):
        if re.fullmatch(r"-\d+", part):
            live = _from_end(live, depth, int(part))
        else:
            live = [item for item in live if _part_matches(part, item[1][depth])]
    return [name for name, _ in live]


def _from_end(
    live: list[tuple[str, list[str]]], depth: int, offset: int
) -> list[tuple[str, list[str]]]:
    by_head: dict[tuple[str, ...], set[int]] = {}
    for _, split in live:
        if _is_number(split[depth]):
            by_head.setdefault(tuple(split[:depth]), set()).add(int(split[depth]))
    kept = []
    for item in live:
        numbers = sorted(by_head.get(tuple(item[1][:depth]), ()))
        if len(numbers) >= -offset and item[1][depth] == str(numbers[offset]):
            kept.append(item)
    return kept


def _part_matches(part: str, name: str) -> bool:
    if part == "*":
        return True
    if part.startswith("{"):
        return name in part[1:-1].split(",")
    if "-" in part and _is_number(name):
        low, high = part.split("-")
        return int(low) <= int(name) <= int(high)
    return part == name


def _is_number(name: str) -> bool:
    return name.isascii() and name.isdecimal() and len(name) < 10
