"""`vlmlens estimate`: what a run will store."""

from __future__ import annotations

from vlmlens.cli._options import SpecFlags, installed, output_flags, shares, spec_flags
from vlmlens.cli._output import Output, size, table
from vlmlens.cli._plan import estimate_line


@shares(flags=spec_flags, output=output_flags)
def estimate(flags: SpecFlags, output: Output) -> None:
    """Say what a run will store.

    Column by column, without loading weights.
    """
    from vlmlens import runner

    with output.observer() as observer:
        plan = runner.compose(
            flags.spec(),
            installed(),
            observer=observer,
            analyse=False,
            must_fit=False,
            notes=flags.notes,
        )
    found = plan.estimate
    rows = [
        (name, "unknown" if count is None else size(count)) for name, count in found.columns.items()
    ]
    summary = f"{found.samples} samples, {estimate_line(found)}"
    output.data(found.to_dict(), table("column", "size", rows=rows), summary)
