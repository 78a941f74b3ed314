"""Maps of rows: the rows of a few patches are replaced by the mean row, and the score falls or not.

No pixel changes, so the vision tower runs once for a sample. What it has mixed into the rows of
other patches stays there.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import torch

from vlmlens.abc import AnalysisContext, Batch, ModelAdapter, ModelWork, Options, WorkUnit
from vlmlens.passes.growing import fixed_places
from vlmlens.passes.replay import Replay
from vlmlens.samples import Sample
from vlmlens.sites import Axis, Site
from vlmlens.tokens import PatchGrid, Selector, TokenKind
from vlmlens_plugins.analysis._maps.cells import Cells
from vlmlens_plugins.analysis._maps.maps import PatchMap
from vlmlens_plugins.analysis._maps.sliding import Asked, Floats, slid

Ints = npt.NDArray[np.int64]
_IMAGE = Selector.parse("image")
_ROWS = 1024
"""Logits of so many rows are held at once."""


class RowScores(ModelWork):
    """The log-probability of each answer with some image rows replaced by their mean.

    The mean is that of the sample's own image rows at the site. Arguments: "site"; "rows", which of
    the image rows are replaced, none to leave the pass as it is; "answers". Result: a list.
    """

    version: ClassVar[int | None] = 1

    def __init__(self, options: Options | None = None) -> None:
        super().__init__(options)
        self._last: tuple[Any, list[Any], Replay] | None = None

    def run(self, vlm: ModelAdapter, units: Sequence[WorkUnit]) -> list[list[float]]:
        """See `ModelWork.run`. Units of one sample share a pass."""
        told: list[list[float]] = []
        for _, alike in groupby(units, key=_alike):
            told += self._sample(vlm, list(alike))
        return told

    def _sample(self, vlm: ModelAdapter, units: Sequence[WorkUnit]) -> list[list[float]]:
        answers = units[0].arguments["answers"]
        ids = [vlm.answer_ids(answer) for answer in answers]
        if all(len(one) == 1 for one in ids):
            logits = self._passed(vlm, units, None)
            logs = logits[0].double().log_softmax(-1)[:, [one[0] for one in ids]]
            return [row.tolist() for row in logs]
        return np.transpose([self._forced(vlm, units, one) for one in ids]).tolist()  # type: ignore[no-any-return]

    def _forced(
        self, vlm: ModelAdapter, units: Sequence[WorkUnit], answer: Sequence[int]
    ) -> list[float]:
        """The log-probability of an answer of several tokens, all given in turn."""
        length = vlm.encode([units[0].sample], answers=[answer]).layouts[Axis.LLM].total
        size = max(1, _ROWS // length)
        found: list[float] = []
        for start in range(0, len(units), size):
            logits, batch = self._passed(vlm, units[start : start + size], answer)
            flat = logits.flatten(0, 1)
            for layout in batch.layouts[Axis.LLM].samples:
                where = layout.positions(TokenKind.ANSWER)
                before = torch.from_numpy(layout.rows[where - 1]).to(flat.device)
                logs = flat[before].double().log_softmax(-1)
                found.append(float(logs[range(len(answer)), list(answer)].sum()))
        return found

    def _passed(
        self, vlm: ModelAdapter, units: Sequence[WorkUnit], answer: Sequence[int] | None
    ) -> tuple[torch.Tensor, Batch]:
        """The logits of a pass over as many copies of the sample as there are units."""
        replay = self._replay(vlm, units, answer)
        (site,) = vlm.sites.resolve(units[0].arguments["site"])
        chosen = [np.array(unit.arguments["rows"], np.int64) for unit in units]
        logits = replay.logits
        if any(map(len, chosen)):
            replaced: Any = {site.name: _MeanRows(site, replay.batch, chosen)}
            logits = replay.edited(replaced)
        assert logits is not None  # noqa: S101
        return logits, replay.batch

    def _replay(
        self, vlm: ModelAdapter, units: Sequence[WorkUnit], answer: Sequence[int] | None
    ) -> Replay:
        """The pass without replaced rows; the last one is kept."""
        sample, copies = units[0].sample, len(units)
        images = [one if isinstance(one, str) else id(one) for one in sample.images]
        said = (sample.id, sample.prompt, images, copies, answer)
        if self._last is None or self._last[0] != said or self._last[2].vlm is not vlm:
            self._last = None  # frees memory first
            answers = None if answer is None else [answer] * copies
            batch = vlm.encode([sample] * copies, answers=answers)
            replay = vlm.replay(batch, logits="last" if answer is None else "all")
            self._last = (said, list(sample.images), replay)
        return self._last[2]


@dataclass(frozen=True, slots=True, eq=False)
class _MeanRows:
    """Replaces some image rows of each sample by the mean of its image rows.

    Args:
        site: Where.
        batch: The batch.
        chosen: Per sample, which of its image rows.
    """

    site: Site
    batch: Batch
    chosen: Sequence[Ints]

    def __call__(self, activation: torch.Tensor) -> torch.Tensor:
        """The activation with the rows replaced."""
        flat = activation.reshape(-1, activation.shape[-1])
        places = fixed_places(_IMAGE, self.batch.layouts[self.site.axis], self.site, activation)
        made = flat.clone()
        for own, numbers in zip(places, self.chosen, strict=True):
            rows = torch.from_numpy(own.rows).to(flat.device)
            made[rows[torch.from_numpy(numbers).to(flat.device)]] = flat[rows].mean(0)
        return made.reshape(activation.shape)


def row_maps(
    context: AnalysisContext, asked: Asked, site: str, *, window: int = 1
) -> list[PatchMap]:
    """How far the score of the answer falls where rows are replaced, for each cell of the images.

    The rows of a cell are those whose patch has its middle in the cell, in all views. Windows of
    cells are moved as in an occlusion map. Cells without rows have no value.

    Args:
        context: The context of the analysis.
        asked: Per sample, what is followed, and the cells.
        site: Where rows are replaced: the name of a single site.
        window: Cells along each side of a window.

    Raises:
        CompositionError: Image rows have no place in the image.
    """
    vlm = context.model()
    owners = [_cells_of(patch_grid(vlm, aim.sample, site), cells) for aim, cells in asked]

    def scored(numbers: Sequence[int], hidden: Sequence[Sequence[Ints]]) -> list[list[Floats]]:
        units = []
        for i, sets in zip(numbers, hidden, strict=True):
            aim, _ = asked[i]
            for own in sets:
                rows = np.flatnonzero(np.isin(owners[i], own)).tolist()
                given = {"site": site, "rows": rows, "answers": list(aim.answers)}
                units.append(WorkUnit(aim.sample, given, batch=f"{aim.sample.id} {site}"))
        found = iter(context.run_units(RowScores(), units))
        return [[np.array(next(found)) for _ in sets] for sets in hidden]

    made = []
    for own, at, (_, cells) in zip(slid(asked, window, scored), owners, asked, strict=True):
        kept = np.unique(at[at >= 0])
        made.append(PatchMap(own[kept], cells.grid.take(kept)))
    return made


def patch_grid(vlm: ModelAdapter, sample: Sample, site: str) -> PatchGrid:
    """Where the image rows of a sample lie at a site.

    Raises:
        CompositionError: They have no place in the image, or there are none.
    """
    (found,) = vlm.sites.resolve(site)
    layout = vlm.encode([sample]).layouts[found.axis].samples[0]
    return PatchMap.of(np.zeros(len(layout.positions(TokenKind.IMAGE))), layout).grid


def _cells_of(grid: PatchGrid, cells: Cells) -> Ints:
    """int64 `[image rows]`: the cell in which the middle of each row's patch is; -1: nowhere."""
    box = grid.box.astype(np.float64)
    middle = cells.side * (box[:, :2] + box[:, 2:]) / 2
    nowhere = np.isnan(middle[:, :1] + middle[:, 1:])
    x, y = np.where(nowhere, 0, middle).clip(0, cells.side - 1).astype(np.int64).T
    return np.where(nowhere[:, 0], -1, (grid.image * cells.side + y) * cells.side + x)


def _alike(unit: WorkUnit) -> str:
    given = unit.arguments
    images = [one if isinstance(one, str) else id(one) for one in unit.sample.images]
    return repr((unit.sample.id, unit.sample.prompt, images, given["site"], given["answers"]))
