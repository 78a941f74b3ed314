"""Tables of occlusion."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from vlmlens.results import Cell, Table
from vlmlens_plugins.analysis._maps.curves import area_under
from vlmlens_plugins.analysis._results import table
from vlmlens_plugins.analysis._sweeps.scores import number
from vlmlens_plugins.analysis.occlusion.measured import Measured
from vlmlens_plugins.analysis.occlusion.worth import Faith, Peaks, Worth

_KEYS = ("task", "method")


def tables(measured: Measured, found: Worth) -> list[Table]:
    """How faithful methods are, ranked; where their peaks are; and both by sample."""
    made = [_faith(found.faith)]
    if found.peaks:
        made.append(_peaks(found.peaks))
    return [*made, _samples(measured)]


def _faith(found: Mapping[str, Mapping[str, Faith]]) -> Table:
    rows: list[dict[str, Cell]] = [
        {
            "task": task,
            "method": method,
            "samples": len(one.deletion),
            "deletion": float(one.deletion.mean()),
            "insertion": float(one.insertion.mean()),
            "gap": one.gap,
            "gap_low": one.low,
            "gap_high": one.high,
            "over_random": one.over,
            "p": number(one.p),
        }
        for task, own in found.items()
        for method, one in own.items()
    ]
    title = "Areas under deletion and insertion curves, and the gap by which maps are ranked"
    return table("faithfulness", title, rows, _KEYS)


def _peaks(found: Mapping[str, Mapping[str, Peaks]]) -> Table:
    rows: list[dict[str, Cell]] = [
        {
            "task": task,
            "method": method,
            "samples": len(one.hits),
            "in_region": one.share,
            "in_region_low": one.low,
            "in_region_high": one.high,
            "chance": one.chance,
            "centre": one.centre,
            "p": one.p,
        }
        for task, own in found.items()
        for method, one in own.items()
    ]
    title = "How often the peak of a map lies in the region that the answer is about"
    return table("peaks", title, rows, _KEYS)


def _samples(measured: Measured) -> Table:
    rows: list[dict[str, Cell]] = []
    for i, aim in enumerate(measured.aims):
        for method, maps in measured.maps.items():
            curves, region = measured.curves[method][i], measured.regions[i]
            rows.append(
                {
                    "sample": aim.sample.id,
                    "task": aim.task,
                    "method": method,
                    "answer": aim.answer,
                    "probability": float(curves.deletion[0]),
                    "all_hidden": float(curves.deletion[-1]),
                    "largest": float(np.max(maps[i].values)),
                    "deletion": area_under(curves.deletion),
                    "insertion": area_under(curves.insertion),
                    "gap": curves.gap,
                    "in_region": None if region is None else region.hit(maps[i]),
                }
            )
    return table("samples", "Each map of each sample", rows, _KEYS)
