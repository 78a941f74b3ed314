"""Two runs that are compared: what they share."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from vlmlens.comparison._sides import Side


@dataclass(frozen=True)
class Pair:
    """Two sides that are compared."""

    first: Side
    second: Side

    @cached_property
    def shared(self) -> list[str]:
        """Ids of the samples that both have."""
        return [sample for sample in self.first.prints if sample in self.second.prints]

    @cached_property
    def changed(self) -> int:
        """How many of the shared samples have another prompt, image or label."""
        first, second = self.first.prints, self.second.prints
        return sum(first[sample] != second[sample] for sample in self.shared)

    @cached_property
    def left_out(self) -> int:
        """How many samples only one of them has."""
        return len(self.first.prints) + len(self.second.prints) - 2 * len(self.shared)

    @cached_property
    def same_model_and_some(self) -> bool:
        """Whether one model saw some samples in both: what differs is which samples there are."""
        same = len(self.shared) > self.changed
        return same and self.first.same_model(self.second)

    def same_result(self, analysis: str) -> bool:
        """Whether model, samples and options are all the same, so that there is nothing to test."""
        if not self.same_model_and_some or self.left_out or self.changed:
            return False
        first, second = (
            side.results[analysis].options if analysis in side.results else None
            for side in (self.first, self.second)
        )
        return first is not None and first == second
