"""Stored columns that take the place of other samples: their mean and spread."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch

from vlmlens.abc import Spread
from vlmlens.errors import EditError
from vlmlens.registry import Registry
from vlmlens.stores.writing import find_column
from vlmlens.transfer import origin_of

HELP = "RUN@COLUMN: a stored column whose rows take the place of the run's own; also of a store."


@dataclass(frozen=True)
class StoredRows:
    """A column that a run, or a store without one, has.

    Args:
        text: `RUN@COLUMN`.
        place: The run's folder, or the path or URI of a store.
        column: The column's name.
        width: Of its rows.
    """

    text: str
    place: str
    column: str
    width: int

    @classmethod
    def named(cls, text: str) -> StoredRows:
        """Find a column, without reading its values.

        Raises:
            EditError: The text has another form.
            RunNotFound, StoreError: There is no such run or store, or it cannot be opened.
            UntrustedRun: The run is somebody else's, and its store lies elsewhere.
            ColumnNotFound: It has no such column. The error names those that it has.
        """
        place, at, column = text.rpartition("@")
        if not (place and at and column):
            raise EditError(
                f"{text!r} names no stored column.",
                subject=text,
                hint="Expected: RUN@COLUMN, for example runs/a@llm.block.3/image.",
            )
        with origin_of(Registry.default(), place) as origin:
            known = {info.name: info for info in origin.store.columns()}
            return cls(text, place, column, find_column(column, known).width)

    def check_fits(self, rows: torch.Tensor, site: str) -> None:
        """Raise an `EditError` if rows at a site have another width."""
        if rows.shape[1] != self.width:
            raise EditError(
                f"The column {self.text!r} has rows of {self.width} numbers, those at {site!r} "
                f"have {rows.shape[1]}.",
                subject=self.text,
                hint="Name a column of the edited site.",
            )

    @cached_property
    def spread(self) -> Spread:
        """The mean and the standard deviation of all rows; read once, block by block.

        Raises:
            EditError: There are no rows, or values that are not finite.
        """
        count, first, second = 0, np.zeros(self.width), np.zeros(self.width)
        with origin_of(Registry.default(), self.place) as origin:
            for _, values in origin.store.blocks(self.column):
                rows = values.numpy().astype(np.float64)
                count += len(rows)
                first += rows.sum(0)
                second += np.square(rows).sum(0)
        if not count or not np.isfinite(first).all():
            raise EditError(
                f"The column {self.text!r} has no mean: it has {count} rows"
                f"{', with values that are not finite' if count else ''}.",
                subject=self.text,
                hint="Choose another column.",
            )
        mean = first / count
        deviation = np.sqrt(np.clip(second / count - np.square(mean), 0, None))
        return Spread(count, _tensor(mean), _tensor(deviation))

    @cached_property
    def digest(self) -> str:
        """Of the mean and the deviation."""
        found = hashlib.sha256(self.spread.mean.numpy().tobytes())
        found.update(self.spread.deviation.numpy().tobytes())
        return found.hexdigest()[:32]


def _tensor(values: np.ndarray[tuple[int, ...], np.dtype[np.float64]]) -> torch.Tensor:
    return torch.from_numpy(values.astype(np.float32))
