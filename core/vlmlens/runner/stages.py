"""Job: what the stages of one execution share, and how run.json comes to say how it ended."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from typing import TYPE_CHECKING, Any

from vlmlens.registry import call_hook

if TYPE_CHECKING:
    import pluggy

    from vlmlens.abc.adapter import ModelAdapter
    from vlmlens.abc.observer import Observer
    from vlmlens.runs.run import Run


class Job:
    """What the stages of one execution share."""

    def __init__(
        self, run: Run, hooks: pluggy.PluginManager, load: Callable[[], ModelAdapter], watch: Watch
    ) -> None:
        self.run = run
        self.hooks = hooks
        self.model = cache(self._timed(load, watch))
        self.watch = watch
        watch.ended = self._ended
        self.warnings: list[str] = []
        self._shown: set[str] = set()

    def warn(self, message: str) -> None:
        """Show a warning once, though an earlier process may have, and keep it in the run."""
        if message not in self._shown:
            self._shown.add(message)
            self.watch.observer.warn(message)
        if message not in self.warnings:
            self.warnings.append(message)
            self.run.update(warnings=self.warnings)

    def hook(self, name: str, **arguments: Any) -> None:
        """Tell lifecycle plugins."""
        call_hook(self.hooks, name, run=self.run, **arguments)

    def _ended(self, stage: str, seconds: float) -> None:
        self.hook("vlmlens_stage_done", stage=stage, seconds=seconds)

    @staticmethod
    def _timed(load: Callable[[], ModelAdapter], watch: Watch) -> Callable[[], ModelAdapter]:
        def timed() -> ModelAdapter:
            with watch.timing("load model"):
                return load()

        return timed


class Watch:
    """Seconds per stage, and the observer that sees the stages."""

    def __init__(self, observer: Observer) -> None:
        self.observer = observer
        self.seconds: dict[str, float] = {}
        self.ended: Callable[[str, float], None] = lambda stage, seconds: None

    @contextmanager
    def stage(self, name: str, total: int | None = None) -> Iterator[None]:
        """A stage that the observer sees."""
        self.observer.stage(name, total)
        with self.timing(name):
            yield

    @contextmanager
    def timing(self, name: str) -> Iterator[None]:
        """Add what passes inside to the stage's seconds."""
        start = time.perf_counter()
        try:
            yield
        finally:
            spent = time.perf_counter() - start
            self.seconds[name] = round(self.seconds.get(name, 0.0) + spent, 3)
        self.ended(name, spent)


@contextmanager
def state_kept(job: Job) -> Iterator[None]:
    """Leave run.json saying how it ended, and tell lifecycle plugins of an end by an error."""
    try:
        yield
    except BaseException as error:
        state = "interrupted" if isinstance(error, KeyboardInterrupt) else "failed"
        job.run.update(state=state, warnings=job.warnings)
        job.hook("vlmlens_run_failed", error=error)
        raise
