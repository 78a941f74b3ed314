"""`vlmlens import`: columns from another store or an exported file into a new store."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from typer import Argument

from vlmlens.cli._options import Trust, installed, output_flags, shares
from vlmlens.cli._output import Output
from vlmlens.cli.export import Form, Storage


@shares(output=output_flags)
def import_(
    source: Annotated[
        str, Argument(metavar="SOURCE", help="A run, a store, its URI, or an exported file.")
    ],
    target: Annotated[
        str, Argument(metavar="TARGET", help="Path or URI of a store that does not exist yet.")
    ],
    output: Output,
    format_: Form = None,
    storage: Storage = None,
    trust: Trust = False,
) -> None:
    """Make a store from another store or an exported file.

    A database of VLM-Lens is a store, too.

    Examples:
        vlmlens import old.db new.lmdb
        vlmlens import demo.parquet demo.sqlite
    """
    from vlmlens.transfer import IMPORTED, bring, carry, origin_of

    with output.observer() as observer:
        observer.stage("import", None)
        path = Path(source)
        if path.suffix.removeprefix(".").lower() in IMPORTED or (path / "index.json").is_file():
            form = bring(
                installed(), source, target, format_, lambda done, total: observer.advance(done)
            )
        else:
            with origin_of(installed(), source, storage, trust=trust) as origin:
                form = carry(
                    installed(), origin, target, format_, lambda done, total: observer.advance(done)
                )
    output.data({"target": target, "format": form}, f"written to {target} ({form})")
