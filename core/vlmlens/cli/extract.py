"""`vlmlens extract`: columns now, analyses later."""

from __future__ import annotations

from vlmlens._display import count
from vlmlens.cli._options import (
    DryRun,
    Mode,
    SpecFlags,
    extract_flags,
    output_flags,
    shares,
)
from vlmlens.cli._output import Output
from vlmlens.cli.run import carry_out


@shares(flags=extract_flags, output=output_flags)
def extract(
    flags: SpecFlags,
    output: Output,
    resume: Mode = None,
    dry_run: DryRun = False,
) -> None:
    """Run a model and store its activations.

    `vlmlens analyze` does the rest later. It loads the model only if an analysis needs it.

    Examples:
        vlmlens extract --limit 100 --sites "llm.block.*/last"
        vlmlens extract --adapter llava --data photos/ --prompt "What is it?" --workers 4
        vlmlens extract --data photos/ --prompt "What is it?" --out runs/a --shard env
    """
    made = carry_out(flags, output, resume, dry_run, command="extract")
    if made is None:
        return
    with made.store() as store:
        columns = [column.name for column in store.columns()]
    samples = made.sample_count
    document = {"run": str(made.path), "samples": samples, "columns": columns}
    output.data(
        document,
        f"run     {made.path}: {count(len(columns), 'column')} of {count(samples, 'sample')}",
        f"next    vlmlens analyze {made.path}",
    )
