"""`vlmlens merge`: what several processes wrote becomes one store."""

from __future__ import annotations

from typing import Annotated

from typer import Argument

from vlmlens.cli._options import Trust, installed, output_flags, shares
from vlmlens.cli._output import Output


@shares(output=output_flags)
def merge(
    where: Annotated[str, Argument(metavar="RUN", help="Folder of a run of several processes.")],
    output: Output,
    trust: Trust = False,
) -> None:
    """Copy what several processes wrote into one store.

    It is never needed: all commands read the parts as one store. One store is fewer files.

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
    line = f"{count} parts are one store now: {where}" if count else f"It is one store: {where}"
    output.data({"run": where, "parts": count}, line)
