"""`vlmlens estimate`: what a run will store, and how long it will take."""

from __future__ import annotations

from typing import Annotated

from typer import Option

from vlmlens._display import count, size
from vlmlens.cli._options import SpecFlags, installed, output_flags, shares, spec_flags
from vlmlens.cli._output import Output, table
from vlmlens.cli._plan import estimate_line

_Time = Annotated[
    bool, Option("--time", help="Load the model and run some batches, to estimate the time, too.")
]


@shares(flags=spec_flags, output=output_flags)
def estimate(flags: SpecFlags, output: Output, time: _Time = False) -> None:
    """Estimate the size of a run, and its time with --time.

    Sizes are given per column. Where columns are too large to be reasonable, it says what to do.
    Weights are loaded only with --time.

    Examples:
        vlmlens estimate --adapter qwen2vl --data photos/ --prompt "What is it?"
        vlmlens estimate --time --limit 1000
    """
    from vlmlens.compose.estimate import advice
    from vlmlens.extraction.extraction import timed
    from vlmlens.runner import execution as runner

    with output.observer() as observer:
        spec = flags.spec()
        plan = runner.compose(
            spec,
            installed(),
            observer=observer,
            analyse=bool(spec.analysis),
            must_fit=False,
            notes=flags.notes,
            trust=flags.trust,
        )
        measure = time and bool(plan.columns)
        found = timed(plan, observer.warn) if measure else plan.estimate
    rows = [
        (name, "unknown" if known is None else size(known)) for name, known in found.columns.items()
    ]
    place = f" in {found.storage}" if found.storage and found.columns else ""
    each = f" of {size(found.bytes_per_sample)}" if found.bytes else ""
    lines = [f"{count(found.samples, 'sample')}{each}, {estimate_line(found)}{place}"]
    if measure:
        unknown = "unknown, too few batches to measure; use more samples or a smaller --batch-size"
        lines.append(f"extraction: {unknown if found.time is None else found.time}")
    lines += advice(found)
    output.data(found.to_dict(), table("column", "size", rows=rows), *lines)
