"""The app: which address is answered by which page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import PurePath
from typing import TYPE_CHECKING, cast

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.responses import HTMLResponse, JSONResponse, RedirectResponse, Response
from starlette.routing import Route

from vlmlens.errors import VlmlensError
from vlmlens.view import files
from vlmlens.view.access import Access, Guard
from vlmlens.view.page import page
from vlmlens.view.pages import (
    analysis,
    beside,
    features,
    live,
    live_jobs,
    overview,
    picture,
    sample,
    samples,
)
from vlmlens.view.viewer import Viewer, viewer_of

if TYPE_CHECKING:
    from starlette.requests import Request


def make_app(viewer: Viewer, access: Access) -> Guard:
    """The app over runs.

    Args:
        viewer: The runs, and the live model if there is one.
        access: Who may use it.
    """
    app = Starlette(
        routes=[
            Route("/", home),
            Route("/static/{name}", files.static),
            Route("/beside", beside.show),
            Route("/beside/tables/{table:int}", beside.rows),
            Route("/runs/{run:int}", overview.show),
            Route("/runs/{run:int}/samples", samples.show),
            Route("/runs/{run:int}/samples/rows", samples.rows),
            Route("/runs/{run:int}/samples/column", samples.column),
            Route("/runs/{run:int}/samples/{number:int}", sample.show),
            Route("/runs/{run:int}/samples/{number:int}/pictures/{image:int}", picture.show),
            Route("/runs/{run:int}/analyses/{name:path}/tables/{table:int}", analysis.rows),
            Route("/runs/{run:int}/analyses/{name:path}", analysis.show),
            Route("/runs/{run:int}/features", features.show),
            Route("/live", live.show),
            *live_jobs.ROUTES,
        ],
        exception_handlers={
            VlmlensError: _explained,
            OSError: _gone,
            HTTPException: _refused,
            500: _unexpected,
        },
    )
    app.state.viewer = viewer
    app.state.comparisons = beside.Comparisons()
    return Guard(app, access)


def home(request: Request) -> Response:
    """The first page: the only run's overview, all runs side by side, or the live page."""
    viewer = viewer_of(request)
    if not viewer.runs:
        return RedirectResponse("/live", 303)
    return RedirectResponse("/runs/0" if len(viewer.runs) == 1 else "/beside", 303)


def _explained(request: Request, error: Exception) -> Response:
    known = cast("VlmlensError", error)
    return _told(request, 422, known.message, known.hint)


def _refused(request: Request, error: Exception) -> Response:
    known = cast("HTTPException", error)
    return _told(request, known.status_code, known.detail, None, known.headers)


def _gone(request: Request, error: Exception) -> Response:
    """A file that was moved, removed or closed to this user after its run was opened."""
    known = cast("OSError", error)
    name = PurePath(str(known.filename or "a file")).name
    said = "If the run was moved or removed, stop `vlmlens view` and open it where it is now."
    return _told(request, 422, f"{name} cannot be read: {known.strerror or known}.", said)


def _unexpected(request: Request, error: Exception) -> Response:
    """An error that nobody expected: its text stays in the terminal."""
    del error
    said = "The terminal in which `vlmlens view` runs says more."
    return _told(request, 500, "This failed in a way that was not expected.", said)


def _told(
    request: Request,
    status: int,
    message: str,
    hint: str | None,
    headers: Mapping[str, str] | None = None,
) -> Response:
    """An error as a page where a person looks, as JSON where the app's scripts ask."""
    if "text/html" not in request.headers.get("accept", ""):
        return JSONResponse({"message": message, "hint": hint}, status, dict(headers or {}))
    said: Sequence[str] = [message, *([hint] if hint else [])]
    return HTMLResponse(page(request, "This did not work", said=said), status, dict(headers or {}))
