"""What edits do to the answers that are followed: changes per cell and item, and rows of tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from vlmlens.results import Cell as TableCell
from vlmlens_plugins.analysis._sweeps.effects import Effects, effects
from vlmlens_plugins.analysis._sweeps.swept import Swept

Floats = npt.NDArray[np.float64]

PERCENT: Final = "change"
LOGP: Final = "log_probability"
DIFFERENCE: Final = "logit_difference"

NAMES: Final = {
    PERCENT: "change of the answer's probability in %",
    LOGP: "change of its log-probability in nats",
    DIFFERENCE: "change of the logit difference",
}


@dataclass(frozen=True, slots=True)
class Scores:
    """What each cell changes in each item.

    Args:
        changes: By metric, float64 `[cells, items]`.
        scale: By metric, float64 `[items]`: what 1 means.
        flipped: float64 `[cells, items]`: 1 where another of the answers is the most probable one
            than without edits; of a single answer, another token.
        divergence: float64 `[cells, items]`: KL(without edits || with), in nats.
    """

    changes: dict[str, Floats]
    scale: dict[str, Floats]
    flipped: Floats
    divergence: Floats

    def of(self, items: Sequence[int]) -> Scores:
        """The scores of some items."""
        return Scores(
            {name: values[:, items] for name, values in self.changes.items()},
            {name: values[items] for name, values in self.scale.items()},
            self.flipped[:, items],
            self.divergence[:, items],
        )

    @property
    def best(self) -> str:
        """The metric that saturates least: the logit difference where all items have one."""
        return DIFFERENCE if DIFFERENCE in self.changes else LOGP


def scores(swept: Swept, rivals: Sequence[int]) -> Scores:
    """The scores of a sweep.

    Args:
        swept: The sweep.
        rivals: Per item, the answer that the label is compared to; 0: none. The logit difference
            is known where all have one.
    """
    base = swept.probability("base")[0]
    one = np.ones(len(swept.items))
    changes = {
        PERCENT: 100 * (swept.probability() - base),
        LOGP: swept.log_probability() - swept.log_probability("base"),
    }
    scale = {PERCENT: base, LOGP: one}
    if all(rivals):
        changes[DIFFERENCE] = _margins(swept, rivals, "edited") - _margins(swept, rivals, "base")
        scale[DIFFERENCE] = one
    flipped = np.array([[_flipped(one) for one in row] for row in swept.results], np.float64)
    return Scores(changes, scale, flipped, swept.divergence("base"))


def tested(
    found: Scores,
    groups: Sequence[str],
    controls: dict[str, list[Floats | None]],
    *,
    seed: int,
    draws: int,
) -> dict[str, Effects]:
    """By metric, effects with intervals and tests.

    Args:
        found: Of the cells that are no controls.
        groups: Per item, its group.
        controls: By metric, see `effects`.
        seed: Of the resampling.
        draws: Bootstrap resamples.
    """
    return {
        name: effects(
            values, found.scale[name], groups, controls=controls[name], seed=seed, draws=draws
        )
        for name, values in found.changes.items()
    }


def row_of(
    measured: dict[str, Effects], found: Scores, cell: int, metric: str
) -> dict[str, TableCell]:
    """A cell's numbers.

    Args:
        measured: From `tested`.
        found: The same scores.
        cell: The number of the cell.
        metric: The one whose control and test stand in the row.
    """
    row: dict[str, TableCell] = {}
    for name in (PERCENT, LOGP, DIFFERENCE):
        one = measured.get(name)
        for end, values in (("", "value"), ("_low", "low"), ("_high", "high")):
            row[f"{name}{end}"] = None if one is None else number(getattr(one, values)[cell])
    row["flipped"] = float(found.flipped[cell].mean())
    row["divergence"] = float(found.divergence[cell].mean())
    row["control"] = number(measured[metric].control[cell])
    row["p"] = number(measured[metric].p[cell])
    return row


def number(value: float) -> float | None:
    """A number for a table; None for NaN."""
    return float(value) if np.isfinite(value) else None


def _margins(swept: Swept, rivals: Sequence[int], which: str) -> Floats:
    """float64 `[cells, items]`: the label's logit less that of its rival."""
    return np.array(
        [
            [
                one[which]["logit"][0] - one[which]["logit"][k]
                for one, k in zip(row, rivals, strict=True)
            ]
            for row in swept.results
        ],
        np.float64,
    )


def _flipped(one: Mapping[str, Any]) -> bool:
    """Whether another answer is the most probable one now; of a single answer, another token."""
    edited, base = one["edited"]["logit"], one["base"]["logit"]
    if len(edited) > 1:
        return bool(edited.index(max(edited)) != base.index(max(base)))
    return bool(one["edited"]["top"] != one["base"]["top"])
