"""Rows of several columns side by side, and random rows of each sample."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from vlmlens.errors import DataError, SpecError
from vlmlens_plugins.sae.batches import Statistics
from vlmlens_plugins.sae.rows import Rows

_ROWS_SEEN, _AT_ONCE = 4096, 16


class JoinedRows:
    """The rows of several columns side by side: what a crosscoder reads.

    Args:
        parts: The rows of each column, of the same samples.
        scales: What the rows of each column are multiplied by; None: nothing. See `equal_scales`.

    Raises:
        DataError: The columns have other numbers of samples.
        SpecError: There is no column, or not a scale for each.
    """

    def __init__(self, parts: Sequence[Rows], scales: Sequence[float] | None = None) -> None:
        self._parts = list(parts)
        self.scales = tuple(scales) if scales is not None else (1.0,) * len(self._parts)
        if not self._parts or len(self.scales) != len(self._parts):
            raise SpecError(
                f"{len(self._parts)} columns are joined with {len(self.scales)} scales.",
                subject="scales",
                hint="Give at least one column, and one scale for each.",
            )
        check_equal_samples(self._parts)

    @property
    def widths(self) -> tuple[int, ...]:
        """The width of each column."""
        return tuple(part.width for part in self._parts)

    @property
    def column(self) -> str:
        """The names of the columns, joined by ` + `."""
        return " + ".join(part.column for part in self._parts)

    @property
    def width(self) -> int:
        """The widths of the columns together."""
        return sum(part.width for part in self._parts)

    def __len__(self) -> int:
        return len(self._parts[0])

    def read(self, samples: Sequence[int]) -> list[torch.Tensor]:
        """See `Rows.read`.

        Raises:
            DataError: A sample has not as many rows in one column as in another.
        """
        parts = [part.read(samples) for part in self._parts]
        check_equal_counts(self._parts, parts, samples)
        scaled = [
            [rows if scale == 1 else rows * scale for rows in part]
            for part, scale in zip(parts, self.scales, strict=True)
        ]
        return [torch.cat(rows, 1) for rows in zip(*scaled, strict=True)]


def equal_scales(
    parts: Sequence[Rows], samples: Sequence[int] | None = None, seed: int = 0
) -> tuple[float, ...]:
    """What to multiply each column by, so that all have the same part in a reconstruction.

    Afterwards the mean squared distance of a row from the mean row is the same number in each
    column: the columns' mean width. The mean row is left out, since it costs an SAE nothing.

    Args:
        parts: The rows of each column.
        samples: Numbers of samples to look at; None: all. So many of them are drawn that a few
            thousand rows are seen.
        seed: Of the drawing.

    Raises:
        DataError: All rows of a column are the same.
    """
    numbers = np.arange(len(parts[0])) if samples is None else np.asarray(samples)
    drawn = np.random.default_rng([seed, 1]).permutation(numbers).tolist()
    width = sum(part.width for part in parts) / len(parts)
    return tuple(float(np.sqrt(width / _spread(part, drawn))) for part in parts)


def check_equal_samples(parts: Sequence[Rows]) -> None:
    """Raise `DataError` where columns have other numbers of samples."""
    if len({len(part) for part in parts}) > 1:
        said = ", ".join(f"{part.column or 'rows'}: {len(part)}" for part in parts)
        raise DataError(
            f"Columns with other numbers of samples cannot be put together ({said}).",
            subject=parts[0].column,
            hint="Give the same samples to each.",
        )


def check_equal_counts(
    parts: Sequence[Rows], read: Sequence[Sequence[torch.Tensor]], samples: Sequence[int]
) -> None:
    """Raise `DataError` where a sample has not as many rows in one column as in another.

    Args:
        parts: The rows of each column.
        read: What was read of each, sample by sample.
        samples: Numbers of the samples.
    """
    for number, *rows in zip(samples, *read, strict=True):
        counts = [len(one) for one in rows]
        if len(set(counts)) > 1:
            names = [part.column for part in parts]
            said = ", ".join(f"{n} in {name!r}" for n, name in zip(counts, names, strict=True))
            raise DataError(
                f"{_named(parts[0], number)} has other numbers of rows in columns that are to be "
                f"put together: {said}.",
                subject=" + ".join(names),
                hint="Choose sites with the same tokens, such as image rows of blocks after the "
                "projector, or pooled rows.",
            )


def _named(part: Rows, number: int) -> str:
    """The sample as an error names it."""
    of = part.all if isinstance(part, SomeRows) else part
    found = getattr(of, "id_of", None)
    return f"The sample number {number}" if found is None else f"The sample {found(number)!r}"


def _spread(part: Rows, samples: Sequence[int]) -> float:
    found: list[torch.Tensor] = [torch.empty(0, part.width)]
    for start in range(0, len(samples), _AT_ONCE):
        found += part.read(samples[start : start + _AT_ONCE])
        if sum(map(len, found)) >= _ROWS_SEEN:
            break
    read = torch.cat(found)
    spread = Statistics.of(read).spread if len(read) else 0.0
    if spread <= 0:
        raise DataError(
            f"The rows of {part.column or 'a column'} are all the same, or there are none: they "
            "cannot be scaled.",
            subject=part.column,
            hint="Leave this column out.",
        )
    return spread


@dataclass(frozen=True, slots=True)
class SomeRows:
    """A few random rows of each sample, in their order, others in each epoch.

    Which rows these are depends on seed, epoch, the sample's number and its number of rows, and on
    nothing else: also columns that are read apart give the same places.

    Args:
        all: The rows.
        per_image: How many of a sample's rows are kept; all where it has no more.
        seed: Of the drawing.
        fixed: Whether the draw of the first epoch holds in all. Rows from passes of the model can
            then stay in memory.
        epoch: Which draw.

    Raises:
        SpecError: Fewer than one row is to be kept.
    """

    all: Rows
    per_image: int
    seed: int = 0
    fixed: bool = False
    epoch: int = 0

    def __post_init__(self) -> None:
        if self.per_image < 1:
            raise SpecError(
                f"{self.per_image} rows of each sample are to be kept.",
                subject="per_image",
                hint="Expected: 1 or more.",
            )

    @property
    def column(self) -> str:
        """See `Rows.column`."""
        return self.all.column

    @property
    def width(self) -> int:
        """See `Rows.width`."""
        return self.all.width

    def __len__(self) -> int:
        return len(self.all)

    def of_epoch(self, epoch: int) -> SomeRows:
        """The rows of another epoch."""
        return self if self.fixed else replace(self, epoch=epoch)

    def read(self, samples: Sequence[int]) -> list[torch.Tensor]:
        """See `Rows.read`."""
        return [
            rows if len(rows) <= self.per_image else rows[self._places(number, len(rows))]
            for number, rows in zip(samples, self.all.read(samples), strict=True)
        ]

    def _places(self, sample: int, count: int) -> torch.Tensor:
        random = np.random.default_rng([self.seed, 2, self.epoch, sample])
        return torch.from_numpy(np.sort(random.permutation(count)[: self.per_image]))
