"""A second process meets a run that is being extracted: it is refused, and changes nothing.

python -m benchmarks.attacks.two_processes
python -m benchmarks.attacks.two_processes --rounds 3 --seed 1
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from benchmarks.attacks._processes import columns, ended, forked, plan, table
from vlmlens import Run
from vlmlens.compose.plan import Plan
from vlmlens.errors import VlmlensError
from vlmlens.registry import Registry
from vlmlens.runner.execution import analyze, engine_of, execute
from vlmlens.runner.merge import merge
from vlmlens.runner.run_folder import RunMode
from vlmlens.spec.model import make_spec

SAMPLES = 400
WATCHED = ("run.json", "spec.yaml", "samples.jsonl")

SECOND: dict[str, Callable[[Path], object]] = {
    "--resume": lambda out: execute(_plan(out), mode="resume", extract_only=True),
    "--resume --limit": lambda out: execute(_plan(out, 10), mode="resume", extract_only=True),
    "--fresh": lambda out: execute(_plan(out), mode="fresh", extract_only=True),
    "--fresh --shard 0/2": lambda out: _spread(out, "fresh", "environment", shard="0/2"),
    "--fresh --workers 2": lambda out: _spread(out, "fresh", "processes", workers="2"),
    "--resume --workers 2": lambda out: _spread(out, "resume", "processes", workers="2"),
    "merge": lambda out: merge(Run(out)),
    "analyze": lambda out: analyze(Run(out), {"blind-test": {}}, Registry.default()),
}


def main() -> None:
    """Print how many second processes left the first one alone."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=2, help="of each kind")
    parser.add_argument("--seed", type=int, default=0)
    chosen = parser.parse_args()
    dice = random.Random(chosen.seed)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        execute(_plan(folder / "whole"), extract_only=True)
        right = columns(folder / "whole")
        rows = []
        for kind, second in SECOND.items():
            wrong = 0
            for number in range(chosen.rounds):
                out = folder / f"{len(rows)}-{number}"
                wrong += not _left_alone(out, second, right, dice)
            rows.append((kind, chosen.rounds, wrong))
    table(rows, sum(wrong for _, _, wrong in rows))


def _plan(out: Path, only: int | None = None) -> Plan:
    return plan(out, SAMPLES, only=only)


def _spread(out: Path, mode: RunMode, engine: str, **options: str) -> object:
    spec = make_spec({"engine": engine, "options": {"engine": options}})
    made = engine_of(spec, Registry.default())
    return execute(_plan(out), mode=mode, extract_only=True, engine=made)


def _left_alone(
    out: Path, second: Callable[[Path], object], right: object, dice: random.Random
) -> bool:
    """Whether the second process was refused, and the first one ended as if alone."""
    first = forked(lambda: execute(_plan(out), extract_only=True))
    while _rows(out) < dice.randrange(1, SAMPLES // 2):
        time.sleep(0.01)
    os.kill(first, signal.SIGSTOP)
    before = {name: (out / name).read_bytes() for name in WATCHED}
    code = ended(forked(lambda: second(out)))
    same = before == {name: (out / name).read_bytes() for name in WATCHED}
    os.kill(first, signal.SIGCONT)
    whole = ended(first) == 0 and columns(out) == right
    return code == 2 and same and whole and Run(out).info["state"] == "finished"


def _rows(out: Path) -> int:
    try:
        with Run(out).store() as store:
            return min((info.samples for info in store.columns()), default=0)
    except (OSError, VlmlensError):
        return 0


if __name__ == "__main__":
    main()
