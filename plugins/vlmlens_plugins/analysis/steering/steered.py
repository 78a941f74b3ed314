"""The numbers of steering, by site and strength."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from vlmlens.results import Verdict
from vlmlens_plugins.analysis._sweeps import Swept
from vlmlens_plugins.analysis._sweeps.effects import too_few
from vlmlens_plugins.analysis.steering.aims import Aim, Parts
from vlmlens_plugins.analysis.steering.files import Direction
from vlmlens_plugins.analysis.steering.measuring import (
    Beside,
    Estimate,
    altered,
    besides,
    cells_of,
    change_of,
    corrected_p,
    estimate,
    lost,
    moved,
)
from vlmlens_plugins.analysis.steering.options import SteeringOptions

Floats = npt.NDArray[np.float64]
Place = tuple[str, float]
"""A site and a strength."""

_REACHED = 1 / 6 + 1e-9


@dataclass(frozen=True)
class Steered:
    """What the directions did.

    Args:
        options: The options of the analysis.
        aim: What is steered towards.
        parts: The samples.
        directions: One per site.
        wanted: The questions that are to move, under all directions and the controls.
        untouched: The other questions, under all directions; None: there are none.
        random: All questions under random directions at the best site; None: not run yet.
        seed: Of everything random.
    """

    options: SteeringOptions
    aim: Aim
    parts: Parts
    directions: Sequence[Direction]
    wanted: Swept
    untouched: Swept | None
    random: Swept | None
    seed: int

    @cached_property
    def places(self) -> list[Place]:
        """All sites at all strengths."""
        return [(each.site, s) for each in self.directions for s in self.options.strengths]

    @cached_property
    def change(self) -> dict[Place, Estimate]:
        """How much the logit difference grew."""
        return self._by_place(self.wanted, change_of)

    @cached_property
    def moved(self) -> dict[Place, Estimate]:
        """The share of answers that moved."""
        return self._by_place(self.wanted, moved)

    @cached_property
    def altered(self) -> dict[Place, Estimate]:
        """The share of untouched questions with another answer; empty without such questions."""
        return {} if self.untouched is None else self._by_place(self.untouched, altered)

    @cached_property
    def lost(self) -> dict[Place, Estimate]:
        """The share of untouched questions that were right, and no longer are."""
        return {} if self.untouched is None else self._by_place(self.untouched, lost)

    @cached_property
    def besides(self) -> dict[str, list[Beside]]:
        """By site, its controls at the stated strength."""
        at = self.options.stated
        return {each.site: besides(self.wanted, each.site, at) for each in self.directions}

    @cached_property
    def p(self) -> dict[str, float]:
        """By site, the corrected p-value at the stated strength."""
        change, at = change_of(self.wanted), self.options.stated
        changes = [change[cells_of(self.wanted, site, at)[0]] for site in self.besides]
        groups = [item.group for item in self.wanted.items]
        found = corrected_p(changes, list(self.besides.values()), groups, self.seed)
        return dict(zip(self.besides, found.tolist(), strict=True))

    def steers(self, site: str) -> bool:
        """Whether a direction moves the answer, significantly, and further than its controls.

        At most one in six directions from shuffled labels may reach as far.
        """
        value = float(self.change[site, self.options.stated].value)
        above = all(
            value > each.change.mean() and each.reached(value) <= _REACHED
            for each in self.besides[site]
        )
        return above and self.p[site] < self.options.alpha

    @property
    def too_few(self) -> str:
        """A warning that so few groups can show nothing; "" if they can."""
        groups = {item.group for item in self.wanted.items}
        return too_few(self.aim.task, len(groups), len(self.directions))

    def verdict(self, site: str) -> Verdict:
        """Whether it steers, as far as the groups of samples can tell."""
        if self.steers(site):
            return Verdict.DIFFERS
        return Verdict.INCONCLUSIVE if self.too_few else Verdict.NO_DIFFERENCE

    @cached_property
    def best(self) -> Direction:
        """The direction that moves the most answers, less the untouched ones that it alters.

        Those that steer come first; where no answer moves, the change of logits decides.
        """
        at = self.options.stated
        any_moved = any(float(self.moved[each.site, at].value) for each in self.directions)

        def rank(each: Direction) -> tuple[bool, float, float]:
            place = each.site, at
            harm = float(self.altered[place].value) if self.altered else 0.0
            gain = float(self.moved[place].value) - harm if any_moved else 0.0
            return self.steers(each.site), gain, float(self.change[place].value)

        return max(self.directions, key=rank)

    def random_share(self, strength: float, *, untouched: bool) -> float | None:
        """At the best site, the share of answers that random directions move, or alter."""
        if strength == 0:
            return 0.0
        if self.random is None or (untouched and self.untouched is None):
            return None
        cells = cells_of(self.random, self.best.site, strength, "random")
        count = len(self.wanted.items)
        if untouched:
            return float(altered(self.random)[cells][:, count:].mean())
        return float(moved(self.random)[cells][:, :count].mean())

    def kl(self, place: Place, *, untouched: bool) -> float | None:
        """The mean divergence from the pass without edits, nats."""
        swept = self.untouched if untouched else self.wanted
        if swept is None:
            return None
        return float(swept.divergence("base")[cells_of(swept, *place)[0]].mean())

    def _by_place(self, swept: Swept, measure: Callable[[Swept], Floats]) -> dict[Place, Estimate]:
        cells = [cells_of(swept, *place)[0] for place in self.places]
        found = estimate(
            measure(swept)[cells], swept.items, seed=self.seed, draws=self.options.draws
        )
        return {
            place: Estimate(found.value[i], found.low[i], found.high[i])
            for i, place in enumerate(self.places)
        }


def times(strength: float) -> str:
    """How often a direction is added, in words."""
    return "once" if strength == 1 else f"{strength:g} times"
