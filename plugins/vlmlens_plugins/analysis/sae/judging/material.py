"""What SAEs are judged on: rows, samples, and what is known of both."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from vlmlens.errors import DataError
from vlmlens.samples import Sample
from vlmlens.tokens import TokenKind, TokenLayout
from vlmlens_plugins.analysis.sae.held import Split
from vlmlens_plugins.sae import Rows

Layouts = Callable[[Sequence[int]], Sequence[TokenLayout]]
"""From numbers of samples to what their rows stand for, see `feeding.row_layouts`."""

MODALITIES = ("image", "text", "special")
"""Kinds of rows that are judged apart. Special ones are CLS, separators, virtual tokens."""

_OF_KIND = np.full(len(TokenKind), 2, np.int64)
_OF_KIND[[TokenKind.IMAGE, TokenKind.TEXT, TokenKind.ANSWER]] = [0, 1, 1]
_KEPT_BYTES = 2**29
_GROWTH = 4


@dataclass(frozen=True, slots=True)
class Material:
    """What SAEs of one column are judged on.

    Args:
        rows: The rows of the column.
        samples: The run's samples.
        split: Which of them are learnt from, and which are judged.
        targets: Of transcoders: the rows that are predicted; None: the rows themselves.
        layouts: What the rows stand for; None: not known, then nothing is said by modality and
            nothing about patches.
        embeddings: Rows whose mean says what a sample is like, for monosemanticity; None: it is
            not measured.
        embedded: What these rows are, for people: the column.
    """

    rows: Rows
    samples: Sequence[Sample]
    split: Split
    targets: Rows | None = None
    layouts: Layouts | None = None
    embeddings: Rows | None = None
    embedded: str = ""


@dataclass(frozen=True, slots=True)
class Block:
    """The rows of a few samples.

    Args:
        samples: Their numbers.
        rows: float32 `[n, width]`.
        wanted: float32 `[n, outputs]`: what an SAE should give back: the rows, or the targets.
        owner: int64 `[n]`: the place in `samples` that each row belongs to.
        lengths: How many rows each sample has.
        kinds: int64 `[n]`: the place of each row's kind in `MODALITIES`; None if it is not known.
        layouts: Of each sample; empty if they are not known.
    """

    samples: tuple[int, ...]
    rows: torch.Tensor
    wanted: torch.Tensor
    owner: npt.NDArray[np.int64]
    lengths: tuple[int, ...]
    kinds: npt.NDArray[np.int64] | None
    layouts: Sequence[TokenLayout] = ()

    def first(self, samples: int) -> Block:
        """Its first samples."""
        if samples >= len(self.samples):
            return self
        rows = sum(self.lengths[:samples])
        return Block(
            self.samples[:samples], self.rows[:rows], self.wanted[:rows], self.owner[:rows],
            self.lengths[:samples], None if self.kinds is None else self.kinds[:rows],
            self.layouts[:samples],
        )  # fmt: skip


def blocks(material: Material, samples: Sequence[int], most: int, at_once: int) -> Iterator[Block]:
    """The rows of samples, a few samples at a time.

    Args:
        material: Where they come from.
        samples: Numbers of samples, in the order in which they are read.
        most: Stop before there are more rows in all; the first sample is always read.
        at_once: About so many rows in a block.

    Raises:
        DataError: A layout has another number of rows than the sample, or rows are not finite.
    """
    start, size, seen = 0, 1, 0
    while start < len(samples):
        numbers = samples[start : start + size]
        parts = material.rows.read(numbers)
        fits = _fitting([len(part) for part in parts], most - seen, first=start == 0)
        if fits:
            yield _block(material, numbers[:fits], parts[:fits])
        if fits < len(numbers):
            return
        read = sum(len(part) for part in parts)
        seen, start = seen + read, start + size
        size = max(1, min(_GROWTH * size, int(at_once * size / max(1, read))))


def _fitting(lengths: Sequence[int], left: int, *, first: bool) -> int:
    total = np.cumsum(lengths)
    return max(int(first), int(np.searchsorted(total, left, side="right")))


def _block(material: Material, numbers: Sequence[int], parts: Sequence[torch.Tensor]) -> Block:
    rows = torch.cat(list(parts))
    lengths = tuple(len(part) for part in parts)
    layouts = () if material.layouts is None else material.layouts(numbers)
    _check(material, numbers, rows, lengths, layouts)
    kinds = [_OF_KIND[layout.kinds] for layout in layouts]
    wanted = rows
    if material.targets is not None:
        wanted = torch.cat(material.targets.read(numbers))
    if len(wanted) != len(rows):
        raise DataError(
            f"The target has {len(wanted)} rows where the column has {len(rows)}.",
            subject=material.rows.column,
            hint="A transcoder needs two columns with the same selector on the same axis.",
        )
    owner = np.repeat(np.arange(len(numbers)), lengths)
    known = np.concatenate(kinds) if kinds else None
    return Block(tuple(numbers), rows, wanted, owner, lengths, known, layouts)


def _check(
    material: Material,
    numbers: Sequence[int],
    rows: torch.Tensor,
    lengths: Sequence[int],
    layouts: Sequence[TokenLayout],
) -> None:
    column = material.rows.column or "rows"
    if not bool(rows.isfinite().all()):
        raise DataError(
            f"Rows of {column} have numbers that are not finite.",
            subject=column,
            hint="Extract the column again; the model may need another dtype.",
        )
    for number, length, layout in zip(numbers, lengths, layouts, strict=bool(layouts)):
        if len(layout) != length:
            name = material.samples[number].id
            raise DataError(
                f"Sample {name!r} has {length} rows in {column}, and its layout {len(layout)}.",
                subject=name,
                hint="The layouts are those of another column or model.",
            )
