"""`vlmlens run`: the whole job."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

from typer import Option

from vlmlens.cli._options import SpecFlags, installed, output_flags, shares, spec_flags
from vlmlens.cli._output import Output, stdout
from vlmlens.cli._plan import plan_document, plan_lines

if TYPE_CHECKING:
    from vlmlens.results import Result
    from vlmlens.runner.execution import Plan, RunMode
    from vlmlens.runs.run import Run

Mode = Annotated[
    bool | None,
    Option(
        "--resume/--fresh",
        help="Go on with the run in --out, or start it over. Default: refuse a folder with a run.",
    ),
]
Workers = Annotated[
    int,
    Option(min=1, metavar="N", help="Processes that extract, each with a GPU where there are N."),
]
DryRun = Annotated[bool, Option("--dry-run", help="Check and estimate only; write nothing.")]


@shares(flags=spec_flags, output=output_flags)
def run(
    flags: SpecFlags,
    output: Output,
    resume: Mode = None,
    dry_run: DryRun = False,
    workers: Workers = 1,
) -> None:
    """Do the whole job: extract, analyse, report.

    Runs a model on images and prompts, keeps the activations of its layers, analyses them, and
    shows what was found.
    """
    made = carry_out(flags, output, resume, dry_run, command="run", workers=workers)
    if made is None:
        return
    results = list(made.results.values())
    if output.json:
        output.data(run_document(made, results))
        return
    print_findings(results)
    output.data(None, f"run     {made.path}")
    if made.report_path.exists():
        output.data(None, f"report  {made.report_path}")


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
        )
        if not dry_run:
            output.message(plan_lines(plan))
            registry.hooks().register(_ResumeHint(output, command))
            settings: dict[str, Any] = {"observer": observer, "extract_only": only_extract}
            if workers > 1:
                return execute_in_workers(plan, workers, mode=_mode(resume), **settings)
            part = None if shard is None else Shard.parse(shard)
            return runner.execute(plan, mode=_mode(resume), shard=part, **settings)
    output.data(plan_document(plan), plan_lines(plan), _column_list(plan))
    return None


def print_findings(results: Sequence[Result]) -> None:
    """Print results for people on stdout."""
    from vlmlens.report.terminal import print_results

    print_results(results, stdout())


def run_document(made: Run, results: Sequence[Result]) -> dict[str, Any]:
    """What a run found, as JSON-ready data."""
    from dataclasses import asdict

    findings = [
        {"analysis": result.analysis, **asdict(finding)}
        for result in results
        for finding in result.findings
    ]
    report = str(made.report_path) if made.report_path.exists() else None
    return {
        "run": str(made.path),
        "report": report,
        "findings": findings,
        "summary": made.info.get("summary", {}),
    }


class _ResumeHint:
    """A lifecycle plugin that learns where the run is, for the one who presses Ctrl-C."""

    def __init__(self, output: Output, command: str) -> None:
        from vlmlens.abc.hookspecs import hookimpl

        self._output = output
        self._command = command
        type(self).vlmlens_run_started = hookimpl(type(self).vlmlens_run_started)  # type: ignore[method-assign]

    def vlmlens_run_started(self, run: Run) -> None:
        """Remember how to go on."""
        spec = shlex.quote(str(run.path / "spec.yaml"))
        self._output.resume_hint = f"Go on with: vlmlens {self._command} -c {spec} --resume"


def _mode(resume: bool | None) -> RunMode:
    if resume is None:
        return "new"
    return "resume" if resume else "fresh"


def _column_list(plan: Plan) -> str:
    return "\n".join(["columns", *(f"  {name}" for name in plan.columns)])
