"""Samples on a direction: how far each is from the other samples' mean to the concept's."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from vlmlens.abc import AnalysisContext
from vlmlens.errors import CompositionError, DataError, did_you_mean
from vlmlens.samples import Sample
from vlmlens_plugins.analysis._separating import areas
from vlmlens_plugins.analysis.concepts.learning import ZERO
from vlmlens_plugins.analysis.concepts.options import IMAGE_NAME
from vlmlens_plugins.analysis.concepts.rows import NotFinite, placed
from vlmlens_plugins.analysis.concepts.sets import image_name
from vlmlens_plugins.analysis.steering.aims import mark_of, value_of
from vlmlens_plugins.analysis.steering.files import Direction, open_direction

Floats = npt.NDArray[np.float64]
_LEAST = 3


@dataclass(frozen=True, slots=True)
class Projected:
    """The samples of a run on one direction.

    Args:
        file: As it was given.
        direction: The direction.
        samples: The samples that have the column.
        values: float64 `[samples]`, see `coordinates`.
        seen: For each, whether the direction was learned from its group.
        has: For each, whether it has the concept; None where it is not known.
        area: The chance that a new sample with the concept lies further along than one without;
            None if there are too few of them.
    """

    file: str
    direction: Direction
    samples: tuple[Sample, ...]
    values: Floats
    seen: tuple[bool, ...]
    has: tuple[bool | None, ...]
    area: float | None

    @property
    def column(self) -> str:
        """The column that is projected."""
        return f"{self.direction.site}/{self.direction.rows}"

    def mean(self, *, has: bool) -> float | None:
        """The mean of new samples with the concept, or without it."""
        own = [
            v
            for v, h, s in zip(self.values, self.has, self.seen, strict=True)
            if h is has and not s
        ]
        return float(np.mean(own)) if own else None


def coordinates(rows: npt.NDArray[np.generic], direction: Direction) -> Floats:
    """Where rows lie along a direction, in units of its length.

    For a direction that `concepts` saved, 0 is the mean of the samples that it was learned
    against, and 1 the mean of the concept's samples: `x . v / (v . v) - zero`.

    Args:
        rows: `[n, width]`.
        direction: From `open_direction`.

    Returns:
        float64 `[n]`.
    """
    vector = direction.vector.astype(np.float64)
    found: Floats = rows.astype(np.float64) @ vector / (vector @ vector)
    return found - _zero(direction)


def opened(files: Sequence[str], columns: Sequence[str]) -> list[tuple[str, Direction]]:
    """The directions in files.

    Args:
        files: Their names.
        columns: Names of the run's columns; empty while they are not known.

    Raises:
        DataNotFound, DataError: There is no such file, or it holds something else.
        CompositionError: The column at which it was learned is not stored.
    """
    found = [(file, open_direction(file)) for file in files]
    for file, direction in found:
        column = f"{direction.site}/{direction.rows}"
        _zero(direction)
        if columns and column not in columns:
            raise CompositionError(
                f"The direction in {file!r} was learned at {column}, which is not stored.",
                subject=file,
                hint=did_you_mean(column, list(columns)) or f"Extract it: --sites {column}.",
            )
    return found


def project(context: AnalysisContext, file: str, direction: Direction) -> Projected:
    """Project all samples of a run that have the direction's column.

    Raises:
        CompositionError: The column has another width, or holds values that are not finite.
    """
    column = f"{direction.site}/{direction.rows}"
    (info,) = [each for each in context.columns() if each.name == column]
    if info.width != len(direction.vector):
        raise CompositionError(
            f"The direction in {file!r} has {len(direction.vector)} numbers, the rows of {column} "
            f"have {info.width}.",
            subject=file,
            hint="Use a direction that was learned with the same model.",
        )
    there = set(context.store.ids(column))
    samples = tuple(sample for sample in context.samples if sample.id in there)
    try:
        values = np.empty(len(samples))
        for places, rows in placed(context.store, info, [sample.id for sample in samples]):
            values[places] = coordinates(rows, direction)
    except NotFinite as error:
        raise CompositionError(
            f"{column} holds values that are not finite.",
            subject=column,
            hint="Extract in float32, or choose another direction.",
        ) from error
    groups = set(direction.groups)
    seen = tuple(mark_of(sample.split_group) in groups for sample in samples)
    has = tuple(_side(direction, sample) for sample in samples)
    return Projected(file, direction, samples, values, seen, has, _area(values, seen, has))


def _side(direction: Direction, sample: Sample) -> bool | None:
    aim = direction.aim
    if aim.task and sample.task != aim.task:
        return None
    if aim.attribute == IMAGE_NAME:
        found = image_name(sample.images[0]) if sample.images else None
    else:
        found = value_of(sample, aim.attribute)
    return None if found is None else found == aim.towards


def _area(values: Floats, seen: Sequence[bool], has: Sequence[bool | None]) -> float | None:
    new = [i for i in range(len(values)) if has[i] is not None and not seen[i]]
    labels = ["with" if has[i] else "without" for i in new]
    if min(labels.count("with"), labels.count("without")) < _LEAST:
        return None
    return float(areas(values[new], labels, ["with"])[0])


def _zero(direction: Direction) -> float:
    value = direction.origin.get(ZERO, 0.0)
    if isinstance(value, bool) or not isinstance(value, int | float) or not np.isfinite(value):
        raise DataError(
            f"The direction towards {direction.aim.towards!r} has the zero {value!r}.",
            subject=direction.site,
            hint="Expected is a number. Let the analysis concepts write the file again.",
        )
    return float(value)
