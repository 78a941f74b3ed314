"""The numbers of removal: what an edit does to absent and to present objects."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from vlmlens.results import Verdict
from vlmlens_plugins.analysis._statistics import bootstrap_weights, exact_ends, generator
from vlmlens_plugins.analysis._sweeps import Cell, Change, Swept
from vlmlens_plugins.analysis._sweeps.effects import sign_flip_p, too_few
from vlmlens_plugins.analysis.removal import directions as names
from vlmlens_plugins.analysis.removal.asked import is_there
from vlmlens_plugins.analysis.removal.options import RemovalOptions

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]

KINDS = ("random", "other")
"""The controls: random directions, and those of other objects."""

_FEWEST = 5


@dataclass(frozen=True, slots=True)
class Place:
    """Where, from where and how strongly an object is removed.

    Args:
        site: Where image rows are edited.
        source: Where the direction is from: a site at which words are read, or the same site.
        strength: How much is taken away.
    """

    site: str
    source: str
    strength: float

    def cell(self, options: RemovalOptions, direction: str, control: str = "") -> Cell:
        """The cell that removes a direction here.

        Args:
            options: The options.
            direction: Its name.
            control: The kind of control; "": it is none.
        """
        out = options.method == "project-out"
        change = Change(
            f"{self.site}/{options.rows} = {'project-out' if out else 'add'}",
            direction=direction,
            strength=self.strength if out else -self.strength,
            how="project-out" if out else "add",
        )
        about = {"site": self.site, "source": self.source, "strength": repr(self.strength)}
        return Cell((change,), about | ({"control": control} if control else {}))

    def control_cells(self, options: RemovalOptions, kinds: Sequence[str]) -> list[Cell]:
        """Cells that remove something else."""
        name = {"random": names.random, "other": names.other}
        return [
            self.cell(options, name[kind](self.source, draw), kind)
            for kind in kinds
            for draw in range(options.controls)
        ]


@dataclass(frozen=True, slots=True)
class Estimate:
    """A number with its 95 % interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Effect:
    """What cells of one kind do to questions on both sides, as means over the cells.

    Args:
        swept: The sweep with these cells alone.
        seed: Of resampling.
        draws: Bootstrap resamples.
    """

    swept: Swept
    seed: int
    draws: int

    @cached_property
    def there(self) -> Bools:
        """`[items]`: whether the object is there."""
        return np.array([is_there(item.target) for item in self.swept.items])

    @cached_property
    def change(self) -> Floats:
        """`[cells, items]`: of the logit difference of yes and no."""
        return self.swept.difference() - self.swept.difference("base")

    @cached_property
    def before(self) -> Bools:
        """`[items]`: whether yes is likelier than no without the edit."""
        found: Bools = self.swept.difference("base")[0] > 0
        return found

    @cached_property
    def after(self) -> Floats:
        """`[items]`: in how many of the cells yes is likelier than no, as a share."""
        share: Floats = (self.swept.difference() > 0).mean(0)
        return share

    def gains(self) -> Floats:
        """`[cells, items]`: how far each answer moved towards the truth; sides count equally."""
        sides = np.where(self.there, 1 / self.there.sum(), -1 / (~self.there).sum())
        moved: Floats = self.change * sides * len(sides) / 2
        return moved

    def said(self, side: bool, *, before: bool = False) -> Estimate:
        """The share of yes where the object is there, or is not."""
        return self.mean(self.before if before else self.after, self.there == side)

    def moved(self, side: bool) -> Estimate:
        """The mean change of the logit difference where the object is there, or is not."""
        return self.mean(self.change.mean(0), self.there == side, share=False)

    def gone(self, side: bool) -> Estimate | None:
        """Of the yes before, the share that is no; None where there was none."""
        rows = (self.there == side) & self.before
        return self.mean(1 - self.after, rows) if rows.any() else None

    @property
    def balance(self) -> float:
        """The share of yes where the object is there, less that where it is not."""
        return self.said(True).value - self.said(False).value

    def mean(self, values: npt.NDArray[np.generic], rows: Bools, *, share: bool = True) -> Estimate:
        """The mean of `[items]` over some of them; groups are resampled.

        Args:
            values: `[items]`.
            rows: Which of them.
            share: Whether they are shares, so that 0 and 1 have the interval of Clopper and
                Pearson.
        """
        chosen = values[rows].astype(np.float64)
        groups = [item.group for item, row in zip(self.swept.items, rows, strict=True) if row]
        numbers = {name: i for i, name in enumerate(dict.fromkeys(groups))}
        sums = np.zeros((len(numbers), 2))
        place = [numbers[name] for name in groups]
        np.add.at(sums, place, np.stack([chosen, np.ones(len(chosen))], 1))
        value = float(chosen.mean())
        if share and value in (0.0, 1.0):
            return Estimate(value, *exact_ends(value, len(numbers)))
        drawn = bootstrap_weights(len(numbers), self.draws, generator(self.seed, "removal")) @ sums
        low, high = np.quantile(drawn[:, 0] / drawn[:, 1], [0.025, 0.975])
        return Estimate(value, float(low), float(high))


