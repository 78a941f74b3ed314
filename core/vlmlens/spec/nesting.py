"""Limits of what a run file or a `--set` may hold, before anything walks through it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from vlmlens.errors import SpecError

DEEPEST = 50
"""Mappings and lists inside each other."""

LARGEST = 1_000_000
"""Values, with those that YAML's aliases repeat."""


def check_nesting(value: Any, where: str) -> None:
    """Raise an error for values that are nested too deeply, hold themselves, or are too many.

    Args:
        value: What YAML gave.
        where: What holds it, for the message.

    Raises:
        SpecError: They are.
    """
    if _size(value, {}, DEEPEST) > LARGEST:
        raise too_deep(where)


def too_deep(where: str) -> SpecError:
    """The error for values that no run needs."""
    return SpecError(
        f"{where} is nested more than {DEEPEST} deep, or repeats its parts too often.",
        subject=where,
        hint="Write the settings plainly: no run needs more than a few levels.",
    )


def _size(value: Any, known: dict[tuple[int, int], int], left: int) -> int:
    """How many values there are; more than `LARGEST` where they are nested too deeply."""
    if not isinstance(value, Mapping | list | tuple):
        return 1
    if left == 0:
        return LARGEST + 1
    key = (id(value), left)
    if key not in known:
        inner = value.values() if isinstance(value, Mapping) else value
        known[key] = 1 + sum(_size(each, known, left - 1) for each in inner)
    return known[key]
