"""Features of an SAE, with search."""

from __future__ import annotations

from typing import TYPE_CHECKING

from starlette.responses import HTMLResponse

from vlmlens.view.page import page
from vlmlens.view.viewer import viewer_of

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response


def show(request: Request) -> Response:
    """The page."""
    viewer_of(request)
    return HTMLResponse(page(request, "Not built yet"))
