"""Site patterns: their parts, and which names they match."""

from __future__ import annotations

import re
from collections.abc import Sequence

from vlmlens.errors import SiteSyntaxError

_PART = re.compile(r"\*|-[1-9][0-9]{0,8}|[0-9]{1,9}-[0-9]{1,9}|\w+|\{\w+(?:,\w+)*\}")


_CALL = re.compile(r"#([0-9]{1,9})\Z")


def parse_pattern(pattern: str) -> list[str]:
    """The parts of a site pattern.

    Raises:
        SiteSyntaxError: A part is empty or is no name, number, range, `*` or `{a,b}`.

    >>> parse_pattern("llm.block.3-7.{mlp,self_attn}")
    ['llm', 'block', '3-7', '{mlp,self_attn}']
    """
    parts = pattern.split(".")
    for part in parts:
        if not _PART.fullmatch(part):
            raise SiteSyntaxError(
                f"{pattern!r} is not a site: {part!r} is no name, number, range (3-7), "
                "'*' or choice ({a,b}).",
                subject=pattern,
                hint="Examples: llm.block.14, vision.block.*, llm.block.3-7.mlp.",
            )
    return parts


def split_call(pattern: str) -> tuple[str, int | None]:
    """A pattern without its `#k`, and k."""
    match = _CALL.search(pattern)
    return (pattern[: match.start()], int(match[1])) if match else (pattern, None)


def matching(names: Sequence[str], parts: Sequence[str]) -> list[str]:
    """The names of as many parts as the pattern has, which match it part by part."""
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
