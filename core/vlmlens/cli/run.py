"""`vlmlens run`: the whole job."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

from vlmlens.cli._options import (
    DryRun,
    Mode,
    SpecFlags,
    Verbose,
    installed,
    output_flags,
    run_flags,
    shares,
)
from vlmlens.cli._output import Output
from vlmlens.cli._plan import plan_document, plan_lines
from vlmlens.cli._results import print_run

if TYPE_CHECKING:
    from vlmlens.runner.execution import Plan, RunMode
    from vlmlens.runs.run import Run
    from vlmlens.spec.model import RunSpec


@shares(flags=run_flags, output=output_flags)
def run(
    flags: SpecFlags,
    output: Output,
    resume: Mode = None,
    dry_run: DryRun = False,
    verbose: Verbose = False,
) -> None:
    """Do the whole job: extract, analyse, report.

    Runs a model on images and prompts, stores the activations of its layers, analyses them, and
    prints what was found. Without flags: the embedded demo model on its own images.

    Examples:
        vlmlens run
        vlmlens run --adapter qwen2vl --data photos/ --prompt "Color of the main object:"
    """
    made = carry_out(flags, output, resume, dry_run, command="run")
    if made is not None:
        print_run(made, list(made.results.values()), output, verbose=verbose)


def carry_out(
    flags: SpecFlags,
    output: Output,
    resume: bool | None,
    dry_run: bool,
    *,
    command: str,
) -> Run | None:
    """Compose a run, show what it will cost, and execute it, unless it is a dry one."""
    from vlmlens.runner import execution as runner
    from vlmlens.runner.joining import is_first, join, leading

    only_extract, mode = command == "extract", _mode(resume)
    registry, spec = installed(), flags.spec()
    engine = runner.engine_of(spec, registry)
    part = engine.part() if engine else None
    with output.observer() as observer:
        if engine and part and not dry_run and not is_first(spec, part, mode):
            output.resume_hint = "This part goes on with the same command."
            return join(spec, engine, registry, observer, trust=flags.trust)
        with leading(spec, part):
            plan = runner.compose(
                spec,
                registry,
                observer=observer,
                analyse=not only_extract,
                notes=flags.notes,
                trust=flags.trust,
            )
            if not dry_run:
                output.message(plan_lines(plan))
                registry.hooks().register(_ResumeHint(output, command, engine_words(spec)))
                return runner.execute(
                    plan, mode=mode, observer=observer, extract_only=only_extract, engine=engine
                )
    output.data(plan_document(plan), plan_lines(plan), _column_list(plan))
    return None


def engine_words(spec: RunSpec) -> str:
    """The flags that choose the engine of a spec."""
    options = {key.replace("_", "-"): value for key, value in spec.options.engine.items()}
    words = ([f" --engine {shlex.quote(spec.engine)}"] if spec.engine else []) + [
        f" --{key} {shlex.quote(str(value))}" for key, value in options.items()
    ]
    return "".join(words)


class _ResumeHint:
    """A lifecycle plugin that learns where the run is, for the one who presses Ctrl-C."""

    def __init__(self, output: Output, command: str, engine: str) -> None:
        from vlmlens.abc.hookspecs import hookimpl

        self._output = output
        self._command = command
        self._engine = engine
        type(self).vlmlens_run_started = hookimpl(type(self).vlmlens_run_started)  # type: ignore[method-assign]

    def vlmlens_run_started(self, run: Run) -> None:
        """Remember how to go on."""
        spec = shlex.quote(str(run.path / "spec.yaml"))
        self._output.resume_hint = (
            f"Go on with: vlmlens {self._command} -c {spec}{self._engine} --resume"
        )


def _mode(resume: bool | None) -> RunMode:
    if resume is None:
        return "new"
    return "resume" if resume else "fresh"


def _column_list(plan: Plan) -> str:
    return "\n".join(["columns", *(f"  {name}" for name in plan.columns)])
