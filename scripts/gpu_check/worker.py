"""A child process as its parent sees it: asked for a check, killed at the check's limit."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from queue import Empty, Queue
from typing import Any, cast

from scripts.gpu_check.listing import Check
from scripts.gpu_check.outcome import Word

IMPORTS_WITHIN = 120.0
"""Seconds that a process may take to start and to import what a check needs."""


class Answer:
    """What a process said of a check.

    Args:
        outcome: The word for it.
        why: Why.
        seconds: How long the check ran.
        numbers: What it measured.
    """

    def __init__(self, outcome: Word, why: str, seconds: float, numbers: dict[str, Any]) -> None:
        self.outcome, self.why, self.seconds, self.numbers = outcome, why, seconds, numbers


class Worker:
    """A process that runs checks. It is started at once.

    Args:
        setting: See `Setting.from_json`.
        variables: Its environment.
    """

    def __init__(self, setting: Mapping[str, Any], variables: Mapping[str, str]) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "scripts.gpu_check.child"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=dict(variables),
            text=True,
            encoding="utf-8",
            errors="replace",
            start_new_session=True,  # so that what it starts is killed with it
        )
        self._said: Queue[dict[str, Any] | None] = Queue()
        self._listener = threading.Thread(target=self._listen, daemon=True)
        self._listener.start()
        self._send(setting)

    def ask(self, check: Check, limit: float) -> Answer:
        """Run a check. The process is killed if it takes longer than its limit.

        Args:
            check: The check.
            limit: Seconds that it may take, without imports.
        """
        numbers: dict[str, Any] = {}
        self._send({"target": check.target})
        begun, end = time.monotonic(), time.monotonic() + IMPORTS_WITHIN
        started = False
        while True:
            try:
                said = self._said.get(timeout=max(0.0, end - time.monotonic()))
            except Empty:
                self.kill()
                spent = time.monotonic() - begun
                what = f"killed after {limit:.3g} s" if started else "it did not start in time"
                return Answer("timeout", what, spent, numbers)
            if said is None:
                return Answer("failed", self._ending(), time.monotonic() - begun, numbers)
            if "started" in said:
                started, begun = True, time.monotonic()
                end = begun + limit
            elif "numbers" in said:
                numbers |= said["numbers"]
            else:
                return Answer(said["outcome"], said["why"], time.monotonic() - begun, numbers)

    @property
    def alive(self) -> bool:
        """Whether it can be asked for another check."""
        return self._process.poll() is None

    def kill(self) -> None:
        """End it and everything that it started."""
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        self._listener.join()
        with suppress(BrokenPipeError):
            cast(Any, self._process.stdin).close()

    def _ending(self) -> str:
        code = self._process.wait()
        self.kill()
        if code < 0:
            return f"its process was ended by {signal.Signals(-code).name}"
        return f"its process ended with code {code}"

    def _send(self, message: Mapping[str, Any]) -> None:
        """Send a line; if the process has ended, its silence says so."""
        pipe = cast(Any, self._process.stdin)
        with suppress(BrokenPipeError):
            print(json.dumps(message), file=pipe, flush=True)

    def _listen(self) -> None:
        with cast(Any, self._process.stdout) as lines:
            for line in lines:
                if line.endswith("\n"):  # else it was killed while it wrote
                    self._said.put(json.loads(line))
        self._said.put(None)
