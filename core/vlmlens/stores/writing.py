"""For authors of storage backends: checks of a write, and the errors that users know."""

from __future__ import annotations

import json
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple, TypeVar

import numpy as np

from vlmlens.abc.storage import DTYPES, Array, ColumnBlock, ColumnInfo, Values
from vlmlens.errors import ColumnNotFound, StoreError, did_you_mean

T = TypeVar("T")


class Form(NamedTuple):
    """What all values of a column have in common: dtype, width, one or several rows per sample."""

    dtype: str
    width: int
    ragged: bool

    @classmethod
    def of(cls, values: Values | ColumnInfo) -> Form:
        """The form of values, or of a column."""
        return cls(values.dtype, values.width, values.ragged)

    def __str__(self) -> str:
        return f"{'ragged' if self.ragged else 'one row per sample'}, {self.width} x {self.dtype}"


def check_block(
    block: ColumnBlock, forms: Mapping[str, Form], has: Callable[[str, str], bool]
) -> None:
    """Refuse a block that contradicts itself or the stored columns.

    Args:
        block: The block to write.
        forms: The forms of the stored columns, by name.
        has: A function of a column and a sample id: whether the sample is already stored there.

    Raises:
        StoreError: The block must not be written. The message says why.
    """
    _check_ids(block.ids)
    for name, values in block.columns.items():
        _check_values(name, values, len(block.ids))
        known = forms.get(name)
        if known is None:
            continue
        if Form.of(values) != known:
            raise StoreError(
                f"Column {name!r} holds {known}; the block gives {Form.of(values)}.", subject=name
            )
        _check_new(name, block.ids, has)


def find_column(name: str, columns: Mapping[str, T]) -> T:
    """The column of that name.

    Raises:
        ColumnNotFound: There is none. The error lists the nearest names.
    """
    if name in columns:
        return columns[name]
    hint = did_you_mean(name, columns) or f"Stored: {', '.join(list(columns)[:5]) or 'none'}."
    raise ColumnNotFound(f"The store has no column {name!r}.", subject=name, hint=hint)


def missing_sample(column: str, sample: str) -> StoreError:
    """The error for a sample that has no value in a column."""
    return StoreError(
        f"Sample {sample!r} has no value in column {column!r}.",
        subject=sample,
        hint="Extract it first: run the same command with --resume.",
    )


def to_json(data: Mapping[str, Any]) -> bytes:
    """A record as JSON text.

    Raises:
        StoreError: The data contain something that JSON cannot hold.
    """
    try:
        return json.dumps(data, allow_nan=False).encode()
    except (TypeError, ValueError) as error:
        raise StoreError(f"The record cannot be written as JSON: {error}.") from error


def row_lengths(values: Values) -> Sequence[int]:
    """The number of rows of each sample; 1 for all if the values are not ragged."""
    return (1,) * len(values.array) if values.lengths is None else values.lengths


def in_own_type(array: Array, dtype: str) -> Array:
    """Stored bits as numbers: like `Values.numpy`, for a bare array."""
    return Values(array, dtype).numpy()


def crc32_of(array: Array, start: int = 0) -> int:
    """`zlib.crc32` of an array's bytes in C order, going on from `start`."""
    raw = np.ascontiguousarray(array).reshape(-1).view(np.uint8).data if array.size else b""
    return zlib.crc32(raw, start)


def read_only() -> StoreError:
    """The error for writing to a store that was opened with mode "r"."""
    return StoreError("The store was opened for reading.", hint='Open it with mode "a".')


def _check_ids(ids: Iterable[str]) -> None:
    for sample, n in Counter(ids).items():
        if not isinstance(sample, str):
            raise StoreError(f"Sample ids must be text, not {sample!r}.", subject=sample)
        if n > 1:
            raise StoreError(f"The block gives sample {sample!r} {n} times.", subject=sample)


def _check_values(name: str, values: Values, samples: int) -> None:
    def refuse(what: str) -> StoreError:
        return StoreError(f"Column {name!r}: {what}.", subject=name)

    if values.dtype not in DTYPES:
        raise refuse(f"{values.dtype!r} is none of {', '.join(DTYPES)}")
    array = values.array
    if not isinstance(array, np.ndarray) or array.dtype != DTYPES[values.dtype]:
        given = getattr(array, "dtype", type(array).__name__)
        raise refuse(f"{values.dtype} must be given as {DTYPES[values.dtype]}, not as {given}")
    if array.ndim != 2:
        raise refuse(f"an array [rows, width] was expected, not one of shape {array.shape}")
    if len(values) != samples:
        raise refuse(f"{len(values)} values for {samples} samples")
    if values.lengths is not None and (
        min(values.lengths, default=0) < 0 or sum(values.lengths) != len(array)
    ):
        raise refuse(f"lengths add up to {sum(values.lengths)} rows, and {len(array)} are given")


def _check_new(name: str, ids: Iterable[str], has: Callable[[str, str], bool]) -> None:
    for sample in ids:
        if has(name, sample):
            raise StoreError(
                f"Sample {sample!r} is stored in column {name!r} already; nothing is overwritten.",
                subject=sample,
                hint="Go on with the run with --resume, or start over with --fresh.",
            )


def joined_values(parts: Sequence[Values]) -> Values:
    """Several values of one column joined into one, in order; one alone is not copied."""
    if len(parts) == 1:
        return parts[0]
    array = np.concatenate([part.array for part in parts])
    if not parts[0].ragged:
        return Values(array, parts[0].dtype)
    lengths = tuple(length for part in parts for length in part.lengths or ())
    return Values(array, parts[0].dtype, lengths)
