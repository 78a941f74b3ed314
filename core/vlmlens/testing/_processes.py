"""Processes that write to a store or read it, started by the storage kit."""

from __future__ import annotations

import os
import subprocess
import sys
import threading

from vlmlens.testing._checks import CheckFailed

PATIENCE = 120.0
"""A process that prints nothing for this many seconds has failed."""


class Process:
    """A running `vlmlens.testing._store_process`.

    Args:
        arguments: "write" or "read", the store's target, its location, options as JSON, and for a
            writer the number of its first block.
    """

    def __init__(self, *arguments: str) -> None:
        self._process = subprocess.Popen(  # noqa: S603  our own module
            [sys.executable, "-m", "vlmlens.testing._store_process", *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
        )

    @property
    def pid(self) -> int:
        """The process id."""
        return self._process.pid

    @property
    def returncode(self) -> int | None:
        """The exit code; None while it runs."""
        return self._process.returncode

    def wait_for(self, number: int) -> None:
        """Read lines until one has that number or a larger one."""
        assert self._process.stdout is not None
        watchdog = threading.Timer(PATIENCE, self.kill)
        watchdog.start()
        try:
            while line := self._process.stdout.readline():
                if int(line) >= number:
                    return
        finally:
            watchdog.cancel()
        raise CheckFailed(f"The other process never printed {number}; see its traceback, if any.")

    def kill(self) -> None:
        """`kill -9`."""
        self._process.kill()

    def rest(self) -> list[str]:
        """Close its input, and return its remaining output."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        rest = self._process.stdout.read().split()
        self._process.wait(timeout=PATIENCE)
        return rest

    def end(self) -> None:
        """Kill it, and wait until it has ended."""
        self._process.kill()
        self._process.wait(timeout=PATIENCE)
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()
