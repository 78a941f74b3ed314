"""Model work: the maps of a method, one for each sample."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from typing import ClassVar

from vlmlens.abc import AnalysisContext, ModelAdapter, ModelWork, WorkUnit
from vlmlens.abc.model_work import JSON
from vlmlens_plugins.analysis._maps.aims import Aim
from vlmlens_plugins.analysis._maps.maps import PatchMap
from vlmlens_plugins.analysis._maps.methods import METHODS
from vlmlens_plugins.analysis._scoring import parting
from vlmlens_plugins.analysis._sweeps.work import encoded


class MapWork(ModelWork):
    """The map of a sample by a method of `METHODS`; see `PatchMap.to_json`.

    Arguments: "method", its name; "prefix" and "tokens", see `MapMethod`.
    """

    version: ClassVar[int | None] = 1

    def run(self, vlm: ModelAdapter, units: Sequence[WorkUnit]) -> list[JSON]:
        """See `ModelWork.run`."""
        told: list[JSON] = []
        for (method, _, _), alike in groupby(units, key=_alike):
            own = list(alike)
            prefixes = [unit.arguments["prefix"] for unit in own]
            batch = encoded(vlm, [unit.sample for unit in own], prefixes)
            found = METHODS[method](vlm, batch, [unit.arguments["tokens"] for unit in own])
            told += [one.to_json() for one in found]
        return told


def maps_by(context: AnalysisContext, method: str, aims: Sequence[Aim]) -> list[PatchMap]:
    """The map of each sample by a method of `METHODS`.

    Args:
        context: The context of the analysis.
        method: Its name.
        aims: The samples, and what is followed.

    Raises:
        VlmlensError: The model does not offer what the method needs.
    """
    vlm = context.model()
    units = [_unit(vlm, method, aim) for aim in aims]
    return [PatchMap.from_json(one) for one in context.run_units(MapWork(), units)]


def _unit(vlm: ModelAdapter, method: str, aim: Aim) -> WorkUnit:
    """Of a longer answer, its first token is followed; of two, the first in which they differ."""
    own = vlm.answer_ids(aim.answer)
    prefix, tokens = own[:0], own[:1]
    if aim.rival is not None:
        other = vlm.answer_ids(aim.answers[aim.rival])
        apart = parting([own, other])
        if apart is not None:
            prefix, tokens = own[:apart], [own[apart], other[apart]]
    given = {"method": method, "prefix": list(prefix), "tokens": list(tokens)}
    return WorkUnit(aim.sample, given, batch=f"{method} {bool(prefix)} {len(tokens)}")


def _alike(unit: WorkUnit) -> tuple[str, bool, int]:
    given = unit.arguments
    return given["method"], bool(given["prefix"]), len(given["tokens"])
