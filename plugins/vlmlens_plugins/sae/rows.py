"""Rows of activations, sample by sample: what SAEs are trained and judged on."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Protocol

import torch

from vlmlens.abc.storage import BLOCK_BYTES, BlockSize


class Rows(Protocol):
    """The rows of one column, of numbered samples.

    `StoredRows` reads them from a store, `ModelRows` from passes of the model, `TensorRows` from
    memory, `JoinedRows` puts those of several columns side by side.
    """

    @property
    def column(self) -> str:
        """The column's name; "" if it has none."""

    @property
    def width(self) -> int:
        """How many numbers a row has."""

    def __len__(self) -> int:
        """How many samples there are."""

    def read(self, samples: Sequence[int]) -> list[torch.Tensor]:
        """The rows of these samples, float32 `[k, width]` each; k may be 0.

        Equal numbers give equal rows, in whatever order and company they are asked for.
        """


def in_pieces(
    rows: Rows, samples: Sequence[int], size: int = BLOCK_BYTES
) -> Iterator[tuple[int, list[torch.Tensor]]]:
    """The rows of samples, read some samples at a time.

    Args:
        rows: The rows.
        samples: Numbers of samples.
        size: About how many bytes are read at once; a larger sample is read alone.

    Yields:
        The place in `samples` of the first of them, and the rows of each.
    """
    start, fitting = 0, BlockSize(size)
    while start < len(samples):
        parts = rows.read(samples[start : start + fitting.samples])
        fitting.saw(max(map(len, parts)), rows.width)
        yield start, parts
        start += len(parts)


class TensorRows:
    """Rows that are in memory.

    Args:
        rows: float `[n, width]`.
        lengths: How many rows each sample has; None: each row is a sample.
        column: The column's name.
    """

    def __init__(
        self, rows: torch.Tensor, lengths: Sequence[int] | None = None, column: str = ""
    ) -> None:
        self._rows, self.column = rows, column
        self._parts = None if lengths is None else rows.split(list(lengths))

    @property
    def width(self) -> int:
        """See `Rows.width`."""
        return int(self._rows.shape[1])

    def __len__(self) -> int:
        return len(self._rows) if self._parts is None else len(self._parts)

    def read(self, samples: Sequence[int]) -> list[torch.Tensor]:
        """See `Rows.read`."""
        if self._parts is None:
            return list(self._rows[list(samples)].float().split(1))
        return [self._parts[i].float() for i in samples]


class KeptRows:
    """Rows of another source that stay in memory once they were read.

    Args:
        rows: The other source.
        most: How many numbers are kept at most; the rows of further samples are read each time.
    """

    def __init__(self, rows: Rows, most: int = 2**28) -> None:
        self._rows, self._left = rows, most
        self._kept: dict[int, torch.Tensor] = {}

    @property
    def column(self) -> str:
        """See `Rows.column`."""
        return self._rows.column

    @property
    def width(self) -> int:
        """See `Rows.width`."""
        return self._rows.width

    def __len__(self) -> int:
        return len(self._rows)

    def read(self, samples: Sequence[int]) -> list[torch.Tensor]:
        """See `Rows.read`."""
        missing = [number for number in dict.fromkeys(samples) if number not in self._kept]
        fresh = dict(zip(missing, self._rows.read(missing), strict=True)) if missing else {}
        for number, rows in fresh.items():
            if rows.numel() <= self._left:
                self._kept[number] = rows
                self._left -= rows.numel()
        return [fresh[number] if number in fresh else self._kept[number] for number in samples]
