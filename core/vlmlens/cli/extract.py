"""`vlmlens extract`: columns now, analyses later."""

from __future__ import annotations

from typing import Annotated

from typer import Option

from vlmlens.cli._options import SpecFlags, output_flags, shares, spec_flags
from vlmlens.cli._output import Output
from vlmlens.cli.run import DryRun, Mode, Workers, carry_out

_Shard = Annotated[
    str | None,
    Option(
        metavar="K/N",
        help="Only this part, for several processes or machines; env: as torchrun or srun say.",
    ),
]


@shares(flags=spec_flags, output=output_flags)
def extract(
    flags: SpecFlags,
    output: Output,
    resume: Mode = None,
    dry_run: DryRun = False,
    workers: Workers = 1,
    shard: _Shard = None,
) -> None:
    """Run a model and keep its activations.

    `vlmlens analyze` does the rest later, loading the model only where an analysis needs it.
    """
    made = carry_out(
        flags, output, resume, dry_run, command="extract", workers=workers, shard=shard
    )
    if made is None:
        return
    with made.store() as store:
        columns = [column.name for column in store.columns()]
    document = {"run": str(made.path), "samples": len(made.samples), "columns": columns}
    output.data(
        document,
        f"run     {made.path}: {len(columns)} columns of {len(made.samples)} samples",
        f"next    vlmlens analyze {made.path}",
    )
