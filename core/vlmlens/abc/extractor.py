"""Extractor: turns a forward pass into columns."""

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
    """Runs batches through a model and returns columns.

    Args:
        vlm: A loaded model.
        columns: The user's patterns (`llm.block.*/last`); empty: the extractor's default columns.
        options: The extractor's own options.
    """

    Options: ClassVar[type[base.Options]] = base.Options
    takes_passes: ClassVar[bool] = False
    """Whether `extract` accepts batches of several passes (`Batch.passes`)."""

    def __init__(self, vlm: ModelAdapter, columns: Sequence[str], options: base.Options) -> None:
        self.vlm = vlm
        self.requested = tuple(columns)
        self.options = options

    @abstractmethod
    def columns(self) -> list[str]:
        """The names of the columns that `extract` returns, in a fixed order.

        Raises:
            SiteError: A pattern matches nothing.
            SelectorError: A selector does not parse.
        """

    def check(self, samples: Sequence[Sample]) -> None:
        """Raise an error if the samples do not suit these columns, before the model is loaded.

        Raises:
            MissingAnnotation: Samples lack something that a column needs, such as an image.
        """
        del samples

    @abstractmethod
    def extract(self, batch: Batch) -> Mapping[str, Values]:
        """Run one forward pass: values for every name in `columns()`, rows in the batch's order.

        Raises:
            SiteSilent: A site gave no activation.
            SiteShapeError: A site's activation does not have the rows of its axis.
        """
