"""What a run found, as commands print it: the answer, then where the rest is."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from vlmlens.cli._output import Output, stdout

if TYPE_CHECKING:
    from vlmlens.results import Result
    from vlmlens.runs.run import Run


def print_run(run: Run, results: Sequence[Result], output: Output, *, verbose: bool) -> None:
    """Print what was found: the answer, and with `verbose` all numbers before it.

    Args:
        run: Where the results are kept.
        results: In the order in which they are shown.
        output: With `json` a document is printed, with `quiet` the run's folder only.
        verbose: Whether findings and tables are printed, too.
    """
    from vlmlens.report.overview import headline
    from vlmlens.report.terminal import print_results, print_summary

    if output.json:
        output.data(run_document(run, results))
        return
    if output.quiet:
        output.data(None, str(run.path))
        return
    if verbose:
        print_results(results, stdout())
        output.data(None, all_rows(run), "")
    print_summary(results, stdout(), title=headline(run))
    output.data(None, *next_steps(run))


def all_rows(run: Run) -> str:
    """Where tables are complete."""
    folder = shlex.quote(str(run.path))
    return f"all rows  {run.path / 'results'}/*.parquet, or: vlmlens report {folder} --tables csv"


def next_steps(run: Run) -> list[str]:
    """Where the report is, and which commands show more."""
    folder, names = shlex.quote(str(run.path)), [shlex.quote(name) for name in run.results]
    lines = []
    if run.report_path.exists():
        lines.append(f"report   {run.report_path}")
        lines.append(f"open it  vlmlens report {folder} --open")
    if names:
        lines.append(f"numbers  vlmlens show {folder} {' | '.join(names)}")
    return lines


def run_document(run: Run, results: Sequence[Result]) -> dict[str, Any]:
    """What a run found, as JSON-ready data."""
    from vlmlens.report.files import plain

    return {
        "run": str(run.path),
        "report": str(run.report_path) if run.report_path.exists() else None,
        "overview": [plain(cell) for result in results for cell in result.overview],
        "findings": [
            {"analysis": result.analysis, **plain(finding)}
            for result in results
            for finding in result.findings
        ],
        "summary": run.info.get("summary", {}),
    }
