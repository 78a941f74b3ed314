"""The edits of a cell, also those that have no text: random rows, or a direction."""

from __future__ import annotations

import json
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
class AlongDirection:
    """A direction is added to rows, or taken out of those that point along it.

    Args:
        vectors: By sample id; "": that of all other samples, which else stay as they are.
        strength: How much of it.
        how: See `Change.how`.
    """

    vectors: Mapping[str, torch.Tensor]
    strength: float
    how: str
    needs: Need = "nothing"

    def change(self, rows: torch.Tensor, about: EditedRows) -> torch.Tensor:
        """See `Operation.change`."""
        found = self.vectors.get(about.sample.id, self.vectors.get(""))
        if found is None:
            return rows
        if len(found) != rows.shape[-1]:
            raise EditError(
                f"The direction has {len(found)} numbers, and {about.site.name!r} "
                f"{rows.shape[-1]}.",
                subject=about.site.name,
                hint="Use it at the site where it was learnt.",
            )
        vector, exact = found.to(rows.device, torch.float32), rows.float()
        if self.how == "project-out":
            return projected_out(exact, vector, self.strength).to(rows.dtype)
        return (exact + self.strength * vector).to(rows.dtype)

    def donor(self, sample: Sample, others: Sequence[Sample]) -> None:
        """None: it needs no donor."""
        del sample, others

    def describe(self) -> Mapping[str, Any]:
        """What it does, and how much of it."""
        norms = {name: float(one.norm()) for name, one in self.vectors.items()}
        return {"strength": self.strength, "norm": norms, "how": self.how}


def projected_out(rows: torch.Tensor, vector: torch.Tensor, strength: float) -> torch.Tensor:
    """`x - strength * (x . v) / (v . v) * v` for rows x that point along v; others stay.

    The intervention `project-out(positive=true)` does the same with a direction in a file.

    Args:
        rows: float32 `[k, width]`.
        vector: float32 `[width]`.
        strength: 1 leaves nothing of the direction.
    """
    along = (rows @ vector / (vector @ vector))[:, None]
    return torch.where(along > 0, rows - strength * along * vector, rows)


def files_of(read: Read, text: str) -> JSON:
    """What an edit does beyond what its text says: digests of the files that it names.

    Args:
        read: Reads an edit that is written as text.
        text: The edit.
    """
    written = WrittenEdit.parse(text)
    if written.keys or not (written.positional or written.named):
        return {}
    return _beyond_text(read(text))


def _beyond_text(edit: Edit | EdgeCut) -> JSON:
    said = edit.describe()
    return json.loads(json.dumps({k: v for k, v in said.items() if k not in ("edit", "options")}))


def made(
    changes: Sequence[JSON],
    directions: Mapping[str, torch.Tensor],
    read: Read,
    own: Mapping[str, Mapping[str, str]],
) -> list[Edit | EdgeCut]:
    """The edits of a cell. None of them is strict: an edit may find the rows as it leaves them.

    Args:
        changes: From `Change.to_json`.
        directions: By name.
        read: Reads an edit that is written as text, as `Registry.edit` does.
        own: By sample id, what names of directions mean for that sample: other names.
    """
    return [_made(change, directions, read, own) for change in changes]


def _made(
    change: Mapping[str, JSON],
    directions: Mapping[str, torch.Tensor],
    read: Read,
    own: Mapping[str, Mapping[str, str]],
) -> Edit | EdgeCut:
    written = WrittenEdit.parse(change["edit"])
    if written.keys:
        return cut_of(written, change.get("random"), change.get("drawn", "keys"))
    if "direction" in change:
        name, rows = change["direction"], Selector.parse(written.selector)
        meant = {sample: names[name] for sample, names in own.items() if name in names}
        vectors = {sample: directions[each] for sample, each in meant.items()}
        vectors[""] = directions[name] if name in directions else torch.zeros(0)
        along = AlongDirection(vectors, change["strength"], change.get("how", "add"))
        edit: Edit | EdgeCut = Edit(written.site, rows, along, written.text, strict=False)
    else:
        edit = read(change["edit"])
        if "files" in change and change["files"] != _beyond_text(edit):
            raise EditError(
                f"A file that {written.text!r} names is another one than when the sweep began.",
                subject=written.text,
                hint="Run it again; on several machines, with the same file on each.",
            )
    assert isinstance(edit, Edit)  # noqa: S101
    if "random" in change:
        edit = replace(edit, selector=RandomRows(like=edit.selector, seed=change["random"]))
    return replace(edit, strict=False)
