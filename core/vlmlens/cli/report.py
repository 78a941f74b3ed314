"""`vlmlens report`: the page of a run once more, and files for papers."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from typer import Argument, Option

from vlmlens.cli._options import Trust, installed, output_flags, shares
from vlmlens.cli._output import Output

Figures = Annotated[
    str | None,
    Option(metavar="FORMATS", help="Write the figures, too: svg, png, or both as svg,png."),
]
Tables = Annotated[
    str | None,
    Option(
        metavar="FORMATS",
        help="Write the tables, too: csv, latex, parquet, or several with commas.",
    ),
]
To = Annotated[
    Path | None,
    Option(metavar="FOLDER", help="Folder for these files. [default: papers, in the run]"),
]


@shares(output=output_flags)
def report(
    run: Annotated[str, Argument(metavar="RUN", help="Folder of a run.")],
    output: Output,
    open_: Annotated[bool, Option("--open", help="Open the page in a browser.")] = False,
    figures: Figures = None,
    tables: Tables = None,
    to: To = None,
    trust: Trust = False,
) -> None:
    """Write a run's report again, from its stored results.

    With --figures and --tables: files for papers, too.

    Examples:
        vlmlens report runs/demo-001 --open
        vlmlens report runs/demo-001 --figures svg,png --tables csv,latex
    """
    from vlmlens.runner.run_report import render_again
    from vlmlens.runs.run import Run

    opened = Run(run, registry=installed(), trust=trust)
    made = render_again(opened, figures, tables, to, show=open_)
    document = {"report": str(made[0]), "files": [str(path) for path in made[1:]]}
    lines = [f"report  {made[0]}", *(f"file    {path}" for path in made[1:])]
    output.data(document, "\n".join(lines))
