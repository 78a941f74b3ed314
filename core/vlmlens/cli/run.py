"""`vlmlens run`: the whole job."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING, Any

from vlmlens.cli._options import (
    DryRun,
    Mode,
    SpecFlags,
    Verbose,
    Workers,
    installed,
    output_flags,
    shares,
    spec_flags,
)
from vlmlens.cli._output import Output
from vlmlens.cli._plan import plan_document, plan_lines
from vlmlens.cli._results import print_run

if TYPE_CHECKING:
    from vlmlens.runner.execution import Plan, RunMode
    from vlmlens.runs.run import Run


@shares(flags=spec_flags, output=output_flags)
def run(
    flags: SpecFlags,
    output: Output,
    resume: Mode = None,
    dry_run: DryRun = False,
    workers: Workers = 1,
    verbose: Verbose = False,
) -> None:
    """Do the whole job: extract, analyse, report.

    Runs a model on images and prompts, stores the activations of its layers, analyses them, and
    prints what was found. Without flags: the embedded demo model on its own images.

    Examples:
        vlmlens run
        vlmlens run --adapter qwen2vl --data photos/ --prompt "Color of the main object:"
    """
    made = carry_out(flags, output, resume, dry_run, command="run", workers=workers)
    if made is not None:
        print_run(made, list(made.results.values()), output, verbose=verbose)


def carry_out(
    flags: SpecFlags,
    output: Output,
    resume: bool | None,
    dry_run: bool,
    *,
    command: str,
    workers: int = 1,
    shard: str | None = None,
) -> Run | None:
    """Compose a run, show what it will cost, and execute it, unless it is a dry one."""
    from vlmlens.runner import execution as runner
    from vlmlens.runner.workers import execute_in_workers
    from vlmlens.runs.shards import Shard

    only_extract = command == "extract"
    registry = installed()
    with output.observer() as observer:
        plan = runner.compose(
            flags.spec(),
            registry,
            observer=observer,
            analyse=not only_extract,
            notes=flags.notes,
            trust=flags.trust,
        )
        if not dry_run:
            output.message(plan_lines(plan))
            registry.hooks().register(_ResumeHint(output, command, workers))
            settings: dict[str, Any] = {"observer": observer, "extract_only": only_extract}
            if workers > 1:
                return execute_in_workers(plan, workers, mode=_mode(resume), **settings)
            part = None if shard is None else Shard.parse(shard)
            return runner.execute(plan, mode=_mode(resume), shard=part, **settings)
    output.data(plan_document(plan), plan_lines(plan), _column_list(plan))
    return None


class _ResumeHint:
    """A lifecycle plugin that learns where the run is, for the one who presses Ctrl-C."""

    def __init__(self, output: Output, command: str, workers: int) -> None:
        from vlmlens.abc.hookspecs import hookimpl

        self._output = output
        self._command = command
        self._workers = f" --workers {workers}" if workers > 1 else ""
        type(self).vlmlens_run_started = hookimpl(type(self).vlmlens_run_started)  # type: ignore[method-assign]

    def vlmlens_run_started(self, run: Run) -> None:
        """Remember how to go on."""
        spec = shlex.quote(str(run.path / "spec.yaml"))
        self._output.resume_hint = (
            f"Go on with: vlmlens {self._command} -c {spec}{self._workers} --resume"
        )


def _mode(resume: bool | None) -> RunMode:
    if resume is None:
        return "new"
    return "resume" if resume else "fresh"


def _column_list(plan: Plan) -> str:
    return "\n".join(["columns", *(f"  {name}" for name in plan.columns)])
