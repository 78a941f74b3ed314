"""Coordinates of columns: how they are written, which are chosen, and their values per sample."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from vlmlens.abc import AnalysisContext, ColumnInfo
from vlmlens.errors import CompositionError, SpecError, did_you_mean
from vlmlens.passes.edits import split_outside
from vlmlens.tokens import Column
from vlmlens_plugins.analysis._blocks import ColumnBlocks
from vlmlens_plugins.analysis._columns import in_order
from vlmlens_plugins.analysis.activating.directions import Along, read_along

Floats = npt.NDArray[np.float64]
_NUMBERED = re.compile(r"(?P<column>.+/.+)#(?P<number>[0-9]{1,9})")


@dataclass(frozen=True, slots=True)
class Coordinate:
    """One number of the rows of a column.

    Args:
        text: How it is written.
        column: The column.
        number: Which of the column's features.
        along: In place of a feature, the projection on a direction.
        spread: How it was chosen, where it was: its deviation over the median of the column's.
    """

    text: str
    column: str
    number: int = 0
    along: Along | None = field(default=None, compare=False)
    spread: float | None = None

    @classmethod
    def parse(cls, text: str) -> Coordinate:
        """Read `COLUMN#NUMBER` or `COLUMN@FILE`, and the file.

        Raises:
            SpecError: It has another form.
            SelectorError: The column does not parse.
            DataNotFound, DataError: There is no such file, or it holds no direction.

        >>> found = Coordinate.parse("llm.block.3.attn.heads[1]/last#17")
        >>> found.column, found.number
        ('llm.block.3.attn.heads[1]/last', 17)
        """
        match = _NUMBERED.fullmatch(text)
        if match is not None:
            column = str(Column.parse(match["column"]))
            number = int(match["number"])
            return cls(f"{column}#{number}", column, number)
        left, *right = split_outside(text, "@")
        if not (right and left.strip() and "@".join(right).strip()):
            raise SpecError(
                f"{text!r} is not a coordinate.",
                subject=text,
                hint="Write COLUMN#NUMBER (llm.block.3/last#17) or COLUMN@FILE "
                "(llm.block.3/last@red.safetensors).",
            )
        column, file = str(Column.parse(left.strip())), "@".join(right).strip()
        return cls(f"{column}@{file}", column, along=read_along(file))

    def weights(self, width: int) -> Floats:
        """float64 `[width]`: what a row is multiplied with.

        Raises:
            CompositionError: The column has no such feature, or another width than the direction.
        """
        if self.along is not None:
            if len(self.along.vector) != width:
                raise CompositionError(
                    f"The direction of {self.text!r} has {len(self.along.vector)} numbers, and the "
                    f"rows of {self.column} have {width}.",
                    subject=self.text,
                    hint=f"It was learnt at {self.along.learnt_at}."
                    if self.along.learnt_at
                    else "Use a direction that was learnt at a site of this width.",
                )
            return self.along.vector
        if self.number >= width:
            raise CompositionError(
                f"{self.text!r} does not exist: {self.column} has {width} coordinates.",
                subject=self.text,
                hint=f"They are numbered 0 to {width - 1}.",
            )
        one: Floats = np.eye(1, width, self.number)[0]
        return one


@dataclass(frozen=True, slots=True)
class Measured:
    """A coordinate in all samples.

    Args:
        coordinate: The coordinate.
        values: float64 `[samples]`; where a sample has several rows, the largest of them.
        rows: Per sample, float64 `[k]`: all its rows; None if each has one row.
    """

    coordinate: Coordinate
    values: Floats
    rows: Sequence[Floats] | None

    @property
    def finite(self) -> Floats:
        """The values that are numbers."""
        return self.values[np.isfinite(self.values)]

    @property
    def median(self) -> float:
        """The value in the middle."""
        return float(np.median(self.finite))

    @property
    def deviation(self) -> float:
        """The standard deviation over samples."""
        return float(self.finite.std())


def check_stored(coordinates: Sequence[Coordinate], columns: Sequence[str]) -> None:
    """Raise an error if a column is not stored.

    Raises:
        CompositionError: It is not.
    """
    for one in coordinates:
        if one.column not in columns:
            stored = f"Stored: {', '.join(columns[:6])}{', ...' if len(columns) > 6 else ''}."
            raise CompositionError(
                f"{one.text!r} is of a column that is not stored.",
                subject=one.text,
                hint=did_you_mean(one.column, columns) or stored,
            )


def most_varied(
    context: AnalysisContext, columns: Sequence[ColumnInfo], most: int
) -> list[Coordinate]:
    """The coordinate of each column that varies most, and of these the first few.

    They are ordered by their deviation over samples, relative to the median deviation of the
    column's coordinates. Labels play no part in it, so the choice does not bias a test of labels.

    Args:
        context: The context of the analysis.
        columns: The columns.
        most: How many.
    """
    found = []
    for info in columns:
        deviations = _deviations(context, info)
        middle = float(np.median(deviations))
        if middle > 0:
            best = int(deviations.argmax())
            spread = float(deviations[best] / middle)
            found.append(Coordinate(f"{info.name}#{best}", info.name, best, spread=spread))
    return sorted(found, key=lambda one: -(one.spread or 0))[:most]


def measured(
    context: AnalysisContext,
    infos: Mapping[str, ColumnInfo],
    coordinates: Sequence[Coordinate],
) -> list[Measured]:
    """The values of coordinates; each column is read once.

    Raises:
        CompositionError: A column has no such coordinate.
    """
    weights = {one: one.weights(infos[one.column].width) for one in coordinates}
    found: dict[Coordinate, Measured] = {}
    for name in in_order({one.column for one in coordinates}):
        own = [one for one in coordinates if one.column == name]
        matrix = np.stack([weights[one] for one in own], 1)
        values, rows = _projected(context, infos[name], matrix)
        for i, one in enumerate(own):
            ragged = [each[:, i] for each in rows] if infos[name].ragged else None
            found[one] = Measured(one, values[:, i], ragged)
    return [found[one] for one in coordinates]


def _projected(
    context: AnalysisContext, info: ColumnInfo, matrix: Floats
) -> tuple[Floats, list[Floats]]:
    """Products of a column's rows with vectors, block by block.

    Returns:
        float64 `[samples, vectors]`, the largest of each sample's rows; and, of a ragged column,
        per sample float64 `[k, vectors]`.
    """
    ids = [sample.id for sample in context.samples]
    values = np.full((len(ids), matrix.shape[1]), np.nan)
    rows: list[Floats] = [values[:0]] * (len(ids) if info.ragged else 0)
    for block in ColumnBlocks(context.store, info.name, ids):
        with np.errstate(invalid="ignore"):  # 0 times infinity: NaN, which `finite` leaves out
            product = block.values.numpy().astype(np.float64) @ matrix
        lengths = block.values.lengths
        values[block.places] = _largest(product, lengths)
        if lengths is not None:
            ends = np.cumsum(lengths, dtype=np.int64)[:-1]
            for place, each in zip(block.places, np.split(product, ends), strict=True):
                rows[place] = each
    return values, rows


def _deviations(context: AnalysisContext, info: ColumnInfo) -> Floats:
    """float64 `[width]`: of each coordinate, the standard deviation over samples."""
    count, shift = 0, np.zeros(info.width)
    first, second = np.zeros(info.width), np.zeros(info.width)
    ids = [sample.id for sample in context.samples]
    for block in ColumnBlocks(context.store, info.name, ids):
        array, lengths = block.values.numpy(), block.values.lengths
        finite = np.isfinite(array).all(1).reshape(-1, 1)
        usable = _largest(np.where(finite, -1.0, 0.0), lengths)[:, 0] == -1
        largest = _largest(array, lengths)[usable].astype(np.float64)
        if len(largest):
            shift = shift if count else largest[0].copy()
            count += len(largest)
            largest -= shift
            first += largest.sum(0)
            second += np.square(largest).sum(0)
    variance = second / max(count, 1) - np.square(first / max(count, 1))
    deviations: Floats = np.sqrt(np.clip(variance, 0, None))
    return deviations


def _largest(rows: npt.NDArray[Any], lengths: Sequence[int] | None) -> npt.NDArray[Any]:
    """`[samples, c]`: the largest of each sample's rows `[n, c]`; NaN without rows."""
    if lengths is None:
        return rows
    counts = np.array(lengths, np.int64)
    some = counts > 0
    found = np.full(
        (len(counts), rows.shape[1]), np.nan, rows.dtype if rows.dtype.kind == "f" else np.float64
    )
    if some.any():
        found[some] = np.maximum.reduceat(rows, (np.cumsum(counts) - counts)[some], axis=0)
    return found
