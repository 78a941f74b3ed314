"""Guard: code of plugins runs where it can neither hang a command nor write into its output.

What a plugin runs while being imported is foreign code that the user of another plugin did not ask
for. It runs in a thread of its own and is waited for up to a limit. A thread cannot be killed, and
should not be: an import of torch that is cut off half-way would spoil torch for the whole process.
So one that takes too long goes on in the background, and its plugin is left out of this command.
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
"""Not empty once a guard was asked to keep stdout clean."""

LIMIT = 5.0
"""Seconds that one plugin's code may take while plugins are listed or asked."""

_LEAST = 0.5
"""Seconds that each may take at least, also where others were late."""

HEAVY = ("torch", "transformers", "tensorflow", "jax", "sklearn", "matplotlib", "pyarrow")
"""Packages that no manifest should need."""


class TooSlow(Exception):
    """A plugin's code did not finish in time.

    Args:
        waited: Seconds.
        more: Seconds to allow next time, if it only needs longer.
    """

    def __init__(self, waited: float, more: float) -> None:
        super().__init__(f"not done after {waited:g} seconds")
        self.waited = waited
        self.more = more


class Escaped(Exception):
    """A plugin raised what would end the program, such as KeyboardInterrupt without a Ctrl-C."""


def measured(work: Callable[[], T]) -> tuple[T, float, tuple[str, ...]]:
    """The answer of some code, the seconds it took, and the packages of `HEAVY` it imported."""
    before = {name for name in HEAVY if name in sys.modules}
    began = perf_counter()
    answer = work()
    heavy = tuple(name for name in HEAVY if name in sys.modules and name not in before)
    return answer, perf_counter() - began, heavy


class Guard:
    """Runs code of plugins.

    Args:
        limit: Seconds to wait; 0: for ever, in the calling thread.
        trace: Whether to tell on stderr what each call took.
        clean: Whether to keep stdout clean: what plugins print goes to stderr.
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
        """As `VLMLENS_PLUGIN_TIMEOUT` and `VLMLENS_TRACE_PLUGINS` say.

        Once one was asked to keep stdout clean, all do: it is the process's.
        """
        if clean:
            _clean.append(clean)
        trace = os.environ.get("VLMLENS_TRACE_PLUGINS", "").lower() not in ("", "0", "false", "no")
        return cls(
            _limit(os.environ.get("VLMLENS_PLUGIN_TIMEOUT")), trace=trace, clean=bool(_clean)
        )

    def call(self, what: str, package: str, work: Callable[[], T], limit: float | None = None) -> T:
        """The answer of a plugin's code.

        Args:
            what: The plugin, for the trace.
            package: Whose import must not be waited for twice.
            work: The code.
            limit: Another limit than the usual one, where that is not 0.

        Raises:
            TooSlow: It is not done in time, or still at work since an earlier call.
            Exception: What it raised, `SystemExit` included; other exits as `Escaped`.
        """
        if package in self._late and self._late[package].busy:
            raise TooSlow(0, 4 * self.limit)
        with self.aside(), self._traced(what):
            if not self.limit:
                return work()
            return self._in_time(package, work, self.limit if limit is None else limit)

    def rest(self) -> None:
        """End the thread that waits for more: one that idles would make forking unsafe."""
        if self._worker is not None:
            self._worker.end()
            self._worker = None

    @contextmanager
    def aside(self) -> Iterator[None]:
        """Send to stderr what is printed meanwhile, by Python or below it."""
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
        """Both of the above for code that the user asked for: no limit, this thread."""
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
        """Wait up to the limit; half as long for each that was late before under the same limit.

        So that a command waits for twice the limit at most, however many hang.
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
        """A stream that late threads do not reach, as long as there are any."""
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
    """A thread that does one thing after another."""

    def __init__(self) -> None:
        self.busy = False
        self._tasks: SimpleQueue[Callable[[], Any] | None] = SimpleQueue()
        self._answers: SimpleQueue[tuple[Any, BaseException | None]] = SimpleQueue()
        self._thread = threading.Thread(target=self._work, name="vlmlens-plugins", daemon=True)
        self._thread.start()
        self.ident = self._thread.ident

    def ask(self, task: Callable[[], Any], limit: float) -> tuple[Any, BaseException | None]:
        """Answer and problem; `Empty` where there is neither in time."""
        self.busy = True
        self._tasks.put(task)
        return self._answers.get(timeout=limit)

    def dismiss(self) -> None:
        """Let the thread end once it is done."""
        self._tasks.put(None)

    def end(self) -> None:
        """Let the thread end, which has nothing to do."""
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
    """A stream that late threads do not reach: what they write goes to stderr."""

    def __init__(self, stream: Any) -> None:
        self.stream = stream
        self.late: set[int | None] = set()

    def write(self, text: str) -> int:
        target = sys.stderr if threading.get_ident() in self.late else self.stream
        return int(target.write(text))

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)


_filters: list[_Filtered] = []
"""All of them, for good: `print` borrows `sys.stdout` and crashes where another thread frees it."""


def _descriptor_aside() -> int | None:
    """Point file descriptor 1 at stderr; a copy of what it was, or None where that can't be."""
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
        warn("VLMLENS_PLUGIN_TIMEOUT=%r is no number of seconds; %g is used.", given, LIMIT)
        return LIMIT
    return limit
