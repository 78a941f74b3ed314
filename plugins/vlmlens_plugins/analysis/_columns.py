"""Choosing and ordering stored columns for an analysis."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from enum import StrEnum
from typing import Any

from vlmlens.errors import CompositionError, SelectorError, SiteError, did_you_mean
from vlmlens.sites import SiteMap
from vlmlens.sites.patterns import head_numbers, split_call, split_heads, split_input
from vlmlens.tokens import Column

_INSIDE = {"encoder": -1, "embed": 0, "block": 1, "norm": 2, "head": 3}
_SIDES = ("vision", "qformer", "projector", "llm", "text")


class Side(StrEnum):
    """On which side of the model a column lies."""

    VISION = "vision side"
    LANGUAGE = "language side"
    OTHER = "other sites"


def side_of(column: str) -> Side:
    """The side of a column, by the first part of its site's name.

    Q-Former and projector, which hand image tokens to the language model, count as vision.

    >>> side_of("projector/image.mean").value
    'vision side'
    """
    head = column.partition("/")[0].split(".")[0]
    if head not in _SIDES:
        return Side.OTHER
    return Side.LANGUAGE if head in ("llm", "text") else Side.VISION


def in_order(columns: Iterable[str]) -> list[str]:
    """Columns in the order in which a picture runs through the model: vision, projector, llm.

    >>> in_order(["llm.block.10/last", "llm.block.9/last", "projector/mean", "vision.block.0/mean"])
    ['vision.block.0/mean', 'projector/mean', 'llm.block.9/last', 'llm.block.10/last']
    """
    return sorted(columns, key=_order)


def choose(patterns: Sequence[str] | None, columns: Sequence[str]) -> list[str]:
    """The columns that patterns name, in order; all of them where there is no pattern.

    A pattern is a site pattern (`llm.block.2-5`), alone or with a selector (`llm.block.*/last`).

    Raises:
        CompositionError: A pattern names no column.
    """
    if patterns is None:
        return in_order(columns)
    chosen = {name for pattern in patterns for name in _matching(pattern, columns)}
    return in_order(chosen)


def is_ragged(column: str) -> bool:
    """Whether a column of that name has several rows per sample."""
    return Column.parse(column).selector.ragged


def short_names(columns: Sequence[str]) -> list[str]:
    """Names for an axis: without the selector where the site alone tells the columns apart."""
    sites = [name.partition("/")[0] for name in columns]
    return sites if len(set(sites)) == len(sites) else list(columns)


def _matching(pattern: str, columns: Sequence[str]) -> list[str]:
    site, _, selector = pattern.partition("/")
    by_site: dict[str, list[str]] = {}
    for name in columns:
        by_site.setdefault(name.partition("/")[0], []).append(name)
    try:
        sites = _sites_matching(site, list(by_site))
        wanted = str(Column.parse(pattern).selector) if selector else None
    except (SiteError, SelectorError) as error:
        raise CompositionError(
            f"No stored column matches {pattern!r}.", subject=pattern, hint=_hint(pattern, columns)
        ) from error
    names = [name for found in sites for name in by_site[found]]
    kept = [name for name in names if wanted is None or name.endswith(f"/{wanted}")]
    if not kept:
        raise CompositionError(
            f"No stored column matches {pattern!r}.", subject=pattern, hint=_hint(pattern, columns)
        )
    return kept


def _sites_matching(pattern: str, stored: Sequence[str]) -> list[str]:
    """The stored sites that a pattern matches."""
    wanted, heads, end = _split(pattern)
    by_module: dict[str, list[str]] = {}
    for name in stored:
        module, number, tail = _split(name)
        if tail == end and _names_heads(heads, number):
            by_module.setdefault(module, []).append(name)
    return [
        name for each in SiteMap((), by_module).resolve(wanted) for name in by_module[each.name]
    ]


def _split(site: str) -> tuple[str, str | None, str]:
    """A site's module, which of its heads, and what follows (`:in`, `#1`)."""
    whole = split_input(split_call(site)[0])[0]
    module, heads = split_heads(whole)
    return module, heads, site[len(whole) :]


def _names_heads(wanted: str | None, stored: str | None) -> bool:
    """Whether a pattern's heads (`*`, `0-3`) hold those of a stored site."""
    if not wanted or not stored or wanted == "*":
        return wanted == stored or (wanted == "*" and bool(stored))
    return int(stored) in head_numbers(wanted, int(stored) + 1)


def _hint(pattern: str, columns: Sequence[str]) -> str:
    some = ", ".join(columns[:6]) + (", ..." if len(columns) > 6 else "")
    return did_you_mean(pattern, columns) or f"Stored: {some or 'nothing'}."


def _order(column: str) -> tuple[Any, ...]:
    site, _, selector = column.partition("/")
    parts = site.split(".")
    rank = _SIDES.index(parts[0]) if parts[0] in _SIDES else len(_SIDES)
    inside = _INSIDE.get(parts[1], 1) if len(parts) > 1 else 0
    natural = [(int(text), "") if text.isdigit() else (-1, text) for text in re.split(r"\W", site)]
    return rank, inside, natural, selector
