"""One run in several processes on this machine: one worker per GPU, or per share of the cores."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from vlmlens._disk import disk_errors
from vlmlens.abc.observer import SilentObserver
from vlmlens.compose.applicability import check_lasting
from vlmlens.errors import RunError
from vlmlens.manifest import PluginKind
from vlmlens.runner.merge import merge_held
from vlmlens.runner.run_folder import create_sharded, place_of, start_over, unmerged
from vlmlens.runner.stages import ending_recorded
from vlmlens.runs.lock import changing
from vlmlens.runs.run import Run, is_run
from vlmlens.runs.shards import WORKER, Shard

if TYPE_CHECKING:
    from vlmlens.abc.observer import Observer
    from vlmlens.compose.plan import Plan
    from vlmlens.runner.execution import RunMode

_TOLD = 12
_PATIENCE = 30.0


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
    from vlmlens.runner.execution import execute_held

    check_lasting(plan.registry.find(PluginKind.STORAGE, plan.spec.storage))
    watching = observer or SilentObserver()
    path = place_of(plan, mode)
    plan = replace(plan, spec=plan.spec.model_copy(update={"out": str(path)}))
    with disk_errors(), changing(path):
        run = _begun(plan, path, workers, mode)
        if unmerged(run, run.info):
            with ending_recorded(path):
                watching.stage("extract", None)
                extract_in_workers(run, workers, ("--resume",) if mode == "resume" else ())
                watching.stage("merge", None)
                merge_held(run, lambda done, total: watching.advance(done))
        return execute_held(plan, path, mode="resume", observer=observer, extract_only=extract_only)


def _begun(plan: Plan, path: Path, workers: int, mode: RunMode) -> Run:
    """The run in the folder, as it is if it is resumed.

    Raises:
        RunError: It was begun by another number of processes.
    """
    if mode == "fresh" and is_run(path):
        start_over(Run(path, registry=plan.registry), plan)
    if mode != "resume" or not is_run(path):
        return create_sharded(plan, path, workers)
    run = Run(path, registry=plan.registry)
    count = unmerged(run, run.info)
    if count not in (0, workers):
        raise RunError(
            f"The run {str(path)!r} was begun in {count} processes, not in {workers}.",
            subject=str(path),
            hint=f"Go on with --workers {count} --resume, or start over with --fresh.",
        )
    return run


def extract_in_workers(run: Run, count: int, arguments: Sequence[str] = ()) -> None:
    """Extract a run's columns in `count` processes. Each process writes a shard.

    However this process ends, the workers end too: they stop when the pipe that is their standard
    input is closed.

    Args:
        run: The run. Its folder holds the spec.
        count: The number of processes. If there are as many GPUs, each process gets its own.
        arguments: More arguments for `vlmlens extract`, such as `--resume`.

    Raises:
        RunError: A worker failed. The others are stopped, and what is stored stays.
    """
    workers: list[subprocess.Popen[bytes]] = []
    says = [Shard(number, count).path(run.path) / "worker.log" for number in range(count)]
    try:
        for number, path in enumerate(says):
            path.parent.mkdir(parents=True, exist_ok=True)
            workers.append(_start(run, Shard(number, count), arguments, path))
        _wait(workers, says)
    finally:
        for worker in workers:
            _stop(worker)


def _start(run: Run, shard: Shard, arguments: Sequence[str], says: Path) -> subprocess.Popen[bytes]:
    # -P: Python must not import modules that happen to lie in the working folder.
    command = [sys.executable, "-P", "-m", "vlmlens", "extract", "--quiet", "--trust", *arguments]
    command += ["-c", str(run.path / "spec.yaml"), "--out", str(run.path)]
    command += ["--shard", f"{shard.number}/{shard.count}"]
    environment = {**os.environ, WORKER: "1", "PYTHONPATH": _safe(os.environ.get("PYTHONPATH", ""))}
    if "CUDA_VISIBLE_DEVICES" not in environment and _gpus() >= shard.count:
        environment["CUDA_VISIBLE_DEVICES"] = str(shard.number)
    threads = max(1, (os.cpu_count() or 1) // shard.count)
    environment.setdefault("OMP_NUM_THREADS", str(threads))
    with says.open("wb") as file:
        return subprocess.Popen(  # noqa: S603  our own command
            command,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=file,
            stderr=subprocess.STDOUT,
        )


def _safe(path: str) -> str:
    """PYTHONPATH without empty entries, which mean the working folder."""
    return os.pathsep.join(filter(None, path.split(os.pathsep)))


def _stop(worker: subprocess.Popen[bytes]) -> None:
    """End a worker that still runs: it may finish its batch and record its state."""
    if worker.poll() is None:
        worker.terminate()
        try:
            worker.wait(_PATIENCE)
        except subprocess.TimeoutExpired:
            worker.kill()
            worker.wait()
    if worker.stdin is not None:
        worker.stdin.close()


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
    lines = says.read_text(encoding="utf-8", errors="replace").splitlines()[-_TOLD:]
    how = f"was ended by the signal {_signal(-code)}" if code < 0 else f"ended with code {code}"
    told = f" Its last output:\n{chr(10).join(lines)}" if lines else ""
    return RunError(
        f"Worker {number} {how}.{told}",
        subject=str(number),
        hint="Fix the problem, and run the same command with --resume.",
    )


def _signal(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return str(number)


def _gpus() -> int:
    import torch

    return torch.cuda.device_count()
