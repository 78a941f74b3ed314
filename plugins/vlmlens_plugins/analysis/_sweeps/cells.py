"""Plain data of sweeps: what is edited in a cell, and on which samples."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from vlmlens.abc.model_work import JSON
from vlmlens.samples import Sample
from vlmlens_plugins.analysis._sweeps.rows import Drawn


@dataclass(frozen=True, slots=True)
class Change:
    """One edit of a cell.

    Args:
        edit: As text: `llm.block.3/image = patch`, `llm.block.3.attn / last <- image = cut`. With
            a direction, the part after the = is only shown.
        random: Edit as many rows chosen at random among the sample's others, with this seed; None:
            the rows that the text says. Of a cut, as many keys or readers, see `drawn`.
        direction: The name of a direction, see `Item.directions`; "": none.
        strength: How much of the direction is added, or taken away.
        how: Whether the direction is added to the rows, or taken out of those that point along it.
        drawn: What of a cut is drawn at random: the rows that are read, or those that read them.
    """

    edit: str
    random: int | None = None
    direction: str = ""
    strength: float = 1.0
    drawn: Drawn = "keys"
    how: Literal["add", "project-out"] = "add"

    def to_json(self) -> JSON:
        """The change as JSON; left out is what is not used."""
        data: dict[str, JSON] = {"edit": self.edit}
        if self.random is not None:
            data["random"] = self.random
            data |= {} if self.drawn == "keys" else {"drawn": self.drawn}
        if self.direction:
            data |= {"direction": self.direction, "strength": self.strength}
            data |= {} if self.how == "add" else {"how": self.how}
        return data


@dataclass(frozen=True, slots=True)
class Cell:
    """Edits that are made at once.

    Args:
        changes: The edits.
        about: What the cell is, for tables: the site, the rows, whether it is a control. Cells
            with equal entries are draws of one control.
    """

    changes: tuple[Change, ...]
    about: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Item:
    """A sample whose answer is followed while the model is edited.

    Args:
        target: The sample that runs under the edits.
        answers: The answer that is followed; and the one to which it is compared, if there is one.
        donor: The sample from which `patch` and `resample` take rows; None: there is none.
        group: What resampling splits by.
        task: The type of the question.
        under: Edits under which everything of the target runs, also where a cell edits nothing.
        directions: What names of directions in cells mean for this item, where each item has a
            direction of its own.
    """

    target: Sample
    answers: tuple[str, ...]
    donor: Sample | None = None
    group: str = ""
    task: str = ""
    under: tuple[Change, ...] = ()
    directions: Mapping[str, str] = field(default_factory=dict)
