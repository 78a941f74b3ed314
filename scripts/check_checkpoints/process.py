"""Steps in another process, with a time limit each; one that dies or hangs ends only its step."""

from __future__ import annotations

import json
import os
import selectors
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scripts.check_checkpoints.records import FAILED, ROOT

_COMMAND = (sys.executable, "-m", "scripts.check_checkpoints", "work")


@dataclass(frozen=True, slots=True)
class Job:
    """Steps to do on one checkpoint.

    Args:
        adapter: The adapter's name.
        model: The checkpoint's folder.
        device: Where it runs.
        dtype: The type of its weights, but for the kit.
        runs: The folder for runs.
        log: The file that gets what the process prints.
        limit: Seconds that a step may take.
        full: Whether it is the full checkpoint.
    """

    adapter: str
    model: str
    device: str
    dtype: str
    runs: Path
    log: Path
    limit: float
    full: bool


@dataclass(frozen=True, slots=True)
class Ended:
    """A step that ended.

    Args:
        step: Its name.
        outcome: What happened.
        text: In one line.
        data: More of it.
        seconds: How long it took; of the first one, with the start of the process.
    """

    step: str
    outcome: Any
    text: str
    data: dict[str, Any]
    seconds: float


def done(job: Job, steps: Sequence[str]) -> Iterator[Ended]:
    """Do steps and give each as it ends. After a crash, a new process does the rest.

    Args:
        job: On what, and how.
        steps: Names of the steps.
    """
    left = list(steps)
    while left:
        for ended in _in_one_process(job, left):
            left.remove(ended.step)
            yield ended


def _in_one_process(job: Job, steps: Sequence[str]) -> Iterator[Ended]:
    """The steps that one process ends, by itself or by its own end; at least one."""
    left = list(steps)
    begun = time.monotonic()
    with _started(job, steps) as process:
        lines = _Lines(process)
        while left:
            message = lines.next(begun + job.limit)
            if message is None:
                hung = process.poll() is None
                _stop(process)
                why = f"it took longer than {job.limit:g} s" if hung else _death(process, job)
                yield Ended(left[0], FAILED, why, {}, time.monotonic() - begun)
                return
            if "end" in message:
                left.remove(message["end"])
                yield Ended(
                    message["end"], message["outcome"], message["text"], message["data"],
                    time.monotonic() - begun,
                )  # fmt: skip
                begun = time.monotonic()


class _Lines:
    """The messages of a process."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        assert process.stdout is not None
        self._file = process.stdout.fileno()
        self._process = process
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._file, selectors.EVENT_READ)
        self._rest = b""

    def next(self, until: float) -> dict[str, Any] | None:
        """The next message; None if there is none until then, or the process has ended."""
        while b"\n" not in self._rest:
            if not self._selector.select(max(until - time.monotonic(), 0)):
                return None
            piece = os.read(self._file, 65536)
            if not piece:
                self._process.wait()
                return None
            self._rest += piece
        line, _, self._rest = self._rest.partition(b"\n")
        found: dict[str, Any] = json.loads(line)
        return found


class _started:  # noqa: N801  used as a function
    """A process that does the steps; it is stopped at the end of the block."""

    def __init__(self, job: Job, steps: Sequence[str]) -> None:
        job.log.parent.mkdir(parents=True, exist_ok=True)
        suites = job.runs.parent.parent / "suites"
        suites.mkdir(parents=True, exist_ok=True)
        given = {
            "adapter": job.adapter, "model": job.model, "device": job.device, "dtype": job.dtype,
            "runs": str(job.runs), "full": job.full, "steps": list(steps),
        }  # fmt: skip
        environment = {
            "HF_HUB_OFFLINE": "1", **os.environ, "VLMLENS_TINY_CHECKPOINTS": str(suites),
        }  # fmt: skip
        with job.log.open("ab") as log:
            self._process = subprocess.Popen(
                _COMMAND, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, cwd=ROOT,
                env=environment, start_new_session=True,
            )  # fmt: skip
        assert self._process.stdin is not None
        with suppress(BrokenPipeError):
            self._process.stdin.write(json.dumps(given).encode() + b"\n")
            self._process.stdin.flush()

    def __enter__(self) -> subprocess.Popen[bytes]:
        return self._process

    def __exit__(self, *error: object) -> None:
        _stop(self._process)
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                with suppress(OSError):
                    pipe.close()


def _stop(process: subprocess.Popen[bytes]) -> None:
    """Kill a process, and those that it started."""
    if process.returncode is None:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _death(process: subprocess.Popen[bytes], job: Job) -> str:
    code = process.returncode
    if code < 0:
        name = signal.Signals(-code).name
        short = "; memory may have run out" if code == -signal.SIGKILL else ""
        return f"its process was ended by {name}{short}; {job.log} has what it printed"
    return f"its process ended with code {code}; {job.log} has what it printed"
