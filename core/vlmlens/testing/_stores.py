"""Values that the storage kit writes into stores, and how it opens stores."""

from __future__ import annotations

import importlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from vlmlens.abc.storage import DTYPES, Array, ColumnBlock, ColumnStore, Mode, Values
from vlmlens.manifest import PluginKind
from vlmlens.registry._target import file_manifest, is_file
from vlmlens.stores.writing import joined_values
from vlmlens.testing._checks import expect

SPECIAL_BITS = {
    "float32": (0x7FC00001, 0xFFC12345, 0x7F800000, 0xFF800000, 0x80000000, 1),
    "float16": (0x7E01, 0xFE55, 0x7C00, 0xFC00, 0x8000, 1),
    "bfloat16": (0x7FC1, 0xFFD5, 0x7F80, 0xFF80, 0x8000, 1),
    "float64": (0x7FF8000000000001, 0x7FF0000000000000, 0x8000000000000000, 1),
    "int64": (0x8000000000000000, 0x7FFFFFFFFFFFFFFF, 0, 0xFFFFFFFFFFFFFFFF),
}
"""NaNs with payloads, infinities, -0.0, the smallest subnormal; extreme integers."""


def open_target(
    target: str, location: str, mode: Mode, options: Mapping[str, Any] | None = None
) -> ColumnStore:
    """Open a store, given the target of its manifest or `FILE.py:Class`."""
    if is_file(target):
        target = file_manifest(PluginKind.STORAGE, target).target
    module, _, name = target.partition(":")
    store: type[ColumnStore] = getattr(importlib.import_module(module), name)
    return store.open(location, mode=mode, options=store.Options(**(options or {})))


def values(
    seed: int, dtype: str = "float32", *, rows: int = 3, width: int = 4, special: bool = True
) -> Values:
    """Random bits of a type, one row per sample, beginning with the special values."""
    carrier = DTYPES[dtype]
    size = rows * width * carrier.itemsize
    array = np.frombuffer(np.random.default_rng(seed).bytes(size), carrier).copy()
    if special:
        bits = np.array(SPECIAL_BITS[dtype], f"<u{carrier.itemsize}").view(carrier)
        array[: len(bits)] = bits[: len(array)]
    return Values(array.reshape(rows, width), dtype)


def ragged(seed: int, lengths: Sequence[int], dtype: str = "float32", *, width: int = 4) -> Values:
    """Random bits of a type, several rows per sample."""
    dense = values(seed, dtype, rows=sum(lengths), width=width)
    return Values(dense.array, dtype, tuple(lengths))


def block(ids: str | Sequence[str], **columns: Values) -> ColumnBlock:
    """A block. A text as ids means one id per character."""
    return ColumnBlock(tuple(ids), columns)


def numbered(number: int, *, rows: int = 8, width: int = 64) -> ColumnBlock:
    """Block number n of an endless sequence that reader and writer both know."""
    return ColumnBlock(
        tuple(f"sample {number}.{i}" for i in range(rows)),
        {
            "a/last": values(2 * number, rows=rows, width=width),
            "b/all": ragged(2 * number + 1, range(1, rows + 1), "bfloat16", width=width),
        },
    )


def three(number: int, columns: Sequence[str]) -> ColumnBlock:
    """Block number n of three samples: ragged in column `r`, one row each in others."""
    lengths = (2, 0, 3)
    made = {
        name: ragged(number, lengths, "bfloat16") if name == "r" else values(number, rows=3)
        for name in columns
    }
    return ColumnBlock(tuple(f"{number}{letter}" for letter in "zab"), made)


def select(given: Values, positions: Sequence[int]) -> Values:
    """The values of some samples, in that order."""
    starts = np.cumsum([0, *(given.lengths or (1,) * len(given.array))])
    parts = [given.array[starts[p] : starts[p + 1]] for p in positions]
    lengths = tuple(len(part) for part in parts) if given.ragged else None
    return Values(np.concatenate([given.array[:0], *parts]), given.dtype, lengths)


def expect_whole(
    store: ColumnStore, column: str, blocks: Iterable[tuple[list[str], Values]]
) -> None:
    """Require that blocks are the column, in order, with nothing twice or left out."""
    parts = list(blocks)
    sizes = [len(ids) for ids, _ in parts]
    found = [sample for ids, _ in parts for sample in ids]
    expect(found == store.ids(column), f"blocks of {sizes} samples: ids {found}")
    expect_same(joined_values([values for _, values in parts]), store.read(column), f"{sizes}")


def expect_same(found: Values, wanted: Values, what: str) -> None:
    """Require equal types, shapes, lengths and bits."""
    expect(found.dtype == wanted.dtype, f"{what}: dtype {found.dtype}, not {wanted.dtype}")
    expect(found.lengths == wanted.lengths, f"{what}: lengths {found.lengths}")
    expect_same_array(found.array, wanted.array, what)


def expect_same_array(found: Array, wanted: Array, what: str) -> None:
    """Require equal numpy types, shapes and bits."""
    expect(found.dtype == wanted.dtype, f"{what}: {found.dtype}, not {wanted.dtype}")
    expect(found.shape == wanted.shape, f"{what}: shape {found.shape}, not {wanted.shape}")
    expect(found.tobytes() == wanted.tobytes(), f"{what}: other bits than were written")
