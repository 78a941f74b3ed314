"""Edits that have no text: rows chosen at random, and a direction that is added."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from vlmlens.abc.edit_texts import read_edit
from vlmlens.abc.model_work import JSON
from vlmlens.errors import EditError, SelectorError
from vlmlens.passes.edits import EdgeCut, Edit, EditedRows, Need, WrittenEdit
from vlmlens.samples import Sample
from vlmlens.tokens import Ints, Selector, TokenKind, TokenLayout


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
        others = np.setdiff1d(np.arange(len(layout)), kept)
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

    def __str__(self) -> str:
        return f"random[{self.seed}]({self.like})"


@dataclass(frozen=True, slots=True)
class Begun(Selector):
    """The rows of another selector where an answer that is encoded counts as part of the prompt."""

    like: Selector | None = None

    def positions(self, layout: TokenLayout) -> Ints:
        """See `Selector.positions`."""
        assert self.like is not None  # noqa: S101
        kinds = np.where(layout.kinds == TokenKind.ANSWER, TokenKind.TEXT, layout.kinds)
        return self.like.positions(replace(layout, kinds=kinds.astype(layout.kinds.dtype)))

    def __str__(self) -> str:
        return str(self.like)


@dataclass(frozen=True, slots=True, eq=False)
class AddDirection:
    """x + strength v."""

    vector: torch.Tensor
    strength: float
    needs: Need = "nothing"

    def change(self, rows: torch.Tensor, about: EditedRows) -> torch.Tensor:
        """See `Operation.change`."""
        if len(self.vector) != rows.shape[-1]:
            raise EditError(
                f"The direction has {len(self.vector)} numbers, and {about.site.name!r} "
                f"{rows.shape[-1]}.",
                subject=about.site.name,
                hint="Use it at the site where it was learnt.",
            )
        step = self.strength * self.vector.to(rows.device, torch.float32)
        return (rows.float() + step).to(rows.dtype)

    def donor(self, sample: Sample, others: Sequence[Sample]) -> None:
        """None: it needs no donor."""
        del sample, others

    def describe(self) -> Mapping[str, Any]:
        """What it adds."""
        return {"strength": self.strength, "norm": float(self.vector.norm())}


def made(changes: Sequence[JSON], directions: Mapping[str, torch.Tensor]) -> list[Edit | EdgeCut]:
    """The edits of a cell. None of them is strict: an edit may find the rows as it leaves them.

    Args:
        changes: From `Change.to_json`.
        directions: By name.
    """
    return [_made(change, directions) for change in changes]


def _made(change: Mapping[str, JSON], directions: Mapping[str, torch.Tensor]) -> Edit | EdgeCut:
    if "direction" in change:
        written = WrittenEdit.parse(change["edit"])
        adds = AddDirection(directions[change["direction"]], change["strength"])
        rows = Selector.parse(written.selector)
        edit: Edit | EdgeCut = Edit(written.site, rows, adds, written.text, strict=False)
    else:
        edit = read_edit(change["edit"])
    if isinstance(edit, EdgeCut):
        return edit
    if "random" in change:
        edit = replace(edit, selector=RandomRows(like=edit.selector, seed=change["random"]))
    if "begun" in change:
        edit = replace(edit, selector=Begun(like=edit.selector))
    return replace(edit, strict=False)
