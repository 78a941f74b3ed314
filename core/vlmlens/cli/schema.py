"""`vlmlens schema`: the run file's JSON schema."""

from __future__ import annotations

import logging

import typer

from vlmlens.cli._options import installed, output_flags, shares
from vlmlens.cli._output import Output, to_json


@shares(output=output_flags)
def schema(output: Output) -> None:
    """Print the JSON schema of the run file, for editors.

    It holds the options of all installed plugins. A plugin that cannot be imported is left out,
    with a warning.

    Examples:
        vlmlens schema > vlmlens.schema.json
        vlmlens schema --quiet
    """
    from vlmlens.compose.schema import run_schema

    document, notes = run_schema(installed())
    if not output.quiet:
        for note in notes:
            logging.getLogger("vlmlens").warning("%s", note)
    typer.echo(to_json(document))
