"""One run in several processes on this machine: one worker per GPU, or per share of the cores."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from vlmlens.abc.observer import SilentObserver
from vlmlens.compose.applicability import check_lasting
from vlmlens.errors import RunError
from vlmlens.manifest import PluginKind
from vlmlens.runner.merge import merge
from vlmlens.runner.run_folder import shard_plan, start_over
from vlmlens.runs.run import Run
from vlmlens.runs.shards import Shard

if TYPE_CHECKING:
    from vlmlens.abc.observer import Observer
    from vlmlens.compose.plan import Plan
    from vlmlens.runner.execution import RunMode

_TOLD = 12


def execute_in_workers(
    plan: Plan,
    workers: int,
    *,
    mode: RunMode = "new",
    observer: Observer | None = None,
    extract_only: bool = False,
) -> Run:
    """Execute a plan with several processes on this machine that extract its columns.

    Args:
        plan: From `compose`.
        workers: The number of processes.
        mode: See `execute`.
        observer: Receives progress, notes and warnings.
        extract_only: Whether to stop after extraction.

    Raises:
        CompositionError: The storage keeps columns in the memory of one process.
        RunError: A worker failed.
    """
    from vlmlens.runner.execution import execute, next_folder

    check_lasting(plan.registry.find(PluginKind.STORAGE, plan.spec.storage))
    watching = observer or SilentObserver()
    path = Path(plan.spec.out) if plan.spec.out else next_folder(plan.spec.adapter)
    plan = replace(plan, spec=plan.spec.model_copy(update={"out": str(path)}))
    if mode == "fresh" and (path / "run.json").is_file():
        start_over(Run(path, registry=plan.registry), plan)
    shard_plan(plan, Shard(0, workers), mode)
    run = Run(path, registry=plan.registry)
    if run.info["state"] == "sharded":
        watching.stage("extract", None)
        extract_in_workers(run, workers, ("--resume",) if mode == "resume" else ())
        watching.stage("merge", None)
        merge(run, lambda done, total: watching.advance(done))
    return execute(plan, mode="resume", observer=observer, extract_only=extract_only)


def extract_in_workers(run: Run, count: int, arguments: Sequence[str] = ()) -> None:
    """Extract a run's columns in `count` processes. Each process writes a shard.

    Args:
        run: The run. Its folder holds the spec.
        count: The number of processes. If there are as many GPUs, each process gets its own.
        arguments: More arguments for `vlmlens extract`, such as `--resume`.

    Raises:
        RunError: A worker failed. The others are stopped, and what is stored stays.
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
    command = [sys.executable, "-m", "vlmlens", "extract", "--quiet", "--trust", *arguments]
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
        f"Worker {number} ended with code {code}. Its last output:\n{told}",
        subject=str(number),
        hint="Fix the problem, and run the same command with --resume.",
    )


def _gpus() -> int:
    import torch

    return torch.cuda.device_count()
