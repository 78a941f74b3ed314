"""`vlmlens doctor`: what works here, and what to do about the rest."""

from __future__ import annotations

import typer

from vlmlens.cli._diagnosis import diagnose
from vlmlens.cli._options import installed, output_flags, shares
from vlmlens.cli._output import Output, table


@shares(output=output_flags)
def doctor(output: Output) -> None:
    """Check this environment.

    Dependencies, accelerators, the Hugging Face cache, plugins, and what to do about them.
    """
    checks = diagnose(installed())
    rows = [(check.topic, check.name, check.state, check.detail) for check in checks]
    advice = [f"{check.name}: {check.advice}" for check in checks if check.advice]
    healthy = not any(check.state == "FAILS" for check in checks)
    verdict = "vlmlens can run." if healthy else "vlmlens cannot run."
    output.data(
        {"healthy": healthy, "checks": [vars(check) for check in checks]},
        table("", "what", "state", "", rows=rows),
        "\n".join(["", verdict, *advice]),
    )
    if not healthy:
        raise typer.Exit(1)
