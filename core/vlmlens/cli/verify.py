"""`vlmlens verify`: read everything that is stored, and compare checksums."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer
from typer import Argument

from vlmlens._display import size
from vlmlens.cli._options import installed, output_flags, shares
from vlmlens.cli._output import Output, table
from vlmlens.cli.export import Storage


@shares(output=output_flags)
def verify(
    where: Annotated[
        str, Argument(metavar="RUN_OR_STORE", help="Folder of a run, a store, or its URI.")
    ],
    output: Output,
    storage: Storage = None,
) -> None:
    """Read every stored chunk and compare its checksum.

    The exit code is 2 if something is damaged.

    Examples:
        vlmlens verify runs/demo-001
        vlmlens verify demo.zarr --storage zarr
    """
    from vlmlens.transfer import check_all, origin_of

    with output.observer() as observer, origin_of(installed(), where, storage) as origin:
        observer.stage("verify", sum(info.samples for info in origin.store.columns()))
        chunks, damaged = check_all(origin.store, lambda done, total: observer.advance(done))
    total = sum(chunk.bytes for chunk in chunks)
    document = {"chunks": len(chunks), "bytes": total, "damaged": [asdict(c) for c in damaged]}
    rows = [(chunk.column, chunk.first, chunk.samples, chunk.problem) for chunk in damaged]
    if damaged:
        shown = table("column", "first sample", "samples", "problem", rows=rows)
        output.data(document, shown, "", f"{len(damaged)} of {len(chunks)} chunks are damaged")
        raise typer.Exit(2)
    output.data(document, f"{len(chunks)} chunks, {size(total)}, all undamaged")
