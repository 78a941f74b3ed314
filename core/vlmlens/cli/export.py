"""`vlmlens export`: columns into another store, or into files for other programs."""

from __future__ import annotations

from typing import Annotated

from typer import Argument, Option

from vlmlens.cli._options import installed, output_flags, shares
from vlmlens.cli._output import Output

Form = Annotated[
    str | None,
    Option(
        "--format",
        metavar="NAME",
        help="safetensors, npz, parquet, or a storage plugin. Default: as TARGET's suffix says.",
    ),
]
Storage = Annotated[
    str | None, Option(metavar="NAME", help="Storage plugin that reads a bare store.")
]


@shares(output=output_flags)
def export(
    source: Annotated[
        str, Argument(metavar="RUN_OR_STORE", help="Folder of a run, a store, or its URI.")
    ],
    target: Annotated[str, Argument(metavar="TARGET", help="Path or URI that does not exist yet.")],
    output: Output,
    format_: Form = None,
    storage: Storage = None,
) -> None:
    """Write columns to another store, or to safetensors, npz or Parquet.

    Ids, samples and the store's record go along; nothing is lost, bfloat16 included.
    """
    from vlmlens.transfer import carry, origin_of

    with output.observer() as observer, origin_of(installed(), source, storage) as origin:
        observer.stage("export", sum(info.samples for info in origin.store.columns()))
        form = carry(
            installed(), origin, target, format_, lambda done, total: observer.advance(done)
        )
        columns = len(origin.store.columns())
    document = {"target": target, "format": form, "columns": columns}
    output.data(document, f"{columns} columns written to {target} ({form})")
