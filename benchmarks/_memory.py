"""The private memory of a command: its own and that of the processes that it starts."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

_PRIVATE = ("RssAnon", "RssShmem", "VmSwap")
_EVERY = 0.01


@dataclass(frozen=True)
class Watched:
    """How a command went.

    Args:
        code: Its exit code.
        peak: Bytes of private memory at the peak: anonymous, shared without a file, swapped. The
            pages of mapped files, such as a store's, are not counted: the system takes them back.
        seconds: On the clock.
        cpu: Of the processor.
    """

    code: int
    peak: int
    seconds: float
    cpu: float


def watched(command: Sequence[str], environment: Mapping[str, str] | None = None) -> Watched:
    """Run a command to its end. What it prints goes where this process prints.

    Args:
        command: Program and arguments.
        environment: Variables to change.
    """
    start, before, peak = time.perf_counter(), os.times(), 0
    with subprocess.Popen(command, env={**os.environ, **(environment or {})}) as process:
        while process.poll() is None:
            peak = max(peak, sum(map(private, _family(process.pid))))
            time.sleep(_EVERY)
    after = os.times()
    used = after.children_user + after.children_system
    used -= before.children_user + before.children_system
    return Watched(process.returncode, peak, time.perf_counter() - start, used)


def private(process: int) -> int:
    """Bytes of a process's private memory now; 0 if it has ended."""
    try:
        text = Path(f"/proc/{process}/status").read_text(encoding="utf-8")
    except (FileNotFoundError, ProcessLookupError):
        return 0
    lines = (line.partition(":") for line in text.splitlines())
    return sum(1024 * int(value.split()[0]) for name, _, value in lines if name in _PRIVATE)


def _family(process: int) -> list[int]:
    """A process and all that descend from it."""
    found = [process]
    for parent in found:
        for task in Path(f"/proc/{parent}/task").glob("*/children"):
            try:
                found += map(int, task.read_text(encoding="ascii").split())
            except (FileNotFoundError, ProcessLookupError):
                continue
    return found
