"""Sweeps over strengths: cells, controls, and the numbers that are measured."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.special import stdtr

from vlmlens.statistics import holm
from vlmlens_plugins.analysis._statistics import exact_ends, generator
from vlmlens_plugins.analysis._sweeps import Cell, Change, Item, Swept
from vlmlens_plugins.analysis._sweeps.effects import effects, sign_flip_p

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Estimate:
    """A mean over samples for each cell, with the ends of its 95 % interval, float64 `[cells]`."""

    value: Floats
    low: Floats
    high: Floats


@dataclass(frozen=True, slots=True)
class Beside:
    """What control directions of one kind do at a site, at the stated strength.

    Args:
        kind: "random" or "shuffled".
        change: float64 `[draws, items]`: of the logit difference.
        moved: float64 `[draws]`: the share of answers that move.
    """

    kind: str
    change: Floats
    moved: Floats

    def reached(self, value: float) -> float:
        """The share of directions whose mean change is at least this, itself among them."""
        return (1 + int((self.change.mean(1) >= value).sum())) / (1 + len(self.change))


def strength_cells(site: str, rows: str, strengths: Sequence[float]) -> list[Cell]:
    """A site's direction at each strength."""
    return [_cell(site, rows, strength, site, {}) for strength in strengths]


def control_cells(site: str, rows: str, strength: float, kind: str, draws: int) -> list[Cell]:
    """Control directions of a kind at a site."""
    about = {"control": kind}
    return [
        _cell(site, rows, strength, control_name(site, kind, draw), about) for draw in range(draws)
    ]


def control_name(site: str, kind: str, draw: int) -> str:
    """The name of a control direction."""
    return f"{site} {kind} {draw}"


def cells_of(swept: Swept, site: str, strength: float, control: str = "") -> list[int]:
    """The numbers of the cells of a site at a strength: the direction's own, or its control's."""
    wanted = _about(site, strength, {"control": control} if control else {})
    return [number for number, cell in enumerate(swept.cells) if cell.about == wanted]


def change_of(swept: Swept) -> Floats:
    """float64 `[cells, items]`: how much the logit difference of the two answers grew."""
    return swept.difference() - swept.difference("base")


def moved(swept: Swept) -> Floats:
    """float64 `[cells, items]`: 1 where the answer became the first followed one."""
    return (swept.says(0) & ~swept.says(0, "base")).astype(np.float64)


def altered(swept: Swept) -> Floats:
    """float64 `[cells, items]`: 1 where the most probable token became another."""
    return (~swept.kept()).astype(np.float64)


def lost(swept: Swept) -> Floats:
    """float64 `[cells, items]`: 1 where a right answer became wrong."""
    return (swept.says(0, "base") & ~swept.says(0)).astype(np.float64)


def estimate(values: Floats, items: Sequence[Item], *, seed: int, draws: int) -> Estimate:
    """Means over samples, with intervals over groups.

    Where all samples agree on 0 or 1, the interval is that of Clopper and Pearson.

    Args:
        values: `[cells, items]`.
        items: The items.
        seed: Of the resampling.
        draws: Bootstrap resamples.
    """
    groups = [item.group for item in items]
    ones = np.ones(len(items))
    none = [None] * len(values)
    found = effects(values, ones, groups, controls=none, seed=seed, draws=draws)
    low, high = found.low.copy(), found.high.copy()
    shares = bool(np.isin(values, (0.0, 1.0)).all())
    for cell, value in enumerate(found.value):
        if shares and value in (0.0, 1.0):
            low[cell], high[cell] = exact_ends(value, len(set(groups)))
    return Estimate(found.value, low, high)


def corrected_p(
    changes: Sequence[Floats],
    controls: Sequence[Sequence[Beside]],
    groups: Sequence[str],
    seed: int,
) -> Floats:
    """Per site, the p-value of no difference to its controls, corrected by Holm (1979).

    All tests must agree, so the largest p-value counts. For each kind of control, the signs of the
    groups' differences to the controls' mean are flipped: is it so in other samples? And the mean
    change is compared with the spread of random directions: is it so in hardly any direction? The
    spread of directions from shuffled labels says less, since some of them share the signal.

    Args:
        changes: Per site, `[items]`.
        controls: Per site, those of each kind.
        groups: Per item, its group.
        seed: Of the flips.
    """
    numbers = {name: i for i, name in enumerate(dict.fromkeys(groups))}
    member = np.zeros((len(groups), len(numbers)))
    member[np.arange(len(groups)), [numbers[name] for name in groups]] = 1
    raw = np.zeros(len(changes))
    for site, (change, kinds) in enumerate(zip(changes, controls, strict=True)):
        for each in kinds:
            difference = (change - each.change.mean(0)) @ member
            flipped = sign_flip_p(difference[None], generator(seed, "signs"))[0]
            raw[site] = max(raw[site], flipped)
            if each.kind == "random":
                raw[site] = max(raw[site], new_observation_p(change, each.change))
    return holm(raw)


def new_observation_p(change: Floats, controls: Floats) -> float:
    """Two-sided p-value of a mean as one more observation of the controls' means; Student's t.

    Args:
        change: `[items]`.
        controls: `[draws, items]`.
    """
    means = controls.mean(1)
    away = float(change.mean() - means.mean())
    spread = float(means.std(ddof=1)) * np.sqrt(1 + 1 / len(means))
    if spread == 0:
        return float(away == 0)
    return float(2 * stdtr(len(means) - 1, -abs(away) / spread))


def besides(swept: Swept, site: str, strength: float) -> list[Beside]:
    """The controls of a site, of each kind that was run."""
    change, share = change_of(swept), moved(swept)
    numbers = {kind: cells_of(swept, site, strength, kind) for kind in ("random", "shuffled")}
    return [
        Beside(kind, change[cells], share[cells].mean(1))
        for kind, cells in numbers.items()
        if cells
    ]


def _cell(site: str, rows: str, strength: float, direction: str, about: Mapping[str, str]) -> Cell:
    change = Change(f"{site}/{rows} = add", direction=direction, strength=strength)
    return Cell((change,), _about(site, strength, about))


def _about(site: str, strength: float, more: Mapping[str, str]) -> dict[str, str]:
    return {"site": site, "strength": repr(float(strength)), **more}
