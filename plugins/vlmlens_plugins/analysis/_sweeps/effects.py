"""Effects of cells with intervals and tests; groups of samples are the units of both."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from vlmlens.statistics import holm
from vlmlens_plugins.analysis._statistics import bootstrap_weights, generator, interval
from vlmlens_plugins.analysis._sweeps.swept import Swept

Floats = npt.NDArray[np.float64]
_FLIPS = 9999
_PER_CELL = 40
"""So many flips per cell let a corrected p-value fall below 5 %."""
_AT_ONCE = 4096
ALPHA = 0.05
"""The level of tests."""


@dataclass(frozen=True, slots=True)
class Effects:
    """One number per cell, with its interval and its test against the control.

    Args:
        value: float64 `[cells]`: the ratio of the means over samples.
        low: float64 `[cells]`, lower end of the 95 % bootstrap interval; `high` likewise.
        control: float64 `[cells]`: the same of the control; NaN where there is none.
        p: float64 `[cells]`: two-sided, of no difference to the control (or to 0 where there is
            none), corrected for the number of cells by Holm (1979).
        per_item: float64 `[cells, items]`: the numerators.
        groups: How many groups of samples are behind each number.
    """

    value: Floats
    low: Floats
    high: Floats
    control: Floats
    p: Floats
    per_item: Floats
    groups: int


def too_few(task: str, groups: int, cells: int) -> str:
    """A warning that no effect can be significant with so few groups; "" if it can.

    Of n groups, the smallest two-sided p-value is 2 / 2^n, before correction for all cells.

    Args:
        task: The task.
        groups: How many groups of samples there are.
        cells: How many effects are tested.

    >>> too_few("color", 6, 30)
    'color: 6 groups of samples are too few for any of 30 effects to be significant; 11 are needed.'
    """
    needed = 1 + math.ceil(math.log2(cells / ALPHA))
    if groups >= needed:
        return ""
    few = "1 group of samples is" if groups == 1 else f"{groups} groups of samples are"
    each = "the effect" if cells == 1 else f"any of {cells} effects"
    return f"{task}: {few} too few for {each} to be significant; {needed} are needed."


def effects(
    changes: Floats,
    scale: Floats,
    groups: Sequence[str],
    *,
    controls: Sequence[Floats | None],
    seed: int,
    draws: int,
) -> Effects:
    """Ratios of means, with intervals and tests.

    The ratio of the means over samples is stable where single denominators are small; the mean of
    ratios is not. Intervals resample groups (percentile bootstrap, Efron 1979). The test flips the
    signs of the groups' differences between cell and control at random, with 9,999 draws; more
    where there are so many cells that the correction needs them.

    Args:
        changes: `[cells, items]`: what each cell changed in each item.
        scale: `[items]`: what 1 means: the ratio is mean(changes) / mean(scale).
        groups: Per item, its group.
        controls: Per cell, `[draws of the control, items]`: what the control changed; or None.
        seed: Of the resampling.
        draws: Bootstrap resamples.
    """
    numbers = {name: i for i, name in enumerate(dict.fromkeys(groups))}
    member = np.zeros((len(groups), len(numbers)))
    member[np.arange(len(groups)), [numbers[name] for name in groups]] = 1
    top, bottom = changes @ member, scale @ member  # [cells, groups], [groups]
    rng = generator(seed, "effects")
    weights = bootstrap_weights(len(numbers), draws, rng)
    with np.errstate(divide="ignore", invalid="ignore"):
        drawn = (weights @ top.T) / (weights @ bottom)[:, None]
    low, high = interval(drawn)
    means = np.stack([_mean(one, changes.shape[1]) for one in controls])
    differences = np.where(np.isnan(means), changes, changes - means) @ member
    flips = max(_FLIPS, _PER_CELL * len(changes))
    raw = sign_flip_p(differences, generator(seed, "signs"), flips)
    return Effects(
        value=top.sum(1) / bottom.sum(),
        low=low,
        high=high,
        control=means.sum(1) / scale.sum(),
        p=holm(raw),
        per_item=changes,
        groups=len(numbers),
    )


def sign_flip_p(differences: Floats, rng: np.random.Generator, flips: int = _FLIPS) -> Floats:
    """Two-sided p-values of a mean of 0, by flipping signs at random.

    R. A. Fisher's randomisation test for paired data; (1 + reached) / (1 + flips), after Phipson
    and Smyth (2010). A row of zeros has p = 1.

    Args:
        differences: `[cells, groups]`.
        rng: Of the flips, which are the same for all cells.
        flips: How many.
    """
    signs = rng.choice(np.array([-1.0, 1.0]), size=(flips, differences.shape[1]))
    observed = np.abs(differences.sum(1))
    slack = 1e-12 * np.abs(differences).sum(1)
    reached = np.zeros(len(differences))
    for start in range(0, flips, _AT_ONCE):
        null = np.abs(signs[start : start + _AT_ONCE] @ differences.T)
        reached += (null >= observed - slack).sum(0)
    found: Floats = (1 + reached) / (1 + flips)
    return found


def control_changes(swept: Swept, changes: Floats, names: Sequence[str]) -> list[Floats | None]:
    """Per cell that is no control, what its control changed: `[draws, items]`, or None.

    A control is a cell whose `about` has an entry "control" and else the same entries.

    Args:
        swept: The sweep, controls included.
        changes: `[cells, items]`, of all its cells.
        names: The entries by which a cell and its control belong together.
    """
    drawn: dict[tuple[str, ...], list[int]] = {}
    for number, cell in enumerate(swept.cells):
        if "control" in cell.about:
            key = tuple(cell.about.get(name, "") for name in names)
            drawn.setdefault(key, []).append(number)
    found: list[Floats | None] = []
    for cell in swept.cells:
        if "control" not in cell.about:
            rows = drawn.get(tuple(cell.about.get(name, "") for name in names))
            found.append(None if rows is None else changes[rows])
    return found


def without_controls(swept: Swept) -> list[int]:
    """The numbers of the cells that are no controls."""
    return [i for i, cell in enumerate(swept.cells) if "control" not in cell.about]


def _mean(control: Floats | None, items: int) -> Floats:
    return np.full(items, np.nan) if control is None else control.mean(0)
