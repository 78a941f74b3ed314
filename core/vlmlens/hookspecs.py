"""The pluggy hooks: lifecycle events of a run, and extra commands.

A lifecycle plugin is a module or object with functions of these names, marked with
`vlmlens.hookimpl` and registered under the entry-point group `vlmlens.plugins`. Hooks observe; what
they return is ignored, except for `vlmlens_commands`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import pluggy

if TYPE_CHECKING:
    from vlmlens.results import Result
    from vlmlens.runs import Run

hookspec = pluggy.HookspecMarker("vlmlens")
hookimpl = pluggy.HookimplMarker("vlmlens")


@hookspec
def vlmlens_run_started(run: Run) -> None:
    """The run is composed and checked; its folder exists; nothing heavy has started."""


@hookspec
def vlmlens_batch_done(run: Run, done: int, total: int, seconds: float) -> None:
    """A batch is stored: `done` of `total` samples, `seconds` since extraction began."""


@hookspec
def vlmlens_result_ready(run: Run, result: Result) -> None:
    """An analysis has its result, which is stored in the run."""


@hookspec
def vlmlens_run_finished(run: Run, summary: Mapping[str, Any]) -> None:
    """Everything asked for is done; `summary` holds counts and times in seconds."""


@hookspec
def vlmlens_commands() -> Mapping[str, Any]:  # type: ignore[empty-body]
    """Extra commands by name: each a `typer.Typer` app or a `click.Command`."""
