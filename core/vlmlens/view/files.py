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

_STYLES = ("view.css", "samples.css", "live.css")
_OWN = (*_STYLES, "view.js", "samples.js", "features_search.js", "live.js")
_KINDS = {"css": "text/css", "js": "text/javascript"}


def static(request: Request) -> Response:
    """A style sheet or script by its name."""
    name = request.path_params["name"]
    content = _content(name)
    if content is None:
        raise HTTPException(404, "There is no such file.")
    return Response(content, media_type=_KINDS[name.rsplit(".", 1)[1]])


@cache
def _known() -> dict[str, str]:
    folder = resources.files("vlmlens.view").joinpath("static")
    own = {name: folder.joinpath(name) for name in _OWN}
    return {
        "report.css": html.style_sheet(),
        "report.js": html.scripts(),
        **{name: file.read_text(encoding="utf-8") for name, file in own.items() if file.is_file()},
    }


def _content(name: str) -> str | None:
    return _known().get(name)
