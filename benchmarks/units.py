"""What running an analysis's model work by units costs beside a bare loop over batches.

Both score the choices of the demo scenes, in turn, in one process. The loop calls the work on
batches of sixteen. The units are cut, run, and kept in a run's folder, which is new each time. Then
units that are known are looked up, as a repeated analysis does: some cells of a sweep per sample.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

import vlmlens
from benchmarks._compare import in_turn, table
from vlmlens.abc import WorkUnit
from vlmlens.abc.model_work import keys_of
from vlmlens.abc.unit_batches import cut, results_of, run_batches
from vlmlens.runs.unit_results import unit_results
from vlmlens_plugins.analysis._answer_work import ChoiceScores
from vlmlens_plugins.demo.dataset import DemoDataset, DemoOptions

SIZE = 16


def main() -> None:
    """Print times."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--scenes", type=int, default=64)
    parser.add_argument("--cells", type=int, default=100)
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    vlm = vlmlens.load("demo", device="cpu")
    samples = DemoDataset("scenes", DemoOptions(scenes=chosen.scenes)).samples([])
    units = [WorkUnit(sample, {"choices": list(sample.choices)}) for sample in samples]
    ways = Ways(vlm, units)
    times = in_turn({"bare loop": ways.bare, "units": ways.kept}, chosen.rounds)
    print(table(times, "bare loop", per=len(units), unit="unit"))
    cells = [
        WorkUnit(sample, {"cell": cell, "site": "llm.block.3", "rows": "image"}, f"{cell}")
        for cell in range(chosen.cells)
        for sample in samples
    ]
    print(f"{len(cells)} known units: {1e6 * look_up(cells):.1f} microseconds per unit")


@dataclass
class Ways:
    """Two ways through the same batches.

    Args:
        vlm: The demo model.
        units: What to do.
    """

    vlm: Any
    units: Sequence[WorkUnit]

    def bare(self) -> None:
        """A loop, whose results are thrown away."""
        work = ChoiceScores()
        for start in range(0, len(self.units), SIZE):
            work.run(self.vlm, self.units[start : start + SIZE])

    def kept(self) -> None:
        """As an analysis in a run does it."""
        work = ChoiceScores()
        with tempfile.TemporaryDirectory() as folder, unit_results(Path(folder)) as kept:
            assert kept is not None
            keys = keys_of(work, self.units, self.vlm.describe())
            known = kept.read(keys)
            batches = cut(self.units, keys, SIZE)
            parts = ([self.units[i] for i in batch] for batch in batches)
            found = zip(batches, run_batches(self.vlm, work, parts, print), strict=True)
            results_of(
                self.units, keys, known, found, keep=kept.add, progress=lambda done, total: None
            )


def look_up(units: Sequence[WorkUnit]) -> float:
    """Seconds per unit for finding results that are known."""
    work = ChoiceScores()
    with tempfile.TemporaryDirectory() as folder, unit_results(Path(folder)) as kept:
        assert kept is not None
        kept.add({key: {"gain": 0.123456789} for key in keys_of(work, units, {})})
        start = time.perf_counter()
        keys = keys_of(work, units, {})
        known = kept.read(keys)
        cut(units, keys, SIZE)
        assert len(known) == len(units)
        return (time.perf_counter() - start) / len(units)


if __name__ == "__main__":
    main()
