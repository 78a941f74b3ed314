"""`vlmlens compare`: runs side by side."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from typer import Argument, Option

from vlmlens.cli._options import Trust, Verbose, installed, output_flags, shares
from vlmlens.cli._output import Output, stdout

To = Annotated[Path, Option(metavar="FILE", help="File of the page.")]


@shares(output=output_flags)
def compare(
    runs: Annotated[
        list[str],
        Argument(metavar="RUN...", help="Folders of runs; RUN@COLUMN for one column of a run."),
    ],
    output: Output,
    to: To = Path("compare.html"),
    seed: Annotated[int, Option(metavar="N", help="Seed of everything random.")] = 0,
    verbose: Verbose = False,
    trust: Trust = False,
) -> None:
    """Compare runs, with tests on the differences.

    Each other run (a model, a checkpoint, a layer) is compared with the first: paired by sample id
    where both have the sample, and corrected for the number of tests.

    Examples:
        vlmlens compare runs/a runs/b
        vlmlens compare runs/a@llm.block.2/last runs/a@llm.block.5/last --to layers.html
    """
    from vlmlens.comparison import compare_runs
    from vlmlens.report.files import plain
    from vlmlens.report.terminal import print_answers, print_findings, print_results

    result = compare_runs(runs, to=to, registry=installed(), seed=seed, trust=trust)
    if output.json or output.quiet:
        output.data({"report": str(to), **plain(result)}, str(to))
        return
    print_answers(result, stdout())
    (print_results if verbose else print_findings)([result], stdout())
    output.data(None, f"report  {to}")
