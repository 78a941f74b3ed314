"""Workers, machines and drivers killed at random moments: each run ends whole, bit for bit.

    python -m benchmarks.attacks.engine_kills
    python -m benchmarks.attacks.engine_kills --times 2 --seed 1 --only "ray: raylet"

The machines of Ray are two raylets on this machine. After each kill the run is resumed with another
number of workers, also if it has ended by itself. Then each column must have each sample once, with
the bits of one process, and no attempt at a lease may have left anything that does not count.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import signal
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from benchmarks.attacks._processes import SITES, columns, ended, forked, plan, table
from benchmarks.attacks._ray_nodes import Nodes
from vlmlens import Run
from vlmlens.abc.observer import SilentObserver
from vlmlens.errors import VlmlensError
from vlmlens.registry import Registry
from vlmlens.runner.execution import engine_of, execute
from vlmlens.runs.leases import lease_plans
from vlmlens.spec.model import make_spec

SAMPLES = 1200
PATIENCE = 240.0


class _Warnings(SilentObserver):
    """Prints warnings."""

    def warn(self, message: str) -> None:
        """See `Observer.warn`."""
        print(message, flush=True)


@dataclass
class Round:
    """One run that is attacked.

    Args:
        out: Its folder.
        nodes: The machines of Ray; None: the engine is `processes`.
        dice: What decides.
    """

    out: Path
    nodes: Nodes | None
    dice: random.Random
    driver: int = 0

    def start(self, workers: int) -> None:
        """Start the driver, or resume the run."""
        self.driver = forked(lambda: self._extract(workers), self.out.with_suffix(".log"))

    def _extract(self, workers: int) -> None:
        options: dict[str, object] = {"workers": workers}
        if self.nodes:
            options["address"] = self.nodes.address
        name = "ray" if self.nodes else "processes"
        spec = make_spec({"engine": name, "options": {"engine": options}})
        engine = engine_of(spec, Registry.default())
        execute(
            plan(self.out, SAMPLES),
            mode="resume",
            extract_only=True,
            engine=engine,
            observer=_Warnings(),
        )

    def workers(self) -> list[int]:
        """The process ids of the workers."""
        return self.nodes.actors() if self.nodes else _workers_of(self.driver)

    def until(self, true: Callable[[], bool]) -> int | None:
        """Wait until something is true; if the driver ends before: its exit code."""
        end = time.monotonic() + PATIENCE
        while not true():
            found, status = os.waitpid(self.driver, os.WNOHANG)
            if found:
                return os.waitstatus_to_exitcode(status)
            if time.monotonic() > end:
                print(f"the driver did not end in {PATIENCE:g} s")
                os.kill(self.driver, signal.SIGKILL)
                return ended(self.driver)
            time.sleep(0.02)
        return None

    def wait(self) -> int | None:
        """Wait for the driver's end: its exit code, or minus a signal."""
        return self.until(lambda: False)


