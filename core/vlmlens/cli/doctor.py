"""`vlmlens doctor`: what works here, and what to do about the rest."""

from __future__ import annotations

import typer

from vlmlens.cli._diagnosis import diagnose, verdict
from vlmlens.cli._options import installed, output_flags, shares
from vlmlens.cli._output import Output, table


@shares(output=output_flags)
def doctor(output: Output) -> None:
    """Check this environment.

    Checks dependencies, accelerators, the Hugging Face cache and plugins, and says what to do. The
    exit code is 1 if vlmlens cannot run.

    Examples:
        vlmlens doctor
        vlmlens doctor --json
    """
    checks = diagnose(installed())
    rows = [(check.topic, check.name, check.state, check.detail) for check in checks]
    advice = [f"{check.name}: {check.advice}" for check in checks if check.advice]
    healthy, sentence = verdict(checks)
    output.data(
        {"healthy": healthy, "checks": [vars(check) for check in checks]},
        table("", "what", "state", "", rows=rows),
        "\n".join(["", sentence, *advice]),
    )
    if not healthy:
        raise typer.Exit(1)
