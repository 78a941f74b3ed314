"""What a sample knows of its rows by name: its question and its regions."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from vlmlens.rows.question import Question
from vlmlens.rows.sample_regions import SampleRegions


@dataclass(frozen=True, slots=True, eq=False)
class Names:
    """What selectors by name need to know of a sample on one axis; read when one is used.

    Args:
        regions: The regions of the sample's images.
        question: Where the question's characters lie; None if they do not lie on this axis.
    """

    regions: SampleRegions
    question: Callable[[], Question] | None = None

    def __repr__(self) -> str:
        return f"Names({self.regions.sample!r})"
