"""What the app shows: runs by number, and a model to ask."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, cast

from starlette.exceptions import HTTPException

from vlmlens.view.shown_run import ShownRun

if TYPE_CHECKING:
    from starlette.requests import Request


class Live(Protocol):
    """What asks the model: `live.worker.ModelWorker`, as the other rooms see it."""

    ending: bool

    def close(self, patience: float) -> bool:
        """Cancel everything; whether its thread ended within some seconds."""


@dataclass(frozen=True)
class Viewer:
    """What the app shows.

    Args:
        runs: The runs, in the order of the command line; their number is part of addresses.
        live: What asks the model; None where no model is to be loaded.
    """

    runs: Sequence[ShownRun]
    live: Live | None = None


def viewer_of(request: Request) -> Viewer:
    """What the app that was asked shows."""
    return cast("Viewer", request.app.state.viewer)


def run_of(request: Request) -> ShownRun:
    """The run that the address names.

    Raises:
        HTTPException: 404: there is no such run.
    """
    runs, number = viewer_of(request).runs, int(request.path_params["run"])
    if number >= len(runs):
        raise HTTPException(404, f"There is no run {number}: {len(runs)} are open.")
    return runs[number]
