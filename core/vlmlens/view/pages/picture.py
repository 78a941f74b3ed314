"""Pictures of samples, made small."""

from __future__ import annotations

from typing import TYPE_CHECKING

from starlette.exceptions import HTTPException
from starlette.responses import Response

from vlmlens.errors import DataError, SpecError
from vlmlens.report._markup import tag
from vlmlens.report._text import cut, one_line
from vlmlens.view.sample_pictures import SIDES, small_picture
from vlmlens.view.viewer import run_of

if TYPE_CHECKING:
    from starlette.requests import Request

    from vlmlens.samples import Sample
    from vlmlens.view.shown_run import ShownRun

_LETTERS, _LINES = 34, 5


def show(request: Request) -> Response:
    """A picture; where it cannot be shown, a small drawing that says why."""
    run, sample = sample_of(request)
    number, image = int(request.path_params["number"]), int(request.path_params["image"])
    side = _side(request.query_params.get("side", str(SIDES[1])))
    if image >= len(sample.images):
        raise HTTPException(404, f"The sample has no picture {image}.")
    try:
        made = small_picture(run, number, image, side)
    except DataError as error:
        if "image/" not in request.headers.get("accept", ""):
            raise
        return Response(_placeholder(error.message), 422, media_type="image/svg+xml")
    return Response(made.content, media_type=made.kind)


def sample_of(request: Request) -> tuple[ShownRun, Sample]:
    """The run and the sample that the address names.

    Raises:
        HTTPException: 404: there is no such run, or no such sample.
    """
    run, number = run_of(request), int(request.path_params["number"])
    count = len(run.samples)
    if number >= count:
        raise HTTPException(404, f"There is no sample {number}: the run has {count}.")
    return run, run.samples[number]


def _side(text: str) -> int:
    if text not in map(str, SIDES):
        raise SpecError(
            f"A picture cannot be {one_line(text)[:40]!r} pixels long.",
            subject="side",
            hint=f"Ask for one of {', '.join(map(str, SIDES))}.",
        )
    return int(text)


def _placeholder(message: str) -> str:
    said = cut(one_line(message), _LETTERS * _LINES)
    lines = [said[at : at + _LETTERS] for at in range(0, len(said), _LETTERS)]
    drawn = [tag("text", line, x="8", y=str(20 + 16 * i)) for i, line in enumerate(lines)]
    size = {"viewBox": "0 0 192 96", "width": "192", "height": "96"}
    look = {"font_family": "sans-serif", "font_size": "10", "fill": "#6d5200"}
    ground = tag("rect", width="192", height="96", fill="#f8efcf")
    return tag("svg", ground, tag("g", *drawn, **look), xmlns="http://www.w3.org/2000/svg", **size)
