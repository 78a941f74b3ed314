"""Processes on this machine. One that is lost is replaced, and its lease is run again."""

from __future__ import annotations

import json
import os
import queue
import signal
import subprocess
import sys
import threading
from collections import deque
from typing import IO, Any, cast

from vlmlens.abc.engine import Engine, Json, Work
from vlmlens_plugins.engines._gpus import VISIBLE, check_enough, number_of, share, visible
from vlmlens_plugins.engines._handout import Handout, WorkerOptions, failed

_TOLD = 12
_PATIENCE = 10.0


class Processes(Engine):
    """Hands leases to processes on this machine.

    Args:
        options: The number of workers.
    """

    Options = WorkerOptions

    def __init__(self, options: WorkerOptions) -> None:
        super().__init__(options)
        self._count = options.most
        self._asked = options.gpus_per_worker
        self._each = 1.0 if self._asked is None else self._asked

    def check(self) -> None:
        """See `Engine.check`."""
        if self._asked:
            self.check_gpus()

    def check_gpus(self) -> None:
        """See `Engine.check_gpus`."""
        gpus = number_of()
        if gpus or self._asked:
            check_enough(self._count, self._each, gpus, lambda count: f"--workers {count}")

    @property
    def on_gpus(self) -> bool | None:
        """See `Engine.on_gpus`."""
        return None if self._each else False

    def run(self, work: Work) -> None:
        """See `Engine.run`."""
        handout = Handout(work, "Worker")
        pool = _Pool(work.order, min(self._count, handout.left), self._variables)
        try:
            while not handout.over:
                pool.step(handout)
        finally:
            pool.end()

    def _variables(self, number: int, count: int) -> dict[str, str]:
        """The environment of a worker."""
        path = os.pathsep.join(filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep)))
        found = {**os.environ, "PYTHONPATH": path}
        threads = max(1, (os.cpu_count() or 1) // count)
        found.setdefault("OMP_NUM_THREADS", str(threads))
        if number_of():
            found[VISIBLE] = ",".join(share(visible(), number, self._each))
        return found


class _Pool:
    """The processes.

    Args:
        order: What they begin with.
        count: How many there are.
        variables: The environment of the process of a number, among so many.
    """

    def __init__(self, order: Json, count: int, variables: Any) -> None:
        self._order = order
        self._variables = variables
        self._count = count
        self._said: queue.Queue[tuple[_Process, dict[str, Any] | None]] = queue.Queue()
        self._processes: dict[int, _Process] = {}
        for number in range(count):
            self._start(number)

    def step(self, handout: Handout) -> None:
        """Wait until a process says something, and answer it."""
        process, said = self._said.get()
        number = process.number
        if said is None:
            self._lost(process, handout)
        elif "error" in said:
            raise failed(number, said["error"])
        elif "done" in said:
            handout.advance(number, said["done"])
        else:
            if "receipt" in said:
                handout.finish(number, said["receipt"])
            process.idle = True
            self._hand_out(handout)

    def _hand_out(self, handout: Handout) -> None:
        for process in self._processes.values():
            if process.idle and (lease := handout.take(process.number)) is not None:
                process.idle = False
                process.send({"lease": lease})

    def _start(self, number: int) -> None:
        process = _Process(number, self._variables(number, self._count), self._said)
        self._processes[number] = process
        process.send({"order": self._order})

    def _lost(self, process: _Process, handout: Handout) -> None:
        number, how = process.number, process.how_it_ended()
        del self._processes[number]
        handout.lost(number, how)
        if handout.left:
            self._start(number)
            self._hand_out(handout)

    def end(self) -> None:
        """End all processes: each one when its standard input is closed."""
        for process in self._processes.values():
            process.close()
        for process in self._processes.values():
            process.wait()


class _Process:
    """A worker process.

    Args:
        number: Its number.
        variables: Its environment.
        said: Gets what it says; None when it has ended.
    """

    def __init__(
        self,
        number: int,
        variables: dict[str, str],
        said: queue.Queue[tuple[_Process, dict[str, Any] | None]],
    ) -> None:
        self.number = number
        self.idle = False
        self._said = said
        self._last: deque[str] = deque(maxlen=_TOLD)
        # -P: Python must not import modules that happen to lie in the working folder.
        self._popen = subprocess.Popen(
            [sys.executable, "-P", "-m", "vlmlens.runner.worker_process"],
            env=variables,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            encoding="utf-8",
            errors="replace",
        )
        self._input = cast(IO[str], self._popen.stdin)
        self._output = cast(IO[str], self._popen.stdout)
        self._told = cast(IO[str], self._popen.stderr)
        self._errors = threading.Thread(target=self._collect, daemon=True)
        self._errors.start()
        self._listener = threading.Thread(target=self._listen, daemon=True)
        self._listener.start()

    def send(self, message: Json) -> None:
        """Send a line; nothing happens if the process has ended, which it says by itself."""
        try:
            print(json.dumps(message, ensure_ascii=False), file=self._input, flush=True)
        except (BrokenPipeError, ValueError):
            return

    def close(self) -> None:
        """Let the process end."""
        try:
            self._input.close()
        except BrokenPipeError:
            return

    def wait(self) -> None:
        """Wait until it has ended; kill it if that takes too long."""
        try:
            self._popen.wait(_PATIENCE)
        except subprocess.TimeoutExpired:
            self._popen.kill()
            self._popen.wait()
        self.close()
        for thread in (self._errors, self._listener):
            thread.join(_PATIENCE)

    def how_it_ended(self) -> str:
        """What to tell of a process that has ended."""
        code = self._popen.wait()
        self.wait()
        how = f"was ended by {_signal(-code)}" if code < 0 else f"ended with code {code}"
        told = "\n".join(self._last)
        return f"{how}. Its last output:\n{told}" if told else f"{how}."

    def _listen(self) -> None:
        with self._output:
            for line in self._output:
                if line.endswith("\n"):  # else it was killed while it wrote
                    self._said.put((self, json.loads(line)))
        self._said.put((self, None))

    def _collect(self) -> None:
        with self._told:
            for line in self._told:
                self._last.append(line.rstrip())


def _signal(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
