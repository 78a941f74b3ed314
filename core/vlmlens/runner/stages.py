"""What the stages of one execution share: the run, hooks, warnings, timing, the final state."""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vlmlens._files import write_json
from vlmlens.errors import RunError
from vlmlens.registry import call_hook
from vlmlens.runner.changes import NO_CHANGES, Changes
from vlmlens.runs.own_files import contents, made_in
from vlmlens.runs.records import read_record

if TYPE_CHECKING:
    import pluggy

    from vlmlens.abc.adapter import ModelAdapter
    from vlmlens.abc.engine import Engine
    from vlmlens.abc.observer import Observer
    from vlmlens.runs.run import Run
    from vlmlens.spec.model import RunSpec

_log = logging.getLogger("vlmlens")


class OwnFiles:
    """Keeps the list `made` of run.json while a command works on the run.

    Args:
        run: The run. What is in its folders now and is not in the list is the user's.
    """

    def __init__(self, run: Run) -> None:
        self._run = run
        self._made = made_in(run.path, run.info)
        self._others = contents(run.path) - self._made

    def record(self) -> None:
        """Add what has been made since."""
        made = contents(self._run.path) - self._others
        if made - self._made:
            self._made |= made
            self._run.update(made=sorted(self._made))


class Job:
    """What the stages of one execution share.

    Args:
        run: The run.
        hooks: The lifecycle plugins.
        load: Loads the model.
        watch: Measures, and reports.
        engine: What runs the model work of analyses; None: this process.
        changes: Of the model, beside what the run did.
    """

    def __init__(
        self,
        run: Run,
        hooks: pluggy.PluginManager,
        load: Callable[[], ModelAdapter],
        watch: Watch,
        engine: Engine | None = None,
        changes: Changes = NO_CHANGES,
    ) -> None:
        self.engine = engine
        self.run = run
        self.changes = changes
        self.units = 0
        """How many units of model work analyses have asked for."""
        self.hooks = hooks
        self.model = cache(self._timed(load, watch))
        self.watch = watch
        watch.ended = self._ended
        self.warnings: list[str] = []
        self.files = OwnFiles(run)
        self._shown: set[str] = set()

    @property
    def spec(self) -> RunSpec:
        """The run's spec, with the job's changes."""
        return self.changes.made_to(self.run.spec)

    def warn(self, message: str) -> None:
        """Show a warning once in this process, and keep it in the run."""
        if message not in self._shown:
            self._shown.add(message)
            self.watch.observer.warn(message)
        if message not in self.warnings:
            self.warnings.append(message)
            self.run.update(warnings=self.warnings)

    def hook(self, name: str, **arguments: Any) -> None:
        """Call a hook of the lifecycle plugins."""
        call_hook(self.hooks, name, run=self.run, **arguments)
        if self.run.plugins_path.is_dir():
            self.files.record()

    def _ended(self, stage: str, seconds: float) -> None:
        self.hook("vlmlens_stage_done", stage=stage, seconds=seconds)

    @staticmethod
    def _timed(load: Callable[[], ModelAdapter], watch: Watch) -> Callable[[], ModelAdapter]:
        def timed() -> ModelAdapter:
            with watch.timing("load model"):
                return load()

        return timed


class Watch:
    """Measures the seconds of each stage, and reports stages to the observer."""

    def __init__(self, observer: Observer) -> None:
        self.observer = observer
        self.seconds: dict[str, float] = {}
        self.ended: Callable[[str, float], None] = lambda stage, seconds: None

    @contextmanager
    def stage(self, name: str, total: int | None = None) -> Iterator[None]:
        """A stage that is reported to the observer."""
        self.observer.stage(name, total)
        with self.timing(name):
            yield

    @contextmanager
    def timing(self, name: str) -> Iterator[None]:
        """Add the time spent inside to the stage's seconds."""
        start = time.perf_counter()
        try:
            yield
        finally:
            spent = time.perf_counter() - start
            self.seconds[name] = round(self.seconds.get(name, 0.0) + spent, 3)
        self.ended(name, spent)


@contextmanager
def state_kept(job: Job) -> Iterator[None]:
    """Record in run.json how the run ended; after an error, tell lifecycle plugins too."""
    try:
        yield
        job.files.record()
    except BaseException as error:
        _record_end(job.run.path, error, warnings=job.warnings)
        job.hook("vlmlens_run_failed", error=error)
        raise


@contextmanager
def ending_recorded(folder: Path) -> Iterator[None]:
    """Record in run.json how work on the run in a folder ended, if it did not end well."""
    try:
        yield
    except BaseException as error:
        _record_end(folder, error)
        raise


def _record_end(folder: Path, ended: BaseException, **values: Any) -> None:
    """Record how a run ended, even on a full disk; the error that ended it is what users see."""
    state = "interrupted" if isinstance(ended, KeyboardInterrupt) else "failed"
    path = folder / "run.json"
    try:
        write_json(path, {**read_record(path), "state": state, **values})
    except (OSError, RunError) as error:
        _log.warning("run.json could not be written as a whole: %s", error)
        with suppress(OSError):
            _overwrite_state(path, state)


def _overwrite_state(path: Path, state: str) -> None:
    """Replace the state in a file by one that is no longer, which takes no space on the disk."""
    with path.open("r+b") as file:
        known = re.search(rb'"state": "([^"\n]*)"', file.read())
        spare = len(known[1]) - len(state) if known else -1
        if known and spare >= 0:
            file.seek(known.start(1))
            file.write(f'{state}"{" " * spare}'.encode())
