"""One run in several processes of this machine: a worker per GPU, or per part of the cores."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from vlmlens._version import __version__
from vlmlens.errors import RunError, RunExists, SpecError
from vlmlens.manifest import PluginKind
from vlmlens.observer import SilentObserver
from vlmlens.runs import Run
from vlmlens.shards import Shard, merge
from vlmlens.suitability import check_lasting

if TYPE_CHECKING:
    from vlmlens.observer import Observer
    from vlmlens.plan import Plan
    from vlmlens.runner import RunMode

_TOLD = 12


def execute_in_workers(
    plan: Plan,
    workers: int,
    *,
    mode: RunMode = "new",
    observer: Observer | None = None,
    extract_only: bool = False,
) -> Run:
    """Carry out a plan whose columns several processes of this machine extract.

    Args:
        plan: From `compose`.
        workers: How many processes.
        mode: As for `execute`.
        observer: Told how it goes.
        extract_only: Stop after the columns.

    Raises:
        CompositionError: The storage keeps columns in one process.
        RunError: A worker failed.
    """
    from vlmlens.runner import execute, next_folder

    check_lasting(plan.registry.find(PluginKind.STORAGE, plan.spec.storage))
    watching = observer or SilentObserver()
    path = Path(plan.spec.out) if plan.spec.out else next_folder(plan.spec.adapter)
    plan = replace(plan, spec=plan.spec.model_copy(update={"out": str(path)}))
    if mode == "fresh" and (path / "run.json").is_file():
        Run(path, registry=plan.registry).clear()
    shard_plan(plan, Shard(0, workers), mode)
    run = Run(path, registry=plan.registry)
    if run.info["state"] == "sharded":
        watching.stage("extract", None)
        extract_in_workers(run, workers, ("--resume",) if mode == "resume" else ())
        watching.stage("merge", None)
        merge(run, lambda done, total: watching.advance(done))
    return execute(plan, mode="resume", observer=observer, extract_only=extract_only)


def shard_plan(plan: Plan, shard: Shard, mode: str) -> Plan:
    """The plan of one shard; the first one leaves the run's own spec and samples beside them.

    Args:
        plan: Of the whole run.
        shard: The part.
        mode: As of `vlmlens.runner.execute`.

    Raises:
        CompositionError: The storage keeps columns in one process.
        SpecError: The plan names no folder.
        RunExists: The folder holds a run of another kind, and mode is "new".
    """
    check_lasting(plan.registry.find(PluginKind.STORAGE, plan.spec.storage))
    if plan.spec.out is None:
        raise SpecError(
            "Shards need a folder that all of them know.", subject="out", hint="Give --out."
        )
    path = Path(plan.spec.out)
    own = Run(path, registry=plan.registry) if (path / "run.json").is_file() else None
    state = own.info.get("state") if own else None
    if own is not None and state != "sharded" and mode == "new":
        raise RunExists(
            f"{str(path)!r} already holds a run ({state}).",
            subject=str(path),
            hint="Use --fresh to start over, or another --out.",
        )
    if shard.number == 0 and (own is None or mode == "fresh"):
        info = {
            "state": "sharded",
            "vlmlens": __version__,
            "columns": plan.columns,
            "suggested": dict(plan.suggested),
            "notes": list(plan.notes),
        }
        run = Run.create(path, plan.spec, info, registry=plan.registry)
        run.write_samples(plan.samples)
        run.write_skipped(plan.skipped)
    spec = plan.spec.model_copy(update={"out": str(shard.path(path))})
    return replace(plan, spec=spec)


def extract_in_workers(run: Run, count: int, arguments: Sequence[str] = ()) -> None:
    """Extract a run's columns in `count` processes, each writing a shard.

    Args:
        run: Its folder holds the spec.
        count: How many; with as many GPUs, each has one of its own.
        arguments: More arguments of `vlmlens extract`: `--resume`.

    Raises:
        RunError: A worker failed; the others are ended, and what is stored stays.
    """
    with tempfile.TemporaryDirectory() as folder:
        says = [Path(folder, str(number)) for number in range(count)]
        workers = [
            _start(run, Shard(number, count), arguments, path) for number, path in enumerate(says)
        ]
        try:
            _wait(workers, says)
        finally:
            for worker in workers:
                if worker.poll() is None:
                    worker.terminate()
                    worker.wait()


def _start(run: Run, shard: Shard, arguments: Sequence[str], says: Path) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "vlmlens", "extract", "--quiet", *arguments]
    command += ["-c", str(run.path / "spec.yaml"), "--out", str(run.path)]
    command += ["--shard", f"{shard.number}/{shard.count}"]
    environment = dict(os.environ)
    if "CUDA_VISIBLE_DEVICES" not in environment and _gpus() >= shard.count:
        environment["CUDA_VISIBLE_DEVICES"] = str(shard.number)
    threads = max(1, (os.cpu_count() or 1) // shard.count)
    environment.setdefault("OMP_NUM_THREADS", str(threads))
    with says.open("wb") as file:
        return subprocess.Popen(  # noqa: S603  our own command
            command, env=environment, stdout=file, stderr=subprocess.STDOUT
        )


def _wait(workers: Sequence[subprocess.Popen[bytes]], says: Sequence[Path]) -> None:
    running = dict(enumerate(workers))
    while running:
        for number, worker in list(running.items()):
            try:
                code = worker.wait(0.1)
            except subprocess.TimeoutExpired:
                continue
            del running[number]
            if code:
                raise _failed(number, code, says[number])


def _failed(number: int, code: int, says: Path) -> RunError:
    told = "\n".join(says.read_text(encoding="utf-8", errors="replace").splitlines()[-_TOLD:])
    return RunError(
        f"Worker {number} ended with code {code}. It said:\n{told}",
        subject=str(number),
        hint="Go on with the same command and --resume once that is mended.",
    )


def _gpus() -> int:
    import torch

    return torch.cuda.device_count()
