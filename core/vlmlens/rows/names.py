"""What a sample knows of its rows by name: its question and its regions."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from vlmlens.errors import VlmlensError
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

    def __reduce__(self) -> tuple[Any, ...]:
        """The question is looked for now: a model's tokenizer does not travel."""
        return type(self), (self.regions, None if self.question is None else _Found.of(self))


@dataclass(frozen=True, slots=True)
class _Found:
    """A question that was looked for, or why it is not known."""

    found: Question | VlmlensError

    @classmethod
    def of(cls, names: Names) -> _Found:
        """Look for the question of a sample."""
        assert names.question is not None  # noqa: S101
        try:
            return cls(names.question())
        except VlmlensError as error:
            return cls(error)

    def __call__(self) -> Question:
        """The question.

        Raises:
            SelectorError: It is not known.
        """
        if isinstance(self.found, VlmlensError):
            raise self.found
        return self.found
