"""`vlmlens export`: columns into another store, or into files for other programs."""

from __future__ import annotations

from typing import Annotated

from typer import Argument, Option

from vlmlens._display import count
from vlmlens.cli._options import Trust, installed, output_flags, shares
from vlmlens.cli._output import Output

Form = Annotated[
    str | None,
    Option(
        "--format",
        metavar="NAME",
        help="safetensors, safetensors-shards, npz, npy, parquet, hdf5, or a storage plugin. "
        "[default: by the suffix of TARGET]",
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
    sites: Annotated[
        list[str] | None,
        Option(
            "--sites",
            metavar="PATTERN",
            help="Only these columns or sites; * and ? stand for other characters. Repeatable.",
        ),
    ] = None,
    samples: Annotated[
        list[str] | None,
        Option(
            "--samples",
            metavar="PATTERN",
            help="Only samples with these ids; * and ? stand for other characters. Repeatable.",
        ),
    ] = None,
    trust: Trust = False,
) -> None:
    """Write columns to another store, safetensors, npz, npy, Parquet or HDF5.

    Ids, samples and the store's metadata are written, too. No precision is lost, also of bfloat16.

    Examples:
        vlmlens export runs/demo-001 demo.parquet
        vlmlens export runs/demo-001 demo.zarr --format zarr
        vlmlens export runs/demo-001 late.npz --sites 'llm.block.*' --samples 'heldout-*'
    """
    from vlmlens.transfer import carry, origin_of

    with (
        output.observer() as observer,
        origin_of(installed(), source, storage, trust=trust) as whole,
    ):
        origin = whole.select(sites or (), samples or ())
        observer.stage("export", sum(info.samples for info in origin.store.columns()))
        form = carry(
            installed(), origin, target, format_, lambda done, total: observer.advance(done)
        )
        columns = len(origin.store.columns())
    document = {"target": target, "format": form, "columns": columns}
    output.data(document, f"{count(columns, 'column')} written to {target} ({form})")
