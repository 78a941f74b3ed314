"""Timing: how long the stages of a run took, how fast it went, and how much memory it took."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from vlmlens.abc.hookspecs import hookimpl

if TYPE_CHECKING:
    from pathlib import Path

    from vlmlens.runs.run import Run

FILE = "timing.json"
_EXTRACT = "extract"
_UNIT = 1 if sys.platform == "darwin" else 1024
"""Bytes per unit of `ru_maxrss`."""


class Timing:
    """Writes plugins/timing.json into each run, stage by stage.

    Rates are taken from the end of the first batch to the end of the last, since the first one pays
    for warming up, and a run that goes on counts what was stored before.
    """

    def __init__(self) -> None:
        self._batches: dict[Path, list[tuple[int, float]]] = {}

    @hookimpl
    def vlmlens_batch_done(self, run: Run, done: int, seconds: float) -> None:
        """Remember when each batch ended."""
        self._batches.setdefault(run.path, []).append((done, seconds))

    @hookimpl
    def vlmlens_stage_done(self, run: Run, stage: str, seconds: float) -> None:
        """Write what is known of the stage; other stages stay as they are."""
        from vlmlens._files import write_json

        known = read(run)
        entry: dict[str, Any] = {"seconds": round(seconds, 3)}
        if stage == _EXTRACT:
            entry |= pace(self._batches.pop(run.path, []))
        stages = {**known.get("stages", {}), stage: entry}
        run.plugins_path.mkdir(exist_ok=True)
        write_json(run.plugins_path / FILE, {"stages": stages, "peak_memory": peak_memory()})

    @hookimpl
    def vlmlens_facts(self, run: Run) -> Mapping[str, Mapping[str, str]] | None:
        """A line on speed, and one on memory."""
        known = read(run)
        return {"Speed": _lines(known)} if known else None


def read(run: Run) -> dict[str, Any]:
    """The run's timing.json; empty where there is none."""
    path = run.plugins_path / FILE
    if not path.is_file():
        return {}
    import json  # here, as `vlmlens --help` imports this module

    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return found


def pace(batches: Sequence[tuple[int, float]]) -> dict[str, Any]:
    """Samples per second and the times of batches.

    Args:
        batches: After each: samples done, seconds since extraction began.

    >>> pace([(4, 3.0), (8, 4.0), (12, 6.0)])["samples_per_second"]
    2.67
    """
    from statistics import median, quantiles

    if not batches:
        return {}
    ends = [0.0, *(seconds for _, seconds in batches)]
    times = [after - before for before, after in pairwise(ends)]
    made: dict[str, Any] = {
        "batches": {
            "count": len(times),
            "median_seconds": round(median(times), 4),
            "p90_seconds": round(quantiles(times, n=10)[-1] if len(times) > 1 else times[0], 4),
            "longest_seconds": round(max(times), 4),
        }
    }
    (first, begin), (last, end) = batches[0], batches[-1]
    if end > begin:
        made["samples_per_second"] = round((last - first) / (end - begin), 2)
    return made


def peak_memory() -> dict[str, int]:
    """The most bytes that this process held so far: of the machine, and of each CUDA device.

    torch is asked only where something else has imported it.
    """
    import resource

    peak = {"host": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * _UNIT}
    torch: Any = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_initialized():
        for number in range(torch.cuda.device_count()):
            peak[f"cuda:{number}"] = int(torch.cuda.max_memory_allocated(number))
    return peak


def _lines(known: Mapping[str, Any]) -> dict[str, str]:
    extract = known["stages"].get(_EXTRACT, {})
    lines = {}
    if "samples_per_second" in extract:
        lines["samples per second"] = str(extract["samples_per_second"])
    if "batches" in extract:
        said = extract["batches"]
        lines["batches"] = (
            f"{said['count']}, median {said['median_seconds']} s, "
            f"longest {said['longest_seconds']} s"
        )
    peaks = (f"{place} {size / 1e9:.2f} GB" for place, size in known["peak_memory"].items())
    return {**lines, "peak memory": ", ".join(peaks)}
