"""`vlmlens view`: runs in the browser."""

from __future__ import annotations

import os
import sys
from typing import Annotated

from typer import Argument, Option

from vlmlens.cli import _completion as completion
from vlmlens.cli._options import SpecFlags, installed, output_flags, shares, view_flags
from vlmlens.cli._output import Output

Host = Annotated[
    str,
    Option(
        metavar="ADDRESS",
        help="Address to listen at. Others than this machine's need --token.",
        rich_help_panel="Page",
    ),
]
Port = Annotated[
    int,
    Option(
        metavar="N",
        help="Port. [default: a free one]",
        show_default=False,
        min=0,
        max=65535,
        rich_help_panel="Page",
    ),
]
Token = Annotated[
    str | None,
    Option(
        metavar="SECRET",
        help="Token of the page's address. [default: a random one]",
        envvar="VLMLENS_VIEW_TOKEN",
        rich_help_panel="Page",
    ),
]
Open = Annotated[
    bool, Option("--open/--no-open", help="Open the page in a browser.", rich_help_panel="Page")
]


@shares(flags=view_flags, output=output_flags)
def view(
    flags: SpecFlags,
    output: Output,
    runs: Annotated[
        list[str] | None,
        Argument(metavar="RUN", help="Folders of runs.", autocompletion=completion.paths),
    ] = None,
    live: Annotated[
        bool,
        Option(
            "--live/--no-live",
            help="Let the page ask the model. [default: live]",
            show_default=False,
        ),
    ] = True,
    host: Host = "127.0.0.1",
    port: Port = 0,
    token: Token = None,
    open_: Open = True,
) -> None:
    """Show runs in the browser: overview, samples, figures, features, side by side.

    The page is served from this machine alone, and its address holds a secret. Ctrl-C ends it. Its
    page "Live" asks the model, which the first question loads: the one that is named, or the
    runs' own.

    Examples:
        vlmlens view runs/demo-001
        vlmlens view runs/a runs/b --port 8123 --no-open
        vlmlens view --adapter qwen2vl --model Qwen/Qwen2-VL-2B-Instruct
    """
    from vlmlens.errors import SpecError
    from vlmlens.runs.run import Run
    from vlmlens.view import opening

    opening.check_installed()
    given = flags.given()
    if not runs and not (live and given):
        raise SpecError(
            "There is nothing to show: neither a run nor a model is named.",
            subject="runs",
            hint="Give the folder of a run, or a model: vlmlens view --adapter demo.",
        )
    registry = installed()
    opened = [Run(run, registry=registry, trust=flags.trust) for run in runs or ()]
    asked = opening.model_for(opened, given, registry) if live else None
    ended = opening.view(
        opened, host=host, port=port, token=token, show=open_, said=output.data, live=asked
    )
    leave(ended)


def leave(ended: bool) -> None:
    """End the process at once where a pass of the model still runs: nothing waits for it.

    Args:
        ended: Whether all threads ended.
    """
    if not ended:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(0)
