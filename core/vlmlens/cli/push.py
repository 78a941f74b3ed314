"""`vlmlens push`: a run to the Hugging Face hub."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from typer import Argument, Option

from vlmlens._display import count, size
from vlmlens.cli._options import Trust, installed, output_flags, shares
from vlmlens.cli._output import Output, table

if TYPE_CHECKING:
    from rich.table import Table

    from vlmlens.sharing import Pushed


@shares(output=output_flags)
def push(
    run: Annotated[str, Argument(metavar="RUN", help="Folder of a finished run.")],
    repo: Annotated[str, Argument(metavar="OWNER/NAME", help="The repository, made if need be.")],
    output: Output,
    images: Annotated[
        bool, Option("--images", help="Send the pictures of the samples, too.")
    ] = False,
    activations: Annotated[
        bool, Option("--activations", help="Send the activations, too.")
    ] = False,
    public: Annotated[bool, Option("--public", help="Let everybody see it.")] = False,
    replace: Annotated[
        bool, Option("--replace", help="Replace another run that the repository holds.")
    ] = False,
    dry_run: Annotated[
        bool,
        Option("--dry-run", help="Print the card and list what would be sent; use no network."),
    ] = False,
    trust: Trust = False,
) -> None:
    """Send a run to the Hugging Face hub, with a card that says what was found.

    It becomes a private dataset repository. Settings, results, the report and the samples' texts
    are sent; pictures and activations only if asked for; credentials and paths of this machine
    never.

    Examples:
        vlmlens push runs/demo-001 me/demo-run --dry-run
        vlmlens push runs/demo-001 me/demo-run --activations
    """
    from vlmlens.runs.run import Run
    from vlmlens.sharing import push as send

    opened = Run(run, registry=installed(), trust=trust)
    with output.observer() as observer:
        done = send(
            opened,
            repo,
            images=images,
            activations=activations,
            public=public,
            replace=replace,
            dry_run=dry_run,
            observer=observer,
        )
    document = {
        "repo": repo, "private": done.private, "commit": done.commit, "url": done.url,
        "files": done.files, "left_out": done.left_out, "card": done.card,
    }  # fmt: skip
    if dry_run:
        output.data(document, done.card, *_listed(done))
        return
    output.data(document, f"{count(len(done.files), 'file')}, {size(done.size)}: {done.url}")


def _listed(done: Pushed) -> list[Table]:
    rows = [(name, size(number)) for name, number in done.files.items()]
    sent = table("would be sent", size(done.size), rows=rows)
    left = table("left out", "why", rows=done.left_out.items())
    return [sent, left] if done.left_out else [sent]
