"""`vlmlens merge`: the shards of a run become one store."""

from __future__ import annotations

from typing import Annotated

from typer import Argument

from vlmlens.cli._options import Trust, installed, output_flags, shares
from vlmlens.cli._output import Output


@shares(output=output_flags)
def merge(
    where: Annotated[str, Argument(metavar="RUN", help="Folder of a run with shards.")],
    output: Output,
    trust: Trust = False,
) -> None:
    """Merge the shards of a run into one store.

    `vlmlens extract --shard K/N` writes shards. They can also be analysed without merging.

    Examples:
        vlmlens merge runs/big
        vlmlens merge runs/big --json
    """
    from vlmlens.runner.merge import merge as put_together
    from vlmlens.runs.run import Run

    run = Run(where, registry=installed(), trust=trust)
    with output.observer() as observer:
        observer.stage("merge", None)
        count = put_together(run, lambda done, total: observer.advance(done))
    output.data({"run": where, "shards": count}, f"{count} shards are one store now: {where}")
