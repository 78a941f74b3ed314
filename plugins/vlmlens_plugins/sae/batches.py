"""Batches of rows that SAEs are trained on: what a feed of them must do, and one from memory."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias

import torch

from vlmlens.errors import DataError

Batch: TypeAlias = tuple[torch.Tensor, ...]


@dataclass(frozen=True, slots=True, eq=False)
class Statistics:
    """What a sample of rows is like.

    Args:
        mean: float64 `[width]`.
        square: The mean of the rows' squared norms, the mean row not taken away.
        rows: How many rows it is of.
    """

    mean: torch.Tensor
    square: float
    rows: int

    @classmethod
    def of(cls, rows: torch.Tensor) -> Statistics:
        """Those of rows, float `[n, width]`."""
        exact = rows.double()
        return cls(exact.mean(0), float(exact.square().sum(1).mean()), len(rows))

    @property
    def spread(self) -> float:
        """The mean squared distance of a row from the mean row."""
        return max(0.0, self.square - float(self.mean.square().sum()))


class Feed(Protocol):
    """Where batches come from.

    Batches do not end: rows that are used up come again, in another order. Equal feeds give equal
    batches.
    """

    @property
    def widths(self) -> tuple[int, ...]:
        """The widths of a row: one; of a transcoder two, of the input and of the target."""

    @property
    def batch(self) -> int:
        """How many rows each batch has."""

    def statistics(self) -> tuple[Statistics, ...]:
        """Of a bounded sample of the rows, one for each width. No batch is used up by it."""

    def __iter__(self) -> Iterator[Batch]:
        """The batches from where the feed stands: float32 `[batch, width]`, one for each width."""

    def state(self) -> Mapping[str, Any]:
        """Where the feed stands: after the last batch that was handed out.

        Values are tensors, or JSON-ready. A feed that reads ahead leaves what was not handed out
        to be read again.
        """

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from a state: the next batch is bit for bit the one that followed.

        Raises:
            DataError: The state is of other rows or of another setting.
        """


class TensorFeed:
    """Batches of rows that are in memory, in a new order each time round.

    What is left over at the end of a round, less than a batch, begins the next one.

    Args:
        rows: float `[n, width]`; of a transcoder also the targets, `[n, other width]`.
        batch: Rows per batch; all rows if there are fewer.
        seed: Of the orders.

    Raises:
        DataError: There is no row, or the numbers of rows differ.
    """

    def __init__(self, *rows: torch.Tensor, batch: int = 4096, seed: int = 0) -> None:
        lengths = [len(part) for part in rows]
        if not rows or len(set(lengths)) > 1 or lengths[0] == 0:
            raise DataError(
                f"An SAE is trained on rows, and was given {' and '.join(map(str, lengths)) or 0}.",
                subject="rows",
                hint="Give one tensor with at least one row, or two with equal numbers of rows.",
            )
        self._rows, self._batch = rows, min(batch, lengths[0])
        self._random = torch.Generator().manual_seed(seed)
        self._order = torch.empty(0, dtype=torch.int64)

    @property
    def widths(self) -> tuple[int, ...]:
        """See `Feed.widths`."""
        return tuple(int(part.shape[1]) for part in self._rows)

    @property
    def batch(self) -> int:
        """See `Feed.batch`."""
        return self._batch

    def statistics(self) -> tuple[Statistics, ...]:
        """See `Feed.statistics`."""
        return tuple(Statistics.of(part[: 2**17]) for part in self._rows)

    def __iter__(self) -> Iterator[Batch]:
        while True:
            if len(self._order) < self._batch:
                fresh = torch.randperm(len(self._rows[0]), generator=self._random)
                self._order = torch.cat([self._order, fresh])
            taken, self._order = self._order.split([self._batch, len(self._order) - self._batch])
            yield tuple(part[taken].float() for part in self._rows)

    def state(self) -> Mapping[str, Any]:
        """See `Feed.state`."""
        shape = [list(part.shape) for part in self._rows]
        random = self._random.get_state()
        return {"shape": shape, "batch": self._batch, "order": self._order, "random": random}

    def restore(self, state: Mapping[str, Any]) -> None:
        """See `Feed.restore`."""
        own = self.state()
        if any(state.get(name) != own[name] for name in ("shape", "batch")):
            raise DataError(
                f"The state is of rows {state.get('shape')} in batches of {state.get('batch')}; "
                f"these are {own['shape']} in batches of {own['batch']}.",
                subject="state",
                hint="Train anew: other rows cannot be gone on with.",
            )
        self._order = state["order"].clone()
        self._random.set_state(state["random"].clone())
