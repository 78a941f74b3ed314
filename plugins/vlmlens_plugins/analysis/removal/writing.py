"""Model work: the states of words, and texts that are written while objects are taken out."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from typing import ClassVar

import torch
from pydantic import Field

from vlmlens.abc import ModelAdapter, ModelWork, Options, WorkUnit
from vlmlens.abc.model_work import JSON
from vlmlens.passes.edits import Edit
from vlmlens.tokens import Selector
from vlmlens_plugins.analysis._answer_work import WriteOptions
from vlmlens_plugins.analysis._sweeps.operations import AlongDirection
from vlmlens_plugins.analysis.steering.rows import MeanRows


class EditedOptions(WriteOptions):
    """Options of `EditedTexts`."""

    directions: dict[str, list[float]] = Field(
        default_factory=dict, description="What is taken away, by name."
    )


class EditedTexts(ModelWork):
    """The text that the model writes under an edit.

    Arguments: "edit", None or its "site", "rows", "how" and "strength", see `Change`;
    "directions", the names of those that are taken away, one after the other.
    """

    Options: ClassVar[type[Options]] = EditedOptions
    options: EditedOptions
    version: ClassVar[int | None] = 1

    def run(self, vlm: ModelAdapter, units: Sequence[WorkUnit]) -> list[str]:
        """See `ModelWork.run`."""
        times = Counter(unit.sample.id for unit in units)
        together: dict[str, list[int]] = {}
        for number, unit in enumerate(units):
            repeated = unit.arguments["directions"] if times[unit.sample.id] > 1 else None
            alike = json.dumps([unit.arguments["edit"], repeated], sort_keys=True)
            together.setdefault(alike, []).append(number)
        found: dict[int, str] = {}
        for numbers in together.values():
            found |= zip(numbers, self._written(vlm, [units[i] for i in numbers]), strict=True)
        return [found[number] for number in range(len(units))]

    def _written(self, vlm: ModelAdapter, units: Sequence[WorkUnit]) -> list[str]:
        batch = vlm.encode([unit.sample for unit in units])
        edits = self._edits(units[0].arguments["edit"], units)
        made = vlm.generate(batch, max_new_tokens=self.options.max_new_tokens, edits=edits)
        return [each.text for each in made]

    def _edits(self, edit: JSON, units: Sequence[WorkUnit]) -> list[Edit]:
        """One edit for the first direction of each sample, one for the second, and so on."""
        if edit is None:
            return []
        named = {unit.sample.id: unit.arguments["directions"] for unit in units}
        found = []
        for k in range(max(map(len, named.values()))):
            vectors = {
                sample: torch.tensor(self.options.directions[names[k]])
                for sample, names in named.items()
                if k < len(names)
            }
            along = AlongDirection(vectors, edit["strength"], edit["how"])
            text = f"{edit['site']}/{edit['rows']} = {edit['how']}"
            found.append(
                Edit(edit["site"], Selector.parse(edit["rows"]), along, text, strict=False)
            )
        return found


class WordRows(MeanRows):
    """As `MeanRows`, without the edits of the run: those of image rows find none in a word."""

    def run(self, vlm: ModelAdapter, units: Sequence[WorkUnit]) -> list[list[str]]:
        """See `ModelWork.run`."""
        held = list(vlm.active_edits)
        vlm.active_edits.clear()
        try:
            return super().run(vlm, units)
        finally:
            vlm.active_edits.extend(held)
