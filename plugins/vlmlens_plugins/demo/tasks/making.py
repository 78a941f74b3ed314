"""Every kind of task by its name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

from vlmlens_plugins.demo.tasks import correspondence, depth, odd_one_out, texture
from vlmlens_plugins.demo.tasks.canvas import on_one_canvas
from vlmlens_plugins.demo.tasks.task import Task

TASKS_VERSION: Final = 1
"""Raised whenever the same index would give another task or other pictures."""

KINDS: Final[Mapping[str, Callable[[int, int], Task]]] = {
    "depth": depth.make,
    "correspondence": correspondence.make,
    "odd-one-out": odd_one_out.make,
    "texture": texture.make,
}


def make_task(kind: str, index: int, *, seed: int = 0, canvas: bool = False) -> Task:
    """Make one task.

    Args:
        kind: One of `KINDS`.
        index: Its number, 0 or more.
        seed: Seed of the whole data set.
        canvas: Whether all its pictures stand in one.

    Raises:
        ValueError: The index is negative, or there is no such kind.
    """
    if index < 0:
        raise ValueError(f"task index is {index}; expected 0 or more")
    if kind not in KINDS:
        raise ValueError(f"kind is {kind!r}; expected one of {sorted(KINDS)}")
    made = KINDS[kind](index, seed)
    return on_one_canvas(made) if canvas else made
