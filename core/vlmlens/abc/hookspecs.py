"""The pluggy hooks: lifecycle events of a run, and extra commands.

A lifecycle plugin is a module, class or object with functions of these names. They are marked with
`vlmlens.hookimpl`, and the entry-point group `vlmlens.plugins` names the plugin. A function may
declare any subset of the arguments. Hooks observe a run; their return values are ignored, except
for `vlmlens_check`, `vlmlens_facts` and `vlmlens_commands`. A hook that fails is reported once and
never stops a run.

A plugin finds its options in `spec.options.plugins`, under the name of its entry point. Its
attribute `OPTIONS`, a text "package.module:Class", names the `vlmlens.abc.Options` class that
checks them before a run.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

import pluggy

if TYPE_CHECKING:
    from pathlib import Path

    from vlmlens.errors import VlmlensError
    from vlmlens.results import Result
    from vlmlens.samples import Sample
    from vlmlens.spec.model import RunSpec

hookspec = pluggy.HookspecMarker("vlmlens")
hookimpl = pluggy.HookimplMarker("vlmlens")


class Run(Protocol):
    """The part of a `vlmlens.Run` that hooks may rely on."""

    path: Path

    @property
    def info(self) -> Mapping[str, Any]:
        """The content of run.json."""

    @property
    def spec(self) -> RunSpec:
        """The composed spec."""

    @property
    def samples(self) -> Sequence[Sample]:
        """The samples, in order."""

    @property
    def results(self) -> Mapping[str, Result]:
        """The results by analysis."""

    @property
    def plugins_path(self) -> Path:
        """The folder for files of lifecycle plugins. A plugin creates it when it needs it."""


@hookspec
def vlmlens_check(spec: RunSpec) -> VlmlensError | None:
    """A run is being composed, and nothing is loaded. Return an error to refuse the run."""


@hookspec
def vlmlens_run_started(run: Run) -> None:
    """The run is composed and checked, and its folder exists. Nothing heavy has started."""


@hookspec
def vlmlens_batch_done(run: Run, done: int, total: int, seconds: float) -> None:
    """A batch is stored: `done` of `total` samples, `seconds` after the start of extraction."""


@hookspec
def vlmlens_stage_done(run: Run, stage: str, seconds: float) -> None:
    """A stage took `seconds`: "load model", "extract", an analysis's name or "report"."""


@hookspec
def vlmlens_result_ready(run: Run, result: Result) -> None:
    """An analysis has a result, and it is stored in the run."""


@hookspec
def vlmlens_run_finished(run: Run, summary: Mapping[str, Any]) -> None:
    """Everything is done, also after `vlmlens analyze`. `summary`: counts, and times in seconds."""


@hookspec
def vlmlens_run_failed(run: Run, error: BaseException) -> None:
    """The run ends with `error` (`KeyboardInterrupt` if interrupted), which is raised next."""


@hookspec
def vlmlens_facts(run: Run) -> Mapping[str, Mapping[str, str]] | None:
    """Return lines about a run, under headings, for its report and for `vlmlens show`."""


@hookspec
def vlmlens_commands() -> Mapping[str, Any]:  # type: ignore[empty-body]
    """Return extra commands by name: each a `typer.Typer` app or a `click.Command`."""
