"""Stored columns grouped by selector, read a few samples at a time."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from vlmlens.abc import ColumnStore, Values
from vlmlens.errors import CompositionError
from vlmlens.tokens import Column, Selector, TokenKind
from vlmlens_plugins.analysis._blocks import ColumnBlocks
from vlmlens_plugins.analysis._columns import in_order
from vlmlens_plugins.analysis.logit_lens.vocabulary import Hidden

_BLOCK = re.compile(r"llm\.block\.\d+/")
_SHARE = 4
"""Of the memory that the lens may take, a quarter holds rows on their way in."""


@dataclass(frozen=True, slots=True)
class Group:
    """Columns of one selector: the same positions at several layers.

    Args:
        selector: What they keep.
        columns: Names, in order of depth.
    """

    selector: Selector
    columns: tuple[str, ...]

    @property
    def name(self) -> str:
        """The selector, for people."""
        return str(self.selector)

    def final(self, site: str) -> str:
        """The column of the same positions from which the model itself answers."""
        return f"{site}/{self.selector}"


@dataclass(frozen=True, slots=True)
class Rows:
    """Some samples' positions at all layers of a group.

    Args:
        samples: Numbers of the samples.
        layers: Per layer `[n, width]`, sample after sample.
        final: `[n, width]`, of the model's last block.
        lengths: Positions per sample.
    """

    samples: tuple[int, ...]
    layers: Sequence[Hidden]
    final: Hidden
    lengths: tuple[int, ...]

    def spans(self) -> Iterator[tuple[int, slice]]:
        """Each sample's number, and its rows."""
        ends = np.cumsum(self.lengths)
        for number, length, end in zip(self.samples, self.lengths, ends, strict=True):
            yield number, slice(int(end) - length, int(end))


def groups(columns: Sequence[str]) -> list[Group]:
    """Columns by selector, those with one position per sample first.

    Raises:
        CompositionError: A column holds no positions of the language model's residual stream.
    """
    found: dict[str, list[str]] = {}
    for name in columns:
        selector = Column.parse(name).selector
        if not _holds_positions(name):
            raise CompositionError(
                f"The logit lens cannot read {name!r}: it needs single positions of the language "
                "model's residual stream.",
                subject=name,
                hint="Use llm.block.*/last, /all, /text, /image, or /steps with --generate.",
            )
        found.setdefault(str(selector), []).append(name)
    made = [Group(Selector.parse(s), tuple(in_order(names))) for s, names in found.items()]
    return sorted(made, key=lambda group: group.selector.ragged)


def readable(columns: Sequence[str]) -> list[str]:
    """The columns of language blocks' own outputs that hold positions, in order of depth."""
    return in_order(name for name in columns if _BLOCK.match(name) and _holds_positions(name))


def _holds_positions(column: str) -> bool:
    selector = Column.parse(column).selector
    return column.startswith("llm.") and not selector.pool and selector.kind != TokenKind.ANSWER


def stream(
    store: ColumnStore, group: Group, final: str, ids: Sequence[str], megabytes: float
) -> Iterator[Rows]:
    """A group's rows, a few samples at a time, in the written order of the final column.

    Args:
        store: The run's columns.
        group: What to read.
        final: The column from which the model itself answers.
        ids: Of all samples, in order.
        megabytes: About how much a part may take; a part is at least one sample.
    """
    at_once = int(megabytes * 2**20) // _SHARE // (len(group.columns) + 1)
    for block in ColumnBlocks(store, final, ids, at_once):
        names = [ids[place] for place in block.places]
        layers = _layers(store, group, final, names, block.values)
        lengths = block.values.lengths or (1,) * len(names)
        yield Rows(tuple(block.places.tolist()), layers, block.values.numpy(), tuple(lengths))


def _layers(
    store: ColumnStore, group: Group, final: str, names: Sequence[str], last: Values
) -> list[Hidden]:
    layers = []
    for column in group.columns:
        values = last if column == final else store.read(column, names)
        if values.lengths != last.lengths:
            raise CompositionError(
                f"The columns {column!r} and {final!r} hold different positions.", subject=column
            )
        layers.append(values.numpy())
    return layers


def nothing_finite(group: Group) -> CompositionError:
    """The error where no sample of a group can be read."""
    return CompositionError(
        f"No sample has positions {group.name} with finite numbers.",
        subject=group.columns[-1],
        hint="Extract in float32, choose other columns, or samples that have such positions.",
    )


def first_with_rows(store: ColumnStore, column: str, ids: Sequence[str], count: int) -> list[int]:
    """The numbers of the first so many samples that have a row in a column."""
    found: list[int] = []
    for number, name in enumerate(ids):
        if len(found) == count:
            break
        if len(store.read(column, [name]).array):
            found.append(number)
    return found
