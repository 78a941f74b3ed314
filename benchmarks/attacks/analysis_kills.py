"""Workers and drivers of an analysis killed at random moments: no finished unit is run again.

    python -m benchmarks.attacks.analysis_kills
    python -m benchmarks.attacks.analysis_kills --times 2 --only "ray: raylet"

The machines of Ray are two raylets on this machine. After each kill the same command is given again
with another number of workers. It must say that it found what was finished, and its result must be
that of one process, to the last digit.
"""

from __future__ import annotations

import argparse
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from contextlib import closing
from pathlib import Path

from benchmarks.attacks._processes import table
from benchmarks.attacks._ray_nodes import Nodes
from benchmarks.attacks.engine_kills import workers_of

SAMPLES = 240
PATIENCE = 240.0
KINDS = (
    "processes: one worker",
    "processes: driver",
    "ray: actor",
    "ray: raylet",
    "ray: raylet and actor",
    "ray: driver",
)


def main() -> None:
    """Print how many kills were survived."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--times", type=int, default=10, help="kills of each kind")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", default="", help="kinds whose name begins so")
    chosen = parser.parse_args()
    dice = random.Random(chosen.seed)
    kinds = [kind for kind in KINDS if kind.startswith(chosen.only)]
    nodes = Nodes() if any(kind.startswith("ray") for kind in kinds) else None
    rows = []
    try:
        with tempfile.TemporaryDirectory() as name:
            base, whole = Path(name) / "base", Path(name) / "whole"
            _vlmlens("extract", "--limit", SAMPLES, "--sites", "llm.block.3/last", "--out", base)
            shutil.copytree(base, whole)
            _vlmlens("analyze", whole, "--analysis", "blind-test")
            for kind in kinds:
                wrong = 0
                for _ in range(chosen.times):
                    run = Path(name) / "run"
                    shutil.copytree(base, run)
                    machines = nodes if kind.startswith("ray") else None
                    wrong += not _survived(run, whole, kind, machines, dice)
                    shutil.rmtree(run)
                rows.append((kind, chosen.times, wrong))
    finally:
        if nodes:
            nodes.end()
    table(rows, sum(wrong for _, _, wrong in rows))


def _survived(run: Path, whole: Path, kind: str, nodes: Nodes | None, dice: random.Random) -> bool:
    """Attack an analysis, and repeat it; whether it is as in one process."""
    workers, least = dice.randrange(1, 4), dice.randrange(units(whole))
    process = subprocess.Popen(
        _command(run, nodes, workers), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )
    end = time.monotonic() + PATIENCE
    while process.poll() is None and units(run) < least and time.monotonic() < end:
        time.sleep(0.02)
    at = units(run)
    _attack(kind, process, nodes)
    _, told = process.communicate()
    kept = units(run)
    again = dice.choice([number for number in (1, 2, 3) if number != workers])
    done = subprocess.run(_command(run, nodes, again), capture_output=True, text=True, check=False)
    found = []
    if process.returncode not in (0, -signal.SIGKILL):
        found.append(f"ended with {process.returncode}: {told}")
    if done.returncode:
        found.append(f"the repeated command ended with {done.returncode}: {done.stderr}")
    elif kept and f"{kept:,} results from before" not in done.stderr:
        found.append(f"{kept} units were finished, and it said: {done.stderr}")
    elif _result(run) != _result(whole):
        found.append("another result")
    elif units(run) != units(whole):
        found.append(f"{units(run)} units are kept, not {units(whole)}")
    lost = ", loss noticed" * ("was lost" in told or "was ended" in told)
    told = f"{workers} workers, killed at {at} units, {kept} kept, then {again}{lost}"
    print(f"{kind}: {told}: {found or 'whole'}", flush=True)
    return not found


def _attack(kind: str, driver: subprocess.Popen[str], nodes: Nodes | None) -> None:
    if kind.endswith("driver"):
        driver.kill()
    elif nodes is None:
        for worker in workers_of(driver.pid)[:1]:
            _kill(worker)
    elif kind == "ray: actor":
        for actor in nodes.actors()[:1]:
            _kill(actor)
    else:
        raylet = nodes.raylets()[0]
        actors = nodes.actors(raylet) if kind.endswith("actor") else []
        for pid in (raylet, *actors):
            _kill(pid)
        nodes.add()


def units(run: Path) -> int:
    """How many results of units a run has."""
    if not (run / "units.sqlite").exists():
        return 0
    with closing(sqlite3.connect(f"file:{run / 'units.sqlite'}?mode=ro", uri=True)) as base:
        try:
            return int(base.execute("SELECT count(*) FROM results").fetchone()[0])
        except sqlite3.OperationalError:
            return 0


def _result(run: Path) -> bytes:
    return (run / "results" / "blind-test.json").read_bytes()


def _kill(pid: int) -> None:
    subprocess.run(["kill", "-9", str(pid)], check=False, stderr=subprocess.DEVNULL)


def _command(run: Path, nodes: Nodes | None, workers: int) -> list[str]:
    words = ["analyze", str(run), "--analysis", "blind-test", "--fresh"]
    engine = ["ray", "--address", nodes.address] if nodes else ["processes"]
    words += ["--engine", *engine, "--workers", str(workers)]
    return [sys.executable, "-m", "vlmlens", *words]


def _vlmlens(*words: object) -> None:
    command = [sys.executable, "-m", "vlmlens", *map(str, words)]
    subprocess.run(command, check=True, capture_output=True)


if __name__ == "__main__":
    main()
