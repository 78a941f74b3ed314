"""The pluggy hooks: lifecycle events of a run, and extra commands.

A lifecycle plugin is a module or object with functions of these names, marked with
`vlmlens.hookimpl` and registered under the entry-point group `vlmlens.plugins`. A function takes
those of the arguments that it names. Hooks observe; what they return is ignored, except for
`vlmlens_check`, `vlmlens_facts` and `vlmlens_commands`. One that fails is reported once, and never
stops a run.

A plugin's options are those of `options.plugins.NAME` in the run file, by the name of its entry
point. Its attribute `OPTIONS`, as "package.module:Class", names the `vlmlens.abc.Options` that they
are checked by; it finds them in `spec.options.plugins`.
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
    """What a hook may rely on of the run that it is told about, which is a `vlmlens.Run`."""

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
        """Where lifecycle plugins keep what is theirs; they make it."""


@hookspec
def vlmlens_check(spec: RunSpec) -> VlmlensError | None:
    """A run is being composed, and nothing is loaded: an error that is returned refuses it."""


@hookspec
def vlmlens_run_started(run: Run) -> None:
    """The run is composed and checked; its folder exists; nothing heavy has started."""


@hookspec
def vlmlens_batch_done(run: Run, done: int, total: int, seconds: float) -> None:
    """A batch is stored: `done` of `total` samples, `seconds` since extraction began."""


@hookspec
def vlmlens_stage_done(run: Run, stage: str, seconds: float) -> None:
    """A stage has ended: "load model", "extract", an analysis's name, "report"; in `seconds`."""


@hookspec
def vlmlens_result_ready(run: Run, result: Result) -> None:
    """An analysis has its result, which is stored in the run."""


@hookspec
def vlmlens_run_finished(run: Run, summary: Mapping[str, Any]) -> None:
    """Everything asked for is done; `summary` holds counts and times in seconds."""


@hookspec
def vlmlens_run_failed(run: Run, error: BaseException) -> None:
    """The run ends by an error, or was interrupted (`KeyboardInterrupt`), which is raised next."""


@hookspec
def vlmlens_facts(run: Run) -> Mapping[str, Mapping[str, str]] | None:
    """Lines about a run, under headings, for its report and for `vlmlens show`."""


@hookspec
def vlmlens_commands() -> Mapping[str, Any]:  # type: ignore[empty-body]
    """Extra commands by name: each a `typer.Typer` app or a `click.Command`."""