def _kill(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return


def _one_worker(run: Round) -> None:
    for pid in run.dice.sample(found := run.workers(), min(1, len(found))):
        _kill(pid)


def _all_workers(run: Round) -> None:
    for pid in run.workers():
        _kill(pid)


def _driver(run: Round) -> None:
    _kill(run.driver)


def _raylet(run: Round) -> None:
    assert run.nodes
    _kill(run.nodes.raylets()[0])
    run.nodes.add()


def _machine(run: Round) -> None:
    assert run.nodes
    raylet = run.nodes.raylets()[0]
    actors = run.nodes.actors(raylet)
    for pid in (raylet, *actors):
        _kill(pid)
    run.nodes.add()


def _head(run: Round) -> None:
    """The machine of the driver: the cluster cannot go on, and is started anew."""
    assert run.nodes
    _kill(run.nodes.raylets()[-1])


KINDS: dict[str, Callable[[Round], None]] = {
    "processes: one worker": _one_worker,
    "processes: all workers": _all_workers,
    "processes: driver": _driver,
    "ray: actor": _one_worker,
    "ray: raylet": _raylet,
    "ray: raylet and actor": _machine,
    "ray: driver": _driver,
    "ray: raylet of the driver": _head,
}


def main() -> None:
    """Print how many kills were survived."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--times", type=int, default=10, help="kills of each kind")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", default="", help="kinds whose name begins so")
    chosen = parser.parse_args()
    kinds = [name for name in KINDS if name.startswith(chosen.only)]
    dice = random.Random(chosen.seed)
    nodes = Nodes() if any(name.startswith("ray") for name in kinds) else None
    rows = []
    try:
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            execute(plan(folder / "whole", SAMPLES), extract_only=True)
            right = columns(folder / "whole")
            for kind in kinds:
                machines = nodes if kind.startswith("ray") else None
                wrong = 0
                for _ in range(chosen.times):
                    wrong += not _survived(kind, Round(folder / "run", machines, dice), right)
                    shutil.rmtree(folder / "run")
                rows.append((kind, chosen.times, wrong))
    finally:
        if nodes:
            nodes.end()
    table(rows, sum(wrong for _, _, wrong in rows))


def _survived(kind: str, run: Round, right: dict[str, list[bytes]]) -> bool:
    """Attack a run, and resume it; whether it is whole."""
    workers = run.dice.randrange(1, 4)
    run.start(workers)
    done, after = run.dice.randrange(16), run.dice.uniform(0.0, 0.5)
    early = kind.endswith("driver") and done < 4
    if early:
        after = run.dice.uniform(0.0, 5.0)
    code = run.until(lambda: early or (bool(run.workers()) and _done(run.out) >= done))
    if code is None:
        time.sleep(after)
        at = _done(run.out)
        KINDS[kind](run)
        code = run.wait()
        if KINDS[kind] is _head and run.nodes:
            run.nodes.restart()
    else:
        at = _done(run.out)
    noticed = "was lost" in run.out.with_suffix(".log").read_text()
    again = run.dice.choice([n for n in (1, 2, 3) if n != workers])
    run.start(again)
    resumed = run.wait()
    found = _faults(run.out, right)
    if (code != 0 and not kind.endswith("driver")) or resumed != 0:
        found.append(f"the driver ended with {code}, then with {resumed}")
        print(run.out.with_suffix(".log").read_text())
    told = f"{workers} workers, {at} leases done, ended with {code}, then {again}"
    print(f"{kind}: {told}{', loss noticed' * noticed}: {found or 'whole'}", flush=True)
    return not found


def _done(out: Path) -> int:
    return len(list(out.glob("leases/*/*.done")))


def _faults(out: Path, right: dict[str, list[bytes]]) -> list[str]:
    """What is wrong with a run that should be whole."""
    try:
        run = Run(out)
        ids = sorted(sample.id for sample in run.samples)
        found = [] if run.info["state"] == "finished" else [f"it is {run.info['state']}"]
        with run.store() as store:
            found += [f"{s}: not each id once" for s in SITES if sorted(store.ids(s)) != ids]
        if columns(out) != right:
            found.append("other bits")
    except VlmlensError as error:
        return [str(error)]
    for leases in lease_plans(out):
        kept = {f"{name}-{leases.receipt(name)['attempt']}" for name in leases.done()}
        begun = {f"{name}-{key}" for name in leases.names for key in leases.attempts(name)}
        there = {path.name for path in leases.folder.glob("*-*/")}
        found += [f"left: {name}" for name in (begun | there) - kept]
    return found


def _workers_of(driver: int) -> list[int]:
    """The worker processes that a driver has started."""
    found: list[int] = []
    for path in Path(f"/proc/{driver}/task").glob("*/children"):
        for child in path.read_text().split():
            command = Path(f"/proc/{child}/cmdline")
            if command.exists() and b"worker_process" in command.read_bytes():
                found.append(int(child))
    return found


if __name__ == "__main__":
    main()
