"""Rows that sweeps mean, beyond the selectors that have a text: chosen at random, or all behind."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from vlmlens.errors import SelectorError
from vlmlens.passes.edits import EdgeCut, WrittenEdit
from vlmlens.tokens import Ints, Selector, TokenLayout

LATER = "later"
"""In a cut, the queries that are all rows behind the first key, but the keys themselves."""

Drawn = Literal["keys", "readers"]
"""What is drawn at random in a control of a cut."""


@dataclass(frozen=True, slots=True)
class RandomRows(Selector):
    """As many rows as another selector keeps, chosen at random among the rows that it does not.

    Where the rows are all of one kind, so are these: image rows for image rows, if there are
    enough. The choice depends on the seed and on the layout, not on the batch.
    """

    like: Selector | None = None
    seed: int = 0

    def positions(self, layout: TokenLayout) -> Ints:
        """See `Selector.positions`."""
        assert self.like is not None  # noqa: S101
        kept = self.like.positions(layout)
        others = np.setdiff1d(self._pool(layout), kept)
        kinds = set(layout.kinds[kept].tolist())
        alike = others[np.isin(layout.kinds[others], list(kinds))]
        pool = alike if len(alike) >= len(kept) else others
        if len(pool) < len(kept):
            raise SelectorError(
                f"{self.like} keeps {len(kept)} of {len(layout)} rows, so there are not as many "
                "others.",
                subject=str(self.like),
                hint="Choose fewer rows, or controls=0.",
            )
        drawn = np.random.default_rng([self.seed, len(layout), len(kept), int(kept[0])])
        return np.sort(drawn.choice(pool, len(kept), replace=False))

    def _pool(self, layout: TokenLayout) -> Ints:
        return np.arange(len(layout))

    def __str__(self) -> str:
        return f"random[{self.seed}]({self.like})"


@dataclass(frozen=True, slots=True)
class RandomKeys(RandomRows):
    """Random rows that all queries of a cut can read, but not the queries themselves."""

    queries: Selector | None = None

    def _pool(self, layout: TokenLayout) -> Ints:
        assert self.queries is not None  # noqa: S101
        return np.arange(int(self.queries.positions(layout)[0]))


@dataclass(frozen=True, slots=True)
class RandomReaders(RandomRows):
    """Random rows that can read all keys of a cut."""

    keys: Selector | None = None

    def _pool(self, layout: TokenLayout) -> Ints:
        assert self.keys is not None  # noqa: S101
        return np.arange(int(self.keys.positions(layout)[-1]) + 1, len(layout))


@dataclass(frozen=True, slots=True)
class Without(Selector):
    """The rows of one selector that another does not keep."""

    like: Selector | None = None
    other: Selector | None = None

    def positions(self, layout: TokenLayout) -> Ints:
        """See `Selector.positions`."""
        assert self.like is not None  # noqa: S101
        assert self.other is not None  # noqa: S101
        kept = np.setdiff1d(self.like.positions(layout), self.other.positions(layout))
        if not len(kept):
            raise SelectorError(
                f"All rows of {self.like} are also rows of {self.other}.",
                subject=str(self.like),
                hint="A row keeps reading itself: choose others.",
            )
        return kept

    def __str__(self) -> str:
        return f"{self.like} without {self.other}"


@dataclass(frozen=True, slots=True)
class Later(Selector):
    """All rows behind the first of some keys, but the keys themselves."""

    keys: Selector | None = None

    def positions(self, layout: TokenLayout) -> Ints:
        """See `Selector.positions`."""
        assert self.keys is not None  # noqa: S101
        keys = self.keys.positions(layout)
        found = np.setdiff1d(np.arange(int(keys[0]), len(layout)), keys)
        if not len(found):
            raise SelectorError(
                f"No row comes after {self.keys}.", subject=str(self.keys), hint="Cut other rows."
            )
        return found

    def __str__(self) -> str:
        return LATER


def cut_of(written: WrittenEdit, seed: int | None = None, drawn: Drawn = "keys") -> EdgeCut:
    """A cut as sweeps make it: a row keeps reading itself, and queries may be `later`.

    It is not strict: layers with a short window close nothing where others do.

    Args:
        written: The cut as text, taken apart.
        seed: Of the control; None: the cut itself.
        drawn: What of the control is random: the keys, among the rows before all queries; or the
            readers, among the rows behind all keys.
    """
    later = written.selector == LATER
    known = replace(written, selector="last") if later else written
    cut = known.cut
    queries: Selector = Later(keys=cut.keys) if later else cut.queries
    keys: Selector = Without(like=cut.keys, other=queries)
    if seed is not None and drawn == "keys":
        keys = RandomKeys(like=keys, seed=seed, queries=queries)
    elif seed is not None:
        queries = RandomReaders(like=queries, seed=seed, keys=keys)
    return replace(cut, queries=queries, keys=keys, strict=False)
