"""Guard: runs plugin code so that it can neither hang a command nor write into its output.

Importing a plugin runs code that the user of another plugin did not ask for. So it runs in its own
thread, with a time limit. A thread cannot be killed, and should not be: an import of torch that is
interrupted would leave torch broken for the whole process. So a slow import goes on in the
background, and its plugin is left out of this command.
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from queue import Empty, SimpleQueue
from time import perf_counter
from typing import Any, TypeVar, cast

from vlmlens.registry._log import warn

T = TypeVar("T")

_clean: list[bool] = []
"""Not empty after a guard was asked to keep stdout clean."""

LIMIT = 5.0
"""How many seconds one plugin's code may take while plugins are listed or asked."""

_LEAST = 0.5
"""How many seconds each plugin gets at least, even if others were late."""

HEAVY = ("torch", "transformers", "tensorflow", "jax", "sklearn", "matplotlib", "pyarrow")
"""Packages that a manifest should not import."""


class TooSlow(Exception):
    """A plugin's code did not finish in time.

    Args:
        waited: How many seconds it had.
        more: How many seconds to allow next time, if it is only slow.
    """

    def __init__(self, waited: float, more: float) -> None:
        super().__init__(f"not done after {waited:g} seconds")
        self.waited = waited
        self.more = more


class Escaped(Exception):
    """A plugin raised something that ends a program, such as KeyboardInterrupt by itself."""


def measured(work: Callable[[], T]) -> tuple[T, float, tuple[str, ...]]:
    """The result of a function, its seconds, and the packages of `HEAVY` that it imported."""
    before = {name for name in HEAVY if name in sys.modules}
    began = perf_counter()
    answer = work()
    heavy = tuple(name for name in HEAVY if name in sys.modules and name not in before)
    return answer, perf_counter() - began, heavy


class Guard:
    """Runs plugin code.

    Args:
        limit: Seconds to wait; 0: no limit, and run in the calling thread.
        trace: Whether to report on stderr how long each call took.
        clean: Whether to keep stdout clean by sending what plugins print to stderr.
    """

    def __init__(self, limit: float = LIMIT, *, trace: bool = False, clean: bool = False) -> None:
        self.limit = limit
        self.trace = trace
        self.clean = clean
        self._worker: _Worker | None = None
        self._late: dict[str, _Worker] = {}
        self._misses: dict[float, int] = {}
        self._filtered: _Filtered | None = None

    @classmethod
    def from_environment(cls, *, clean: bool = False) -> Guard:
        """Read `VLMLENS_PLUGIN_TIMEOUT` and `VLMLENS_TRACE_PLUGINS`.

        After one guard was asked to keep stdout clean, all do: a process has only one stdout.
        """
        if clean:
            _clean.append(clean)
        trace = os.environ.get("VLMLENS_TRACE_PLUGINS", "").lower() not in ("", "0", "false", "no")
        return cls(
            _limit(os.environ.get("VLMLENS_PLUGIN_TIMEOUT")), trace=trace, clean=bool(_clean)
        )

    def call(self, what: str, package: str, work: Callable[[], T], limit: float | None = None) -> T:
        """Run a plugin's code and return its result.

        Args:
            what: The plugin, for the trace.
            package: The plugin's package. If its import was too slow once, it is not tried again.
            work: The code.
            limit: Another limit than the guard's own (ignored if that is 0).

        Raises:
            TooSlow: It did not finish in time, or an earlier call is still running.
            Exception: Whatever it raised, including `SystemExit`; other exits as `Escaped`.
        """
        if package in self._late and self._late[package].busy:
            raise TooSlow(0, 4 * self.limit)
        with self.aside(), self._traced(what):
            if not self.limit:
                return work()
            return self._in_time(package, work, self.limit if limit is None else limit)

    def rest(self) -> None:
        """End the idle thread: forking a process with other threads is unsafe."""
        if self._worker is not None:
            self._worker.end()
            self._worker = None

    @contextmanager
    def aside(self) -> Iterator[None]:
        """Send everything printed meanwhile to stderr, by Python or by C code."""
        if not self.clean:
            yield
            return
        python = sys.stdout
        kept = _descriptor_aside()
        sys.stdout = sys.stderr
        try:
            yield
        finally:
            sys.stdout = self._without_late(python)
            if kept is not None:
                os.dup2(kept, 1)
                os.close(kept)

    @contextmanager
    def traced(self, what: str) -> Iterator[None]:
        """Trace and redirect code that the user asked for: no limit, in this thread."""
        with self.aside(), self._traced(what):
            yield

    @contextmanager
    def _traced(self, what: str) -> Iterator[None]:
        if not self.trace:
            yield
            return
        sys.stderr.write(f"plugin {what}: ")
        sys.stderr.flush()
        began = perf_counter()
        try:
            yield
        finally:
            sys.stderr.write(f"{(perf_counter() - began) * 1000:.1f} ms\n")

    def _in_time(self, package: str, work: Callable[[], T], limit: float) -> T:
        """Wait up to the limit, and half as long for each plugin that was late before.

        So a command waits for at most twice the limit, however many plugins hang.
        """
        worker = self._worker = self._worker or _Worker()
        late = self._misses.get(limit, 0)
        patience = max(limit / 2**late, min(limit, _LEAST))
        try:
            answer, problem = worker.ask(work, patience)
        except Empty:
            self._late[package] = worker
            self._misses[limit] = late + 1
            self._worker = None
            worker.dismiss()
            raise TooSlow(patience, 4 * limit) from None
        if problem is not None:
            raise problem
        return cast("T", answer)

    def _without_late(self, stream: Any) -> Any:
        """While threads are late: a stream that they cannot write to."""
        late = {worker.ident for worker in self._late.values() if worker.busy}
        if isinstance(stream, _Filtered):
            stream = stream.stream
        if not late:
            return stream
        if self._filtered is None or self._filtered.stream is not stream:
            self._filtered = _Filtered(stream)
            _filters.append(self._filtered)
        self._filtered.late = late
        return self._filtered


