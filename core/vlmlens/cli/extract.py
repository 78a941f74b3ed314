"""`vlmlens extract`: columns now, analyses later."""

from __future__ import annotations

from vlmlens.cli._options import (
    DryRun,
    Mode,
    Shard,
    SpecFlags,
    Workers,
    output_flags,
    shares,
    spec_flags,
)
from vlmlens.cli._output import Output
from vlmlens.cli.run import carry_out


@shares(flags=spec_flags, output=output_flags)
def extract(
    flags: SpecFlags,
    output: Output,
    resume: Mode = None,
    dry_run: DryRun = False,
    workers: Workers = 1,
    shard: Shard = None,
) -> None:
    """Run a model and store its activations.

    `vlmlens analyze` does the rest later. It loads the model only if an analysis needs it.

    Examples:
        vlmlens extract --limit 100 --sites "llm.block.*/last"
        vlmlens extract --adapter llava --data photos/ --prompt "What is it?" --shard 0/2
    """
    made = carry_out(
        flags, output, resume, dry_run, command="extract", workers=workers, shard=shard
    )
    if made is None:
        return
    with made.store() as store:
        columns = [column.name for column in store.columns()]
    samples = made.sample_count
    document = {"run": str(made.path), "samples": samples, "columns": columns}
    output.data(
        document,
        f"run     {made.path}: {len(columns)} columns of {samples} samples",
        f"next    vlmlens analyze {made.path}",
    )
