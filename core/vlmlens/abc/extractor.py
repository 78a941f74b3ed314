"""Extractor: what turns a forward pass into columns."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, ClassVar

from vlmlens.abc import options as base
from vlmlens.abc.storage import Values

if TYPE_CHECKING:
    from vlmlens.abc.adapter import ModelAdapter
    from vlmlens.passes.batch import Batch
    from vlmlens.samples import Sample


class Extractor(ABC):
    """Runs batches through a model and gives back columns.

    Args:
        vlm: A loaded model.
        columns: What the user asked for, as patterns (`llm.block.*/last`); empty: the default.
        options: The extractor's own options.
    """

    Options: ClassVar[type[base.Options]] = base.Options
    takes_passes: ClassVar[bool] = False
    """Whether `extract` takes batches of several passes (`Batch.passes`)."""

    def __init__(self, vlm: ModelAdapter, columns: Sequence[str], options: base.Options) -> None:
        self.vlm = vlm
        self.requested = tuple(columns)
        self.options = options

    @abstractmethod
    def columns(self) -> list[str]:
        """The names of the columns that `extract` gives, in a fixed order.

        Raises:
            SiteError: A pattern matches nothing.
            SelectorError: A selector does not parse.
        """

    def check(self, samples: Sequence[Sample]) -> None:
        """Raise what is wrong with the samples for these columns, before the model is loaded.

        Raises:
            MissingAnnotation: Samples lack what a column needs, an image, say.
        """
        del samples

    @abstractmethod
    def extract(self, batch: Batch) -> Mapping[str, Values]:
        """One forward pass: values for every name in `columns()`, rows in the batch's order.

        Raises:
            SiteSilent: A site gave no activation.
            SiteShapeError: A site's activation has not the rows that its axis promises.
        """
