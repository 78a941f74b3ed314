"""`vlmlens analyze`: analyses over what is stored."""

from __future__ import annotations

from typing import Annotated

from typer import Argument

from vlmlens.cli._options import SpecFlags, analysis_flags, installed, output_flags, shares
from vlmlens.cli._output import Output
from vlmlens.cli.run import print_findings, run_document


@shares(flags=analysis_flags, output=output_flags)
def analyze(
    run: Annotated[str, Argument(metavar="RUN", help="Folder of an extracted run.")],
    flags: SpecFlags,
    output: Output,
) -> None:
    """Analyse what a run has stored.

    The model is loaded only where an analysis needs it.
    """
    from vlmlens import runner
    from vlmlens.runs import Run

    registry = installed()
    made = Run(run, registry=registry)
    flags.only("analysis", "seed", command="analyze")
    spec = flags.spec({"analysis": made.spec.analysis, "seed": made.spec.seed})
    with output.observer() as observer:
        results = runner.analyze(made, spec.analysis, registry, observer=observer, seed=spec.seed)
    if output.json:
        output.data(run_document(made, results))
        return
    print_findings(results)
    if made.report_path.exists():
        output.data(None, f"report  {made.report_path}")
