"""`vlmlens bottleneck`: where is the bottleneck?"""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Annotated

from typer import Option

from vlmlens.cli._options import DryRun, Mode, SpecFlags, Verbose, output_flags, run_flags, shares
from vlmlens.cli._output import Output
from vlmlens.cli._results import print_run
from vlmlens.cli.run import carry_out

_ANALYSIS = "bottleneck"


@shares(flags=run_flags, output=output_flags)
def bottleneck(
    flags: SpecFlags,
    output: Output,
    task: Annotated[
        str | None, Option(metavar="TASK", help="The task; needed where the data has several.")
    ] = None,
    seeds: Annotated[
        int | None, Option(metavar="N", help="Trainings of each component. [default: 2]")
    ] = None,
    resume: Mode = None,
    dry_run: DryRun = False,
    verbose: Verbose = False,
) -> None:
    """Tune each component in turn and measure again: which one closes the gap?

    Trains the prompt, the vision tower, the projector and the language model, each by itself and on
    the same samples, and compares them with what can be read off the vision tower directly. Errors
    are put down to eye, alignment, language, reasoning or a prior. A trained component is not kept;
    `vlmlens tune` keeps one.

    Examples:
        vlmlens bottleneck --task surface
        vlmlens bottleneck --adapter qwen2vl --model MODEL --data questions.csv --task depth
    """
    given = [("tune", True), ("task", task), ("seeds", seeds)]
    own = [
        f"analysis.{_ANALYSIS}.{name}={json.dumps(value)}"
        for name, value in given
        if value is not None
    ]
    analyses = [*flags.values.get("analysis", ()), _ANALYSIS]
    made = carry_out(
        replace(
            flags,
            values={**flags.values, "analysis": list(dict.fromkeys(analyses))},
            assignments=(*own, *flags.assignments),
        ),
        output,
        resume,
        dry_run,
        command="bottleneck",
    )
    if made is not None:
        print_run(made, list(made.results.values()), output, verbose=verbose)