@dataclass(frozen=True)
class Measured:
    """Everything that removal found.

    Args:
        options: The options.
        places: All that were tried.
        tried: Their cells on the first half, in the same order.
        best: The chosen one.
        reported: It and its controls on the second half.
        untouched: It and random controls on other questions; None: there are none.
        left_out: Objects without a direction.
        seed: Of everything random.
    """

    options: RemovalOptions
    places: Sequence[Place]
    tried: Swept
    best: Place
    reported: Swept
    untouched: Swept | None
    left_out: Sequence[str]
    seed: int

    @cached_property
    def own(self) -> Effect:
        """The effect of the chosen edit on the second half."""
        return self._of([0])

    @cached_property
    def controls(self) -> Mapping[str, Effect]:
        """The effects of the controls that were run."""
        found = {kind: self.reported.numbers(control=kind) for kind in KINDS}
        return {kind: self._of(cells) for kind, cells in found.items() if cells}

    def _of(self, cells: Sequence[int]) -> Effect:
        return Effect(self.reported.take(cells), self.seed, self.options.draws)

    @property
    def gain(self) -> float:
        """The mean of the two sides' changes towards the truth, in logits."""
        return float(self.own.gains().mean())

    @cached_property
    def p(self) -> float:
        """Of no difference to the controls; the largest of those of both kinds."""
        groups = [item.group for item in self.reported.items]
        numbers = {name: i for i, name in enumerate(dict.fromkeys(groups))}
        member = np.zeros((len(groups), len(numbers)))
        member[np.arange(len(groups)), [numbers[name] for name in groups]] = 1
        own = self.own.gains()[0]
        found = [
            sign_flip_p(
                ((own - each.gains().mean(0)) @ member)[None], generator(self.seed, "signs")
            )
            for each in self.controls.values()
        ]
        return float(max(one[0] for one in found))

    @property
    def specific(self) -> bool:
        """Whether it moves answers towards the truth, further than any of its controls."""
        most = max(float(each.gains().mean(1).max()) for each in self.controls.values())
        return self.p < self.options.alpha and self.gain > max(0.0, most)

    @property
    def hallucinated(self) -> int:
        """How many absent objects the model says are there, in the second half."""
        return int((self.own.before & ~self.own.there).sum())

    @property
    def works(self) -> bool:
        """Whether it takes hallucinated objects away, and true ones not as much."""
        gone, lost = self.own.gone(False), self.own.gone(True)
        if gone is None or not self.specific:
            return False
        return gone.value > 0 and (lost is None or gone.value > lost.value)

    @property
    def too_few(self) -> str:
        """A warning that so few questions can show nothing; "" if they can."""
        groups = {item.group for item in self.reported.items}
        return too_few("the presence questions", len(groups), 1)

    @property
    def verdict(self) -> Verdict:
        """Whether it works, as far as the samples can tell."""
        if self.works and self.hallucinated >= _FEWEST:
            return Verdict.DIFFERS
        few = self.too_few or self.hallucinated < _FEWEST
        return Verdict.INCONCLUSIVE if few else Verdict.NO_DIFFERENCE

    def altered(self, kind: str = "") -> Estimate | None:
        """The share of untouched questions with another answer; None without such questions."""
        if self.untouched is None:
            return None
        cells = self.untouched.numbers(control=kind) if kind else [0]
        effect = Effect(self.untouched.take(cells), self.seed, self.options.draws)
        changed = 1 - effect.swept.kept().mean(0)
        return effect.mean(changed, np.ones(len(changed), bool))


def chosen(places: Sequence[Place], tried: Swept, *, seed: int, draws: int) -> int:
    """The number of the place that parts the two sides best.

    By answers: yes where the object is there, less yes where it is not; else by logits.
    """
    found = []
    for number in range(len(places)):
        effect = Effect(tried.take([number]), seed, draws)
        found.append((round(effect.balance, 9), float(effect.gains().mean()), -number))
    return -max(found)[2]