class _Worker:
    """A thread that runs one task after another."""

    def __init__(self) -> None:
        self.busy = False
        self._tasks: SimpleQueue[Callable[[], Any] | None] = SimpleQueue()
        self._answers: SimpleQueue[tuple[Any, BaseException | None]] = SimpleQueue()
        self._thread = threading.Thread(target=self._work, name="vlmlens-plugins", daemon=True)
        self._thread.start()
        self.ident = self._thread.ident

    def ask(self, task: Callable[[], Any], limit: float) -> tuple[Any, BaseException | None]:
        """The task's result and error; raises `Empty` if it takes too long."""
        self.busy = True
        self._tasks.put(task)
        return self._answers.get(timeout=limit)

    def dismiss(self) -> None:
        """Let the thread end after its current task."""
        self._tasks.put(None)

    def end(self) -> None:
        """End the thread, which is idle."""
        self.dismiss()
        self._thread.join()

    def _work(self) -> None:
        while (task := self._tasks.get()) is not None:
            outcome = _outcome(task)
            self.busy = False
            self._answers.put(outcome)


def _outcome(task: Callable[[], Any]) -> tuple[Any, BaseException | None]:
    try:
        return task(), None
    except (Exception, SystemExit) as error:  # noqa: BLE001 - handed to who asked
        return None, error
    except BaseException as error:  # noqa: BLE001 - as above
        escaped = Escaped(f"{type(error).__name__}: {error}")
        escaped.__cause__ = error
        return None, escaped


class _Filtered:
    """A stream that late threads cannot write to: their output goes to stderr."""

    def __init__(self, stream: Any) -> None:
        self.stream = stream
        self.late: set[int | None] = set()

    def write(self, text: str) -> int:
        target = sys.stderr if threading.get_ident() in self.late else self.stream
        return int(target.write(text))

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)


_filters: list[_Filtered] = []
"""All filters ever made: `print` borrows `sys.stdout`, and crashes if another thread frees it."""


def _descriptor_aside() -> int | None:
    """Point file descriptor 1 at stderr. Returns a copy of the old one, or None if impossible."""
    try:
        kept = os.dup(1)
    except OSError:
        return None
    try:
        os.dup2(2, 1)
    except OSError:
        os.close(kept)
        return None
    return kept


def _limit(given: str | None) -> float:
    if not given:
        return LIMIT
    try:
        limit = float(given)
    except ValueError:
        limit = -1.0
    if not 0 <= limit < threading.TIMEOUT_MAX:
        warn("VLMLENS_PLUGIN_TIMEOUT=%r is not a number of seconds; using %g.", given, LIMIT)
        return LIMIT
    return limit
