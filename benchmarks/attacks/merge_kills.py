"""A merge killed at every file that it makes, renames or removes: no sample is ever lost.

The same for `--fresh`, which has to leave a run that can be started over.

    python -m benchmarks.attacks.merge_kills
    python -m benchmarks.attacks.merge_kills --rounds 20
"""

from __future__ import annotations

import argparse
import random
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

from benchmarks.attacks._processes import columns, killed_at, plan, table
from vlmlens import Run
from vlmlens.runner.execution import execute
from vlmlens.runner.merge import merge
from vlmlens.runner.run_folder import start_over
from vlmlens.testing.engine import OneByOne

SAMPLES = 40


def main() -> None:
    """Print how many kills were survived."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=0, help="kills of each kind; 0: all")
    parser.add_argument("--seed", type=int, default=0)
    chosen = parser.parse_args()
    dice = random.Random(chosen.seed)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        execute(plan(folder / "leases", SAMPLES), extract_only=True, engine=OneByOne())
        execute(plan(folder / "whole", SAMPLES), extract_only=True)
        rows = [
            _attacked(folder, "leases", "merge", _merge, _merged, chosen.rounds, dice),
            _attacked(folder, "whole", "--fresh", _fresh, _started_over, chosen.rounds, dice),
        ]
    table(rows, sum(wrong for _, _, wrong in rows))


def _attacked(
    folder: Path,
    source: str,
    name: str,
    work: Callable[[Path], object],
    good: Callable[[Path, Path], bool],
    rounds: int,
    dice: random.Random,
) -> tuple[str, int, int]:
    """Kill the work at all its steps, or at some; what was tried, and what went wrong."""
    run, points = folder / "run", range(1000)
    if rounds:
        points = range(_steps(folder, source, work))
        points = dice.sample(points, min(rounds, len(points)))  # type: ignore[assignment]
    tried = wrong = 0
    for number in points:
        shutil.copytree(folder / source, run)
        killed = killed_at(number, lambda: work(run))
        fine = good(run, folder / source)
        shutil.rmtree(run)
        if not killed:
            break
        tried += 1
        wrong += not fine
        if not fine:
            print(f"{name}: wrong after a kill at step {number}")
    return name, tried, wrong


def _steps(folder: Path, source: str, work: Callable[[Path], object]) -> int:
    number = 0
    while True:
        shutil.copytree(folder / source, folder / "run")
        killed = killed_at(number, lambda: work(folder / "run"))
        shutil.rmtree(folder / "run")
        if not killed:
            return number
        number += 1


def _merge(run: Path) -> None:
    merge(Run(run))


def _fresh(run: Path) -> None:
    start_over(Run(run), plan(run, SAMPLES))


def _merged(run: Path, source: Path) -> bool:
    """Whether all samples are there right after the kill, and after a second merge."""
    right = columns(source)
    now = columns(run) == right
    if (run / "leases").exists():
        merge(Run(run))
    left = [path.name for path in run.rglob("*.tmp")]
    return now and columns(run) == right and not (run / "leases").exists() and not left


def _started_over(run: Path, source: Path) -> bool:
    """Whether the run goes on, and ends as it would have."""
    execute(plan(run, SAMPLES), mode="resume", extract_only=True)
    return columns(run) == columns(source)


if __name__ == "__main__":
    main()
