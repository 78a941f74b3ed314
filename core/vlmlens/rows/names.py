"""What a sample knows of its rows by name: its question, its regions, the texts of its tokens."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from vlmlens.errors import VlmlensError
from vlmlens.rows.question import Question
from vlmlens.rows.sample_regions import SampleRegions

if TYPE_CHECKING:
    from vlmlens.samples import Sample


@dataclass(frozen=True, slots=True, eq=False)
class Names:
    """What selectors by name and pictures of a prompt need to know of a sample on one axis.

    Args:
        regions: The regions of the sample's images.
        question: Where the question's characters lie; None if they do not lie on this axis.
        sample: The sample, whose pictures are shown; None if the adapter does not say it.
        texts: The text of each row, see `TokenLayout.texts`; None where rows are no tokens.
    """

    regions: SampleRegions
    question: Callable[[], Question] | None = None
    sample: Sample | None = None
    texts: Callable[[], Sequence[str]] | None = None

    def __repr__(self) -> str:
        return f"Names({self.regions.sample!r})"

    def __reduce__(self) -> tuple[Any, ...]:
        """Question and texts are looked for now: a model's tokenizer does not travel."""
        found = [None if look is None else _Found.of(look) for look in (self.question, self.texts)]
        return type(self), (self.regions, found[0], self.sample, found[1])


@dataclass(frozen=True, slots=True)
class _Found:
    """What was looked for, or why it is not known."""

    found: Any

    @classmethod
    def of(cls, look: Callable[[], Any]) -> _Found:
        """Look for it."""
        try:
            return cls(look())
        except VlmlensError as error:
            return cls(error)

    def __call__(self) -> Any:
        """What was found.

        Raises:
            SelectorError: It is not known.
        """
        if isinstance(self.found, VlmlensError):
            raise self.found
        return self.found
