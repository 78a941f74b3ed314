"""`vlmlens view`: runs in the browser."""

from __future__ import annotations

from typing import Annotated

from typer import Argument, Option

from vlmlens.cli._options import Trust, installed, output_flags, shares
from vlmlens.cli._output import Output

Host = Annotated[
    str,
    Option(
        metavar="ADDRESS", help="Address to listen at. Others than this machine's need --token."
    ),
]
Port = Annotated[int, Option(metavar="N", help="Port. [default: a free one]", show_default=False)]
Token = Annotated[
    str | None,
    Option(
        metavar="SECRET",
        help="Token of the page's address. [default: a random one]",
        envvar="VLMLENS_VIEW_TOKEN",
    ),
]


@shares(output=output_flags)
def view(
    runs: Annotated[list[str], Argument(metavar="RUN...", help="Folders of runs.")],
    output: Output,
    host: Host = "127.0.0.1",
    port: Port = 0,
    token: Token = None,
    open_: Annotated[bool, Option("--open/--no-open", help="Open the page in a browser.")] = True,
    trust: Trust = False,
) -> None:
    """Show runs in the browser: overview, samples, figures, features, side by side.

    The page is served from this machine alone, and its address holds a secret. Ctrl-C ends it.

    Examples:
        vlmlens view runs/demo-001
        vlmlens view runs/a runs/b --port 8123 --no-open
    """
    from vlmlens.runs.run import Run
    from vlmlens.view import opening

    opened = [Run(run, registry=installed(), trust=trust) for run in runs]
    opening.view(opened, host=host, port=port, token=token, show=open_, said=output.data)
