"""Removing components one after the other, in each step the one whose removal does most."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from vlmlens_plugins.analysis._statistics import generator
from vlmlens_plugins.analysis._sweeps import Cell, Swept
from vlmlens_plugins.analysis._sweeps.scores import scores
from vlmlens_plugins.analysis.ablation.components import Component

Ablate = Callable[[Sequence[Cell], Sequence[int]], Swept]
"""Runs cells on the items with these numbers."""


@dataclass(frozen=True, slots=True)
class Order:
    """What was removed, in order, and what the growing sets do.

    Args:
        task: The task.
        members: The numbers of its items.
        removed: The components.
        swept: A cell for each size, `about` "size"; and random sets, with "control".
    """

    task: str
    members: Sequence[int]
    removed: Sequence[Component]
    swept: Swept


def order_of(
    task: str,
    members: Sequence[int],
    pool: Sequence[Component],
    first: int,
    *,
    steps: int,
    controls: int,
    seed: int,
    rivals: Sequence[int],
    changes: Callable[[Component], Cell],
    ablate: Ablate,
) -> Order:
    """Remove components greedily.

    Args:
        task: The task.
        members: The numbers of its items.
        pool: What may be removed.
        first: The number of the component that does most alone.
        steps: How many are removed.
        controls: How many random orders are measured beside.
        seed: Of these.
        rivals: Per item of the task, see `scores`.
        changes: The cell that removes one component.
        ablate: Runs cells.
    """
    removed = [first]
    for _ in range(steps - 1):
        left = [i for i in range(len(pool)) if i not in removed]
        swept = ablate([_together([*removed, i], pool, changes) for i in left], members)
        found = scores(swept, rivals)
        removed.append(left[int(found.changes[found.best].mean(1).argmin())])
    cells = []
    for size in range(1, steps + 1):
        about = {"size": str(size)}
        cells.append(_together(removed[:size], pool, changes, about))
        for draw in range(controls):
            others = generator(seed, "ablation-random", task, str(draw)).permutation(len(pool))
            kept = np.sort(others[:size]).tolist()
            cells.append(_together(kept, pool, changes, {**about, "control": "random"}))
    return Order(task, members, [pool[i] for i in removed], ablate(cells, members))


def passes(pool: int, steps: int, controls: int) -> int:
    """How many cells a greedy order takes, beside those of single components."""
    if not steps:
        return 0
    return sum(pool - size for size in range(1, steps)) + steps * (1 + controls)


def _together(
    numbers: Sequence[int],
    pool: Sequence[Component],
    changes: Callable[[Component], Cell],
    about: dict[str, str] | None = None,
) -> Cell:
    made = [change for i in numbers for change in changes(pool[i]).changes]
    return Cell(tuple(made), about or {})
