"""Which rows of an activation a selector means while the model writes.

In a pass over a prompt, a layout says it. While a model generates, the first call of a module sees
the prompt; later ones see the new tokens alone (with a KV cache) or everything so far (without).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np

from vlmlens.errors import EditError, SelectorError, SiteShapeError
from vlmlens.sites import Axis, Site
from vlmlens.tokens import AxisLayout, Ints, Selector, TokenKind, TokenLayout, layout_of

if TYPE_CHECKING:
    import torch

_ABSENT = -1


@dataclass(frozen=True, slots=True)
class Places:
    """The selected rows of one sample in one activation.

    Args:
        positions: int64 `[k]`: places among the sample's rows.
        rows: int64 `[k]`: row numbers of the flattened activation.
    """

    positions: Ints
    rows: Ints


def fixed_places(
    selector: Selector, layout: AxisLayout, site: Site, activation: torch.Tensor
) -> list[Places]:
    """The selected rows of every sample in a pass over whole prompts.

    Raises:
        SiteShapeError: The activation does not have the rows of its axis.
        SelectorError: A sample has no such row.
    """
    found = layout_of(activation, layout, site)
    return [_places(selector, sample) for sample in found.samples]


@dataclass(slots=True)
class GrowingPlaces:
    """The selected rows of every sample, call by call, while the model writes.

    Args:
        selector: Which rows. Rows of the answer can only be counted from its beginning.
        layout: The layout of the prompts on the site's axis.
        site: The site.

    Raises:
        EditError: The selector counts from the end of the answer, which is not known yet.
    """

    selector: Selector
    layout: AxisLayout
    site: Site
    _first: int | None = field(default=None, init=False)
    _written: int = field(default=0, init=False)

    def __post_init__(self) -> None:
        index = self.selector.index
        ends = (index.start, index.stop) if isinstance(index, slice) else (index,)
        if self._of_answer and any(end is not None and end < 0 for end in ends):
            raise EditError(
                f"{str(self.selector)!r} counts from the end of an answer that is being written.",
                subject=str(self.selector),
                hint="Count from its beginning: steps[0], answer[:3].",
            )

    @property
    def _of_answer(self) -> bool:
        return self.selector.steps or self.selector.kind == TokenKind.ANSWER

    def of(self, activation: torch.Tensor) -> list[Places]:
        """The selected rows in the activation of the next call; some samples may have none.

        Raises:
            SiteShapeError: The activation does not have equally many rows for every sample.
        """
        if self.site.axis is not Axis.LLM:
            return fixed_places(self.selector, self.layout, self.site, activation)
        rows, samples = math.prod(activation.shape[:-1]), len(self.layout.samples)
        if rows % samples:
            raise SiteShapeError(
                f"The site {self.site.name!r} gave {rows} rows for {samples} samples.",
                subject=self.site.name,
                hint="Edits while generating need equally many rows for each; choose a block.",
            )
        return self.of_length(rows // samples)

    def of_length(self, length: int, *, writing: bool = True) -> list[Places]:
        """The selected rows where every sample has `length` rows.

        Args:
            length: The rows of a sample in the next call.
            writing: Whether the model writes; else the call is a pass over whole prompts.

        Raises:
            SiteShapeError: A pass over prompts has another length than they.
        """
        samples = self.layout.samples
        if not writing:
            if length * len(samples) != self.layout.total:
                raise SiteShapeError(
                    f"The attention at {self.site.name!r} has {length} queries, and the "
                    f"{self.site.axis.value} axis {self.layout.total} rows for "
                    f"{len(samples)} samples.",
                    subject=self.site.name,
                    hint="Cut edges in the language model.",
                )
            return [_places(self.selector, sample) for sample in samples]
        whole = self._count(length)
        return [self._of_sample(i, length, whole=whole) for i in range(len(samples))]

    def columns(self, length: int, queries: GrowingPlaces) -> list[Ints]:
        """Per sample, int64: the selected rows as places among `length` keys.

        Args:
            length: How many keys each query of the current call sees, from the first token on.
            queries: The queries of that call.
        """
        self._written = queries._written
        if queries._first is None:  # a pass over whole prompts
            return [_places(self.selector, sample).rows % length for sample in self.layout.samples]
        found = [self._of_sample(i, length, whole=True) for i in range(len(self.layout.samples))]
        return [one.rows - i * length for i, one in enumerate(found)]

    def _count(self, length: int) -> bool:
        """Note how many tokens are written, and say whether this call sees the prompt."""
        if self._first is None:
            self._first = length
            return True
        if length > self._first:
            self._written = length - self._first
            return True
        self._written += length
        return False

    def _of_sample(self, i: int, length: int, *, whole: bool) -> Places:
        """The places of one sample.

        Rows are counted from the end, where transformers has the last token of every prompt. One
        more token is always on its way; its row is not there yet.
        """
        prompt = self.layout.samples[i]
        width = self.layout.total // len(self.layout.samples)
        before = prompt.rows - i * width
        at = before - (before[-1] + 1) + length - self._written
        own = np.where((at >= 0) & whole, at, _ABSENT)
        written = np.arange(self._written, dtype=np.int64) + length - self._written
        rows = np.concatenate([own, np.where(written >= 0, written, _ABSENT), [_ABSENT]])
        kinds = np.full(self._written + 1, TokenKind.ANSWER, np.uint8)
        ids = prompt.token_ids
        grown = replace(
            prompt,
            rows=np.where(rows < 0, _ABSENT, rows + i * length),
            kinds=np.concatenate([prompt.kinds, kinds]),
            token_ids=None if ids is None else np.pad(ids, (0, len(kinds)), constant_values=-1),
        )
        try:
            places = _places(self.selector, grown)
        except SelectorError:
            if not self._of_answer:
                raise
            places = Places(rows[:0], rows[:0])  # not written yet
        there = places.rows >= 0
        return Places(places.positions[there], places.rows[there])


def _places(selector: Selector, sample: TokenLayout) -> Places:
    positions = selector.positions(sample)
    return Places(positions, sample.rows[positions])
