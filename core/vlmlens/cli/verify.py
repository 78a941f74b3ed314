"""`vlmlens verify`: read everything that is stored, and compare checksums."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer
from typer import Argument

from vlmlens._display import size
from vlmlens.cli._options import Trust, installed, output_flags, shares
from vlmlens.cli._output import Output, table
from vlmlens.cli.export import Storage

if TYPE_CHECKING:
    from rich.table import Table

    from vlmlens.abc.storage import ChunkCheck


@shares(output=output_flags)
def verify(
    where: Annotated[
        str, Argument(metavar="RUN_OR_STORE", help="Folder of a run, a store, or its URI.")
    ],
    output: Output,
    storage: Storage = None,
    trust: Trust = False,
) -> None:
    """Read every stored chunk, compare checksums, and look for what is missing.

    A run's store is compared with what the run says should be there. The exit code is 2 if
    something is damaged, or missing in a finished run.

    Examples:
        vlmlens verify runs/demo-001
        vlmlens verify demo.zarr --storage zarr
    """
    from vlmlens.transfer import check_all, origin_of

    with (
        output.observer() as observer,
        origin_of(installed(), where, storage, trust=trust) as origin,
    ):
        observer.stage("verify", sum(info.samples for info in origin.store.columns()))
        found = check_all(origin, lambda done, total: observer.advance(done))
        state = origin.run.info.get("state", "unknown") if origin.run else ""
    total = sum(chunk.bytes for chunk in found.chunks)
    document = {
        "chunks": len(found.chunks),
        "bytes": total,
        "damaged": [asdict(chunk) for chunk in found.damaged],
        "not_finished": [asdict(chunk) for chunk in found.open],
    }
    read = f"{len(found.chunks)} chunks, {size(total)}"
    if found.damaged:
        output.data(document, _listed(found.damaged), "", f"{read}: {len(found.damaged)} problems")
        raise typer.Exit(2)
    if found.open:
        last = f"{read}, undamaged; the run is not finished ({state})"
        output.data(document, _listed(found.open), "", last)
        return
    output.data(document, f"{read}, all undamaged")


def _listed(chunks: list[ChunkCheck]) -> Table:
    rows = [(chunk.column, chunk.first, chunk.samples, chunk.problem) for chunk in chunks]
    return table("column", "first sample", "samples", "problem", rows=rows)
