"""What a patching sweep measured, for one task in one direction."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from vlmlens_plugins.analysis._sweeps import Swept
from vlmlens_plugins.analysis._sweeps.effects import (
    Effects,
    control_changes,
    effects,
    without_controls,
)
from vlmlens_plugins.analysis.patching.options import PatchingOptions
from vlmlens_plugins.analysis.patching.runs import moved

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Grid:
    """One task in one direction; all arrays are per place and rows, in the order of the sweep.

    Args:
        task: The task.
        direction: "denoise", "noise" or "trace".
        places: The site of each cell.
        rows: The rows of each cell.
        pairs: How many pairs or samples.
        effect: The share of the way from the run that is patched to the one the rows come from: of
            the logit difference, in tracing of the probability.
        probability: The change of the followed answer's probability, mean over samples.
        divergence: 1 - KL(source || patched) / KL(source || unpatched), of the means.
        flips: The share of samples that change to the source's answer: of the two answers, it
            becomes the more probable one; in tracing, its token the most probable of all.
        idle: The share of samples in which no logit of the answers changed.
        items: Ids of the samples that are patched, for `effect.per_item`.
        scale: `[items]`, what a whole exchange changes.
    """

    task: str
    direction: str
    places: tuple[str, ...]
    rows: tuple[str, ...]
    pairs: int
    effect: Effects
    probability: Floats
    divergence: Floats
    flips: Floats
    idle: Floats
    items: tuple[str, ...]
    scale: Floats

    def value(self, place: str, rows: str) -> float | None:
        """The effect of one cell; None if there is none."""
        for i, found in enumerate(zip(self.places, self.rows, strict=True)):
            if found == (place, rows):
                return float(self.effect.value[i])
        return None


def measure(swept: Swept, task: str, direction: str, options: PatchingOptions, seed: int) -> Grid:
    """The numbers of one task.

    Args:
        swept: The sweep over all tasks, with controls.
        task: The task.
        direction: See `Grid`.
        options: The analysis's options.
        seed: Of resampling.
    """
    own = [i for i, item in enumerate(swept.items) if item.task == task]
    changes, scale = moved(swept, direction)
    cells = without_controls(swept)
    drawn = control_changes(swept, changes[:, own], ("site", "rows"))
    found = effects(
        changes[np.ix_(cells, own)],
        scale[own],
        [swept.items[i].group for i in own],
        controls=drawn,
        seed=seed,
        draws=options.draws,
    )
    kept = swept.take(cells)
    source = 0 if direction != "noise" else 1
    followed = kept.probability(answer=source) - kept.probability("base", answer=source)
    near = kept.divergence("donor")[:, own].mean(1)
    whole = _from_base(swept)[own].mean()
    return Grid(
        task=task,
        direction=direction,
        places=tuple(cell.about["site"] for cell in kept.cells),
        rows=tuple(cell.about["rows"] for cell in kept.cells),
        pairs=len({swept.items[i].target.id for i in own}),
        effect=found,
        probability=followed[:, own].mean(1),
        divergence=1 - near / whole if whole else np.full(len(cells), np.nan),
        flips=_flips(kept, direction)[:, own].mean(1),
        idle=kept.unchanged()[:, own].mean(1),
        items=tuple(swept.items[i].target.id for i in own),
        scale=scale[own],
    )


def _flips(swept: Swept, direction: str) -> npt.NDArray[np.bool_]:
    """Bool `[cells, items]`: which samples change to the source's answer."""
    if direction == "trace":
        return swept.says(0) & ~swept.says(0, "base")
    sign = 1 if direction == "denoise" else -1
    found: npt.NDArray[np.bool_] = (sign * swept.difference() > 0) & (
        sign * swept.difference("base") <= 0
    )
    return found


def _from_base(swept: Swept) -> Floats:
    """`[items]`: KL(source || unpatched)."""
    return np.array([one["kl_donor_base"] for one in swept.results[0]], dtype=np.float64)
