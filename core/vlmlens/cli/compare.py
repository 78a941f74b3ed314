"""`vlmlens compare`: runs side by side."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from typer import Argument, Option

from vlmlens.cli._options import installed, output_flags, shares
from vlmlens.cli._output import Output
from vlmlens.cli.run import print_findings

To = Annotated[Path, Option(metavar="FILE", help="Where the page goes.")]


@shares(output=output_flags)
def compare(
    runs: Annotated[
        list[str],
        Argument(metavar="RUN...", help="Folders of runs; RUN@COLUMN for one column of a run."),
    ],
    output: Output,
    to: To = Path("compare.html"),
    seed: Annotated[int, Option(metavar="N", help="Seed of everything random.")] = 0,
) -> None:
    """Put runs side by side, with tests on the differences.

    The first run is what the others (models, checkpoints, layers) are compared with: paired by
    sample id where both have it, and corrected for the number of tests.
    """
    from vlmlens.compare import compare_runs
    from vlmlens.report.files import plain

    result = compare_runs(runs, to=to, registry=installed(), seed=seed)
    if output.json:
        output.data({"report": str(to), **plain(result)})
        return
    print_findings([result])
    output.data(None, f"report  {to}")
