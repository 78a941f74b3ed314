"""Dataset: turns a path or a name into samples."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from vlmlens.abc import options as base
from vlmlens.samples import Sample


class Dataset(ABC):
    """A source of samples.

    Users choose a dataset by name (`--data NAME:SOURCE`). For a plain path, every installed dataset
    is asked whether it `reads` that path.

    Args:
        source: The text after the colon of `--data`, or the path.
        options: The dataset's own options.
    """

    Options: ClassVar[type[base.Options]] = base.Options
    notes: Sequence[str] = ()
    """What `samples` had to guess, in sentences. They are shown, and kept in the run."""
    suggests: Mapping[str, Mapping[str, Any]] | None = None
    """Options of analyses where the user gave none, by analysis, if they depend on the samples.

    None: those that the manifest suggests.
    """

    def __init__(self, source: str, options: base.Options) -> None:
        self.source = source
        self.options = options

    @classmethod
    def reads(cls, path: str) -> bool:
        """Whether this dataset reads that path, which exists. Looks at names only."""
        del path
        return False

    def state(self) -> str | None:
        """A text that changes whenever `samples` would give others, without reading them all.

        A resumed run keeps its samples if it is the same, and if no image has changed. The images'
        files are looked at elsewhere. Default: None, which means that it is not known.
        """
        return None

    @abstractmethod
    def samples(self, prompts: Sequence[str]) -> Sequence[Sample]:
        """All samples, in a fixed order: a list, or a `SampleTable` where there may be many.

        Args:
            prompts: The user's prompts. If there are none, the prompts in the data are used.
                With several prompts, each is asked about each image.

        Raises:
            DataError: Something is missing or malformed. No image has been decoded yet.
        """
