"""`vlmlens export`: columns into another store, or into files for other programs."""

from __future__ import annotations

from typing import Annotated

from typer import Argument, Option

from vlmlens.cli._options import Trust, installed, output_flags, shares
from vlmlens.cli._output import Output

Form = Annotated[
    str | None,
    Option(
        "--format",
        metavar="NAME",
        help="safetensors, npz, parquet, or a storage plugin. [default: by the suffix of TARGET]",
    ),
]
Storage = Annotated[
    str | None, Option(metavar="NAME", help="Storage plugin that reads a store without a run.")
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
    trust: Trust = False,
) -> None:
    """Write columns to another store, safetensors, npz or Parquet.

    Ids, samples and the store's metadata are written, too. No precision is lost, also of bfloat16.

    Examples:
        vlmlens export runs/demo-001 demo.parquet
        vlmlens export runs/demo-001 demo.zarr --format zarr
    """
    from vlmlens.transfer import carry, origin_of

    with (
        output.observer() as observer,
        origin_of(installed(), source, storage, trust=trust) as origin,
    ):
        observer.stage("export", sum(info.samples for info in origin.store.columns()))
        form = carry(
            installed(), origin, target, format_, lambda done, total: observer.advance(done)
        )
        columns = len(origin.store.columns())
    document = {"target": target, "format": form, "columns": columns}
    output.data(document, f"{columns} columns written to {target} ({form})")
