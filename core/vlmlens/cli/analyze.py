"""`vlmlens analyze`: analyses over what is stored."""

from __future__ import annotations

from typing import Annotated

from typer import Argument, Option

from vlmlens.cli._options import (
    SpecFlags,
    Verbose,
    analysis_flags,
    installed,
    output_flags,
    shares,
)
from vlmlens.cli._output import Output
from vlmlens.cli._results import print_run
from vlmlens.cli._stores import stored_run


@shares(flags=analysis_flags, output=output_flags)
def analyze(
    run: Annotated[
        str,
        Argument(metavar="RUN_OR_STORE", help="Folder of an extracted run, or a database."),
    ],
    flags: SpecFlags,
    output: Output,
    verbose: Verbose = False,
    fresh: Annotated[
        bool, Option("--fresh", help="Replace earlier results of these analyses.")
    ] = False,
) -> None:
    """Analyse what a run has stored, or a database of VLM-Lens.

    The model is loaded only if an analysis needs it. A database FILE has no model; its results go
    to the folder FILE.vlmlens beside it. To keep several results of one analysis, give it a label,
    as in logit-lens:patches; its options are then at analysis.logit-lens:patches.

    With --edit or --tuned the model is changed while an analysis runs it; stored columns stay as
    they are. Such a result needs a label.

    Examples:
        vlmlens analyze runs/demo-001 --analysis probe --set analysis.probe.folds=10
        vlmlens analyze runs/demo-001 --analysis probe:mlp --set analysis.probe:mlp.model=mlp
        vlmlens analyze runs/demo-001 --analysis probe:some --samples 200
        vlmlens analyze runs/demo-001 --analysis blind-test --workers 2
        vlmlens analyze runs/demo-001 --analysis blind-test:edited --edit "llm.block.3/last = zero"
        vlmlens analyze old.db --analysis probe
    """
    from vlmlens.runner import execution as runner
    from vlmlens.runner.bare_store import analyze_stored, only_stored, run_beside
    from vlmlens.runner.changes import Changes

    registry = installed()
    made = stored_run(run, trust=flags.trust)
    with output.observer() as observer:
        if made is None:
            flags.only("analysis", "samples", "seed", "options", command="analyze")
            spec = flags.spec()
            only_stored(spec.engine, Changes.of(spec))
            made = run_beside(run, registry, spec.options.storage, trust=flags.trust)
        else:
            flags.only("analysis", "samples", "seed", "engine", command="analyze")
            if "analysis" not in flags.values:
                made.check_trust("analysis")
            kept = made.spec
            spec = flags.spec(
                {"analysis": kept.analysis, "seed": kept.seed, "samples": kept.samples}
            )
        engine = runner.engine_of(spec, registry)
        asked = (made, spec.analysis, registry)
        if made.has_model:
            results = runner.analyze(
                *asked,
                observer=observer,
                seed=spec.seed,
                fresh=fresh,
                engine=engine,
                changes=Changes.of(spec),
                number=spec.samples,
            )
        else:
            only_stored(spec.engine, Changes.of(spec))
            results = analyze_stored(
                *asked, observer=observer, seed=spec.seed, fresh=fresh, number=spec.samples
            )
    print_run(made, results, output, verbose=verbose)
