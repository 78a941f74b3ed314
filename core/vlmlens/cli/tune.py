"""`vlmlens tune`: train one component of a model, and measure again."""

from __future__ import annotations

import json
import shlex
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any

from typer import Option

from vlmlens.cli import _completion as completion
from vlmlens.cli._options import DryRun, Mode, SpecFlags, output_flags, shares, tune_flags
from vlmlens.cli._output import Output
from vlmlens.cli._results import next_steps, run_document
from vlmlens.cli.run import carry_out
from vlmlens.tuned.record import ANALYSIS, FOLDER

if TYPE_CHECKING:
    from vlmlens.runs.run import Run

_GROUP = "Training"


def _training(*flags: str, complete: Any = None, **more: Any) -> Any:
    return Option(*flags, rich_help_panel=_GROUP, autocompletion=complete, **more)


@shares(flags=tune_flags, output=output_flags)
def tune(
    flags: SpecFlags,
    output: Output,
    component: Annotated[
        str | None,
        _training(
            metavar="PART",
            help="What is trained: vision, projector, llm, or sites such as llm.block.8-11. "
            "[default: llm]",
            complete=completion.one_of("vision", "projector", "llm"),
        ),
    ] = None,
    method: Annotated[
        str | None,
        _training(
            metavar="NAME",
            help="lora, weights or prompt. [default: weights for the projector, lora for others]",
            complete=completion.one_of("lora", "weights", "prompt"),
        ),
    ] = None,
    task: Annotated[
        list[str] | None,
        _training(
            metavar="NAME", help="Task to train on; repeatable. [default: all that have labels]"
        ),
    ] = None,
    samples: Annotated[
        int | None,
        _training(
            metavar="N",
            help="Learn from at most N samples, held-out ones included. [default: no limit]",
        ),
    ] = None,
    epochs: Annotated[
        int | None, _training(metavar="N", help="The most passes through them. [default: 12]")
    ] = None,
    rate: Annotated[
        float | None,
        _training(metavar="RATE", help="Learning rate. [default: by component and method]"),
    ] = None,
    rank: Annotated[int | None, _training(metavar="N", help="Rank of LoRA. [default: 8]")] = None,
    tokens: Annotated[
        int | None, _training(metavar="N", help="Virtual tokens of a prompt. [default: 8]")
    ] = None,
    seeds: Annotated[
        int | None,
        _training(metavar="N", help="Train N times; the first one is kept. [default: 1]"),
    ] = None,
    resume: Mode = None,
    dry_run: DryRun = False,
) -> None:
    """Train one component on labelled questions, and measure again.

    Learns the labels of some images, and compares answers to questions about other ones before
    and after, beside the same training with shuffled labels. What was trained is kept in the run:
    every command can load it with --tuned RUN. All options: vlmlens plugins show tune.

    Examples:
        vlmlens tune --data demo:scenes --task surface --component projector --samples 200
        vlmlens tune --adapter llava --model M --data d.csv --method prompt --out runs/x
    """
    given = {
        "component": component, "method": method, "task": task or None, "samples": samples,
        "epochs": epochs, "rate": rate, "rank": rank, "tokens": tokens, "seeds": seeds,
    }  # fmt: skip
    assigned = [
        f"analysis.{ANALYSIS}.{name}={json.dumps(value)}"
        for name, value in given.items()
        if value is not None
    ]
    own = replace(
        flags,
        values={**flags.values, "analysis": [ANALYSIS]},
        assignments=(*assigned, *flags.assignments),
    )
    made = carry_out(own, output, resume, dry_run, command="run")
    if made is not None:
        print_tuned(made, output)


def print_tuned(run: Run, output: Output) -> None:
    """Print what was found, a line each, and how the tuned model is used.

    Args:
        run: With a result of the analysis.
        output: With `json` a document is printed, with `quiet` the run's folder only.
    """
    result = run.results[ANALYSIS]
    if output.json:
        output.data({"tuned": str(run.path / FOLDER), **run_document(run, [result])})
        return
    if output.quiet:
        output.data(None, str(run.path))
        return
    warnings = [f"! {warning}" for warning in result.warnings]
    use = f"use it   vlmlens run --tuned {shlex.quote(str(run.path))} ..."
    output.data(None, *(each.text for each in result.findings), *warnings, *next_steps(run), use)
