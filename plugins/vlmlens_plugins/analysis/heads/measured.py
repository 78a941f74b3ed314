"""The numbers of one role in one condition: a score per head, its control, and who has the role."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from vlmlens.abc.model_work import JSON
from vlmlens_plugins.analysis._sweeps.effects import ALPHA, Effects, effects
from vlmlens_plugins.analysis.heads.options import HeadsOptions

Floats = npt.NDArray[np.float64]
TEXT, IMAGE = "text", "image"
"""Conditions: without an image, and with one in front."""

PREVIOUS, DUPLICATE, INDUCTION, LOOKS = "previous-token", "duplicate-token", "induction", "image"
"""Roles."""

_PATTERNS: Mapping[str, tuple[str, Sequence[tuple[str, str]]]] = {
    PREVIOUS: ("previous", [("repeated", "before")]),
    DUPLICATE: ("duplicate", [("reordered", "duplicate_place"), ("fresh", "duplicate_place")]),
    INDUCTION: ("induction", [("reordered", "induction_place"), ("fresh", "induction_place")]),
}
"""By role, its pattern in repeated sequences, and its controls: an order, and a pattern in it."""

Head = tuple[str, int]
"""The block of a head, and its number."""


@dataclass(frozen=True, slots=True)
class Measured:
    """One role in one condition; all arrays are per head, block by block.

    Args:
        condition: `TEXT` or `IMAGE`.
        role: The role.
        heads: The heads.
        effect: Scores with intervals, controls and p-values; `per_item` holds single sequences.
        above: float64: score less control.
        has: bool: who has the role.
        may: bool: whose interval does not exclude it.
        groups: How many sequences or groups of samples.
    """

    condition: str
    role: str
    heads: Sequence[Head]
    effect: Effects
    above: Floats
    has: npt.NDArray[np.bool_]
    may: npt.NDArray[np.bool_]
    groups: int

    @property
    def best_first(self) -> list[int]:
        """The numbers of the heads that have the role, by score."""
        order = np.argsort(-self.effect.value, kind="stable")
        return [int(i) for i in order if self.has[i]]


def needed(heads: int) -> int:
    """How many sequences let a single head be significant among all.

    The smallest two-sided p-value of n sequences is 2 / 2^n. Two more than that needs keep the
    draws of the test from deciding.

    >>> needed(24), needed(144), needed(1024)
    (12, 15, 18)
    """
    return 3 + math.ceil(math.log2(heads / ALPHA))


def by_head(results: Sequence[Mapping[str, JSON]], name: str) -> Floats:
    """float64 `[heads, units]`: a score of model work, NaN where it has none."""
    flat = [[score for module in one[name] for score in module] for one in results]
    return np.array(flat, dtype=np.float64).T


def of_sequences(
    condition: str,
    results: Mapping[str, Sequence[Mapping[str, JSON]]],
    heads: Sequence[Head],
    options: HeadsOptions,
    seed: int,
) -> list[Measured]:
    """The roles that random sequences tell.

    Args:
        condition: `TEXT` or `IMAGE`.
        results: Of `SequenceScores`, by order of the tokens.
        heads: All heads.
        options: The analysis's options.
        seed: Of resampling.
    """
    found = []
    for role, (pattern, controls) in _PATTERNS.items():
        scores = by_head(results["repeated"], pattern)
        beside = _higher([by_head(results[order], name) for order, name in controls])
        groups = [str(number) for number in range(scores.shape[1])]
        found.append(_measured(condition, role, heads, (scores, beside), groups, options, seed))
    return found


def of_images(
    results: Sequence[Mapping[str, JSON]],
    heads: Sequence[Head],
    groups: Sequence[str],
    options: HeadsOptions,
    seed: int,
) -> Measured:
    """Who looks at the image; the control is the mean over all heads.

    Args:
        results: Of `ImageShares`.
        heads: All heads.
        groups: Per sample, its group.
        options: The analysis's options.
        seed: Of resampling.
    """
    scores = by_head(results, "rest")
    mean = np.broadcast_to(scores.mean(0), scores.shape)
    return _measured(IMAGE, LOOKS, heads, (scores, mean), groups, options, seed)


def copying(results: Sequence[Mapping[str, JSON]]) -> Floats:
    """float64 `[heads]`: the mean copying score; NaN where a head raises nothing."""
    scores = by_head(results, "copying")
    known = ~np.isnan(scores)
    with np.errstate(invalid="ignore"):
        mean: Floats = np.where(known, scores, 0).sum(1) / known.sum(1)
    return mean


def _measured(
    condition: str,
    role: str,
    heads: Sequence[Head],
    scores: tuple[Floats, Floats],
    groups: Sequence[str],
    options: HeadsOptions,
    seed: int,
) -> Measured:
    own, control = scores
    effect = effects(
        own,
        np.ones(own.shape[1]),
        groups,
        controls=[each[None] for each in control],
        seed=seed,
        draws=options.draws,
    )
    above = effect.value - effect.control
    has = (above >= options.threshold) & (effect.p <= ALPHA)
    may = effect.high - effect.control >= options.threshold
    return Measured(condition, role, heads, effect, above, has, may, effect.groups)


def _higher(controls: Sequence[Floats]) -> Floats:
    """For each head, the control whose mean is the highest."""
    best = np.argmax([each.mean(1) for each in controls], 0)
    return np.stack([controls[which][head] for head, which in enumerate(best)])
