"""The edits of a cell, also those that have no text: random rows, a direction that is added."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import torch

from vlmlens.abc.model_work import JSON
from vlmlens.errors import EditError
from vlmlens.passes.edits import EdgeCut, Edit, EditedRows, Need, WrittenEdit
from vlmlens.samples import Sample
from vlmlens.tokens import Selector
from vlmlens_plugins.analysis._sweeps.rows import RandomRows, cut_of

Read: TypeAlias = Callable[[str], Edit | EdgeCut]
"""Reads an edit that is written as text."""


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


def made(
    changes: Sequence[JSON], directions: Mapping[str, torch.Tensor], read: Read
) -> list[Edit | EdgeCut]:
    """The edits of a cell. None of them is strict: an edit may find the rows as it leaves them.

    Args:
        changes: From `Change.to_json`.
        directions: By name.
        read: Reads an edit that is written as text, as `Registry.edit` does.
    """
    return [_made(change, directions, read) for change in changes]


def _made(
    change: Mapping[str, JSON], directions: Mapping[str, torch.Tensor], read: Read
) -> Edit | EdgeCut:
    written = WrittenEdit.parse(change["edit"])
    if written.keys:
        return cut_of(written, change.get("random"), change.get("drawn", "keys"))
    if "direction" in change:
        adds = AddDirection(directions[change["direction"]], change["strength"])
        rows = Selector.parse(written.selector)
        edit: Edit | EdgeCut = Edit(written.site, rows, adds, written.text, strict=False)
    else:
        edit = read(change["edit"])
    assert isinstance(edit, Edit)  # noqa: S101
    if "random" in change:
        edit = replace(edit, selector=RandomRows(like=edit.selector, seed=change["random"]))
    return replace(edit, strict=False)
