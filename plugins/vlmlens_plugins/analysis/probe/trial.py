"""What the probes of one target are asked."""

from __future__ import annotations

from dataclasses import dataclass

from vlmlens_plugins.analysis.probe.control_labels import Labels
from vlmlens_plugins.analysis.probe.splits import Split
from vlmlens_plugins.analysis.probe.targets import Target


@dataclass(frozen=True, slots=True)
class Trial:
    """What the probes of one target were asked: the same for every column.

    Args:
        target: What was probed for.
        split: What was learned from and tested.
        labels: `[1 + seeds, n]` or `[1 + 2 seeds, n]`: the true labels, shuffled ones, and those
            of the control task by type, where there are types.
        seeds: Controls of each kind.
    """

    target: Target
    split: Split
    labels: Labels
    seeds: int

    @property
    def by_type(self) -> bool:
        """Whether there is a control task by type."""
        return len(self.labels) > 1 + self.seeds
