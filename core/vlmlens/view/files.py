"""The app's own styles and scripts. No path of a request reaches the disk: names are looked up."""

from __future__ import annotations

from functools import cache
from importlib import resources
from typing import TYPE_CHECKING

from starlette.exceptions import HTTPException
from starlette.responses import Response

from vlmlens.report import html

if TYPE_CHECKING:
    from starlette.requests import Request

_KINDS = {"css": "text/css", "js": "text/javascript"}


def static(request: Request) -> Response:
    """A style sheet or script by its name."""
    name = request.path_params["name"]
    content = _known().get(name)
    if content is None:
        raise HTTPException(404, "There is no such file.")
    return Response(content, media_type=_KINDS[name.rsplit(".", 1)[1]])


@cache
def _known() -> dict[str, str]:
    folder = resources.files("vlmlens.view").joinpath("static")
    return {
        "report.css": html.style_sheet(),
        "report.js": html.scripts(),
        **{file.name: file.read_text(encoding="utf-8") for file in folder.iterdir()},
    }
