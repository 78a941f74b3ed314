"""A worker for units of an analysis: has the model do what the analysis asks, lease after lease."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from vlmlens.abc.model_work import ModelWork, code_of
from vlmlens.runner.unit_leases import UnitLease, run_lease

if TYPE_CHECKING:
    from vlmlens.abc.adapter import ModelAdapter
    from vlmlens.abc.engine import Json
    from vlmlens.spec.model import RunSpec


class UnitWorker:
    """Runs leases of units.

    Args:
        work: What the model is to do.
        spec: The run's spec.
        vlm: The loaded model.
    """

    def __init__(self, work: ModelWork, spec: RunSpec, vlm: ModelAdapter) -> None:
        self._work = work
        self._vlm = vlm
        self._model = said_of(vlm.describe(), type(vlm), spec)

    def __call__(self, lease: Json, advance: Callable[[int], None]) -> dict[str, Any]:
        """Run a lease, and tell after each batch how many units are done."""
        start = time.perf_counter()
        warnings: list[str] = []
        results = []
        done = 0
        for batch in run_lease(self._vlm, self._work, UnitLease.from_dict(lease), warnings.append):
            results.append(batch)
            done += len(batch)
            advance(done)
        return {
            "results": results,
            "model": self._model,
            "warnings": warnings,
            "seconds": round(time.perf_counter() - start, 3),
        }


def said_of(model: Mapping[str, Any], adapter: type, spec: RunSpec) -> dict[str, Any]:
    """What determines the numbers of a loaded model; a checkpoint with a digest may be moved.

    The adapter's code is part of it, so that whoever writes one never sees results of before.

    Args:
        model: From `ModelAdapter.describe`.
        adapter: The adapter's class.
        spec: The run's spec.
    """
    drop = "checkpoint" if model.get("digest") else None
    said = {name: value for name, value in model.items() if name != drop}
    compiled = {"compiled": True} if spec.compile else {}
    return {**said, "adapter": code_of(adapter), **compiled}
