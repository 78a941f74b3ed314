"""Dataset: what turns a path or a name into samples."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import ClassVar

from vlmlens.abc import options as base
from vlmlens.samples import Sample


class Dataset(ABC):
    """A source of samples.

    A dataset is chosen by name (`--data NAME:SOURCE`) or, for a plain path, by asking every
    installed dataset whether it `reads` that path.

    Args:
        source: What stands after the colon of `--data`, or the path.
        options: The dataset's own options.
    """

    Options: ClassVar[type[base.Options]] = base.Options
    notes: Sequence[str] = ()
    """What `samples` had to guess, for people: shown, and kept in the run."""

    def __init__(self, source: str, options: base.Options) -> None:
        self.source = source
        self.options = options

    @classmethod
    def reads(cls, path: str) -> bool:
        """Whether this dataset reads that existing path. Looks at names only."""
        del path
        return False

    @abstractmethod
    def samples(self, prompts: Sequence[str]) -> list[Sample]:
        """All samples, in a fixed order.

        Args:
            prompts: The user's prompts. Where the data has prompts of its own and the user gave
                none, the data's are used; several prompts over one image set make the product.

        Raises:
            DataError: What is missing or malformed, before any image is decoded.
        """
