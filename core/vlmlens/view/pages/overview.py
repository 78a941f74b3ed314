"""A run's overview: a row per task, what each analysis answers, and what is behind each cell."""

from __future__ import annotations

from typing import TYPE_CHECKING

from starlette.responses import HTMLResponse

from vlmlens.report._overview import draw_overview
from vlmlens.view.page import page
from vlmlens.view.viewer import run_of

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response


def show(request: Request) -> Response:
    """The page."""
    run = run_of(request)
    results = list(run.results.values())
    names = [f"{run.address}/analyses/{name}" for name in run.results]
    grid = draw_overview(results, names, run.samples)
    return HTMLResponse(page(request, run.name, grid, scripts=("report.js",), run=run))
