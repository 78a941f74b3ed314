"""`vlmlens pull`: a run from the Hugging Face hub."""

from __future__ import annotations

import re
from typing import Annotated

from typer import Argument, BadParameter, Option

from vlmlens._display import count
from vlmlens.cli._options import output_flags, shares
from vlmlens.cli._output import Output

_SIZE = re.compile(r"(\d{1,15}(?:\.\d{1,6})?) ?(?:([KMGT])i?)?B?", re.IGNORECASE | re.ASCII)


def _bytes(text: str) -> int:
    """A number of bytes from text such as "20GB"."""
    found = _SIZE.fullmatch(text.strip())
    power = 1 + "KMGT".index(found[2].upper()) if found and found[2] else 0
    number = int(float(found[1]) * 1024**power) if found else 0
    if number < 1:
        raise BadParameter(f"{text!r} is no size, such as 500MB or 20GB.")
    return number


@shares(output=output_flags)
def pull(
    repo: Annotated[
        str, Argument(metavar="OWNER/NAME", help="A repository that `vlmlens push` made.")
    ],
    output: Output,
    to: Annotated[
        str | None,
        Option(metavar="FOLDER", help="The run's folder, which does not exist. [default: NAME]"),
    ] = None,
    revision: Annotated[
        str | None, Option(metavar="NAME", help="Branch, tag or commit. [default: the newest]")
    ] = None,
    max_size: Annotated[
        str, Option("--max-size", metavar="SIZE", help="Fetch no more than this.")
    ] = "20GB",
) -> None:
    """Fetch a run from the Hugging Face hub.

    Only data is fetched, nothing of it is executed, and the run is not trusted. What an interrupted
    pull has fetched is not fetched again.

    Examples:
        vlmlens pull someone/demo-run
        vlmlens pull someone/demo-run --to runs/theirs --revision 4f2c9ab
    """
    from vlmlens.sharing import pull as fetch

    with output.observer() as observer:
        run = fetch(repo, to, revision=revision, max_size=_bytes(max_size), observer=observer)
    results, info = run.results, run.info
    document = {
        "run": str(run.path), "repo": repo, "commit": info["pulled"]["commit"],
        "samples": run.sample_count, "results": list(results),
        "columns": info.get("columns", []),
    }  # fmt: skip
    lines = [
        f"{count(run.sample_count, 'sample')}, results of {', '.join(results) or 'no analysis'}",
        f"look at it  vlmlens show {run.path}",
        f"as a page   vlmlens report {run.path} --open",
    ]
    output.data(document, "\n".join(lines))
