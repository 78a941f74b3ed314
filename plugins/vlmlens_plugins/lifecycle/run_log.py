"""Run log: the spec, the progress and the numbers of a run, told to trackio or wandb."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from vlmlens.abc.hookspecs import hookimpl

if TYPE_CHECKING:
    from pathlib import Path

    from vlmlens.errors import VlmlensError
    from vlmlens.results import Result
    from vlmlens.runs.run import Run
    from vlmlens.spec.model import RunSpec
    from vlmlens_plugins.lifecycle._trackers import Tracker

NAME = "run-log"
FILE = "run-log.json"


class RunLog:
    """Off unless `VLMLENS_LOG_TO` or `options.plugins.run-log.to` names a logger.

    Nothing leaves the machine unless the user says so: see `RunLogOptions`.
    """

    OPTIONS = "vlmlens_plugins.lifecycle._run_log_options:RunLogOptions"

    def __init__(self) -> None:
        self._open: dict[Path, Tracker] = {}

    @hookimpl
    def vlmlens_check(self, spec: RunSpec) -> VlmlensError | None:
        """Refuse a wrong environment variable, and a logger that is not installed."""
        from vlmlens.errors import VlmlensError
        from vlmlens_plugins.lifecycle._run_log_options import check, chosen

        try:
            check(chosen(spec))
        except VlmlensError as error:
            return error
        return None

    @hookimpl
    def vlmlens_run_started(self, run: Run) -> None:
        """Open the log, with the spec as its configuration."""
        self._tracker(run)

    @hookimpl
    def vlmlens_batch_done(self, run: Run, done: int, total: int, seconds: float) -> None:
        """Log how far extraction is."""
        values = {"samples": float(done), "share": done / total, "seconds": seconds}
        self._log(run, {f"extract/{name}": value for name, value in values.items()})

    @hookimpl
    def vlmlens_stage_done(self, run: Run, stage: str, seconds: float) -> None:
        """Log how long a stage took."""
        self._log(run, {f"seconds/{stage}": seconds})

    @hookimpl
    def vlmlens_result_ready(self, run: Run, result: Result) -> None:
        """Log the numbers of findings and tables."""
        from vlmlens_plugins.lifecycle._result_numbers import numbers

        self._log(run, numbers(result))

    @hookimpl
    def vlmlens_run_finished(self, run: Run) -> None:
        """Close the log."""
        self._close(run, failed=False)

    @hookimpl
    def vlmlens_run_failed(self, run: Run) -> None:
        """Close the log of a run that did not end well."""
        self._close(run, failed=True)

    @hookimpl
    def vlmlens_facts(self, run: Run) -> Mapping[str, Mapping[str, str]] | None:
        """Where the run was logged."""
        path = run.plugins_path / FILE
        if not path.is_file():
            return None
        import json  # here, as `vlmlens --help` imports this module

        return {"Run log": json.loads(path.read_text(encoding="utf-8"))}

    def _tracker(self, run: Run) -> Tracker | None:
        from vlmlens_plugins.lifecycle._run_log_options import chosen

        if run.path in self._open:
            return self._open[run.path]
        settings = chosen(run.spec)
        if settings is None:
            return None
        from vlmlens._files import write_json
        from vlmlens_plugins.lifecycle._trackers import open_tracker

        name = settings.name or _name(run.path)
        run.plugins_path.mkdir(exist_ok=True)
        tracker = open_tracker(settings, name, _configuration(run), run.plugins_path)
        self._open[run.path] = tracker
        said = {"to": settings.to, "project": settings.project, "name": name}
        write_json(run.plugins_path / FILE, said)
        return tracker

    def _log(self, run: Run, values: Mapping[str, float]) -> None:
        tracker = self._tracker(run)
        if tracker is not None and values:
            tracker.log(values)

    def _close(self, run: Run, *, failed: bool) -> None:
        tracker = self._open.pop(run.path, None)
        if tracker is not None:
            tracker.close(failed=failed)


def _name(path: Path) -> str:
    """The run folder's name; of a shard's, the run's with the shard's."""
    path = path.resolve()
    in_shards = path.parent.name == "shards"
    return f"{path.parents[1].name}-{path.name}" if in_shards else path.name


def _configuration(run: Run) -> dict[str, Any]:
    """The spec, without the options of the storage: they may hold what opens an object store."""
    spec = run.spec.model_dump(mode="json", exclude={"storage": True, "options": {"storage"}})
    return {**spec, "vlmlens": run.info.get("vlmlens"), "samples": len(run.samples)}
