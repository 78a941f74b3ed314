"""What the live page's script asks, as JSON.

    POST   /live/pictures?file=NAME    body: an image file of at most 20 MB (`file`: what it is
                                       called, for copied commands)
                                       -> 201 {"upload", "width", "height"}
    GET    /live/pictures/NAME         the picture as it was decoded, PNG
    POST   /live/jobs                  {"kind", "question": {...}} -> 202 {"job"}
    GET    /live/jobs/ID?wait=SECONDS  {"job", "state", "ahead", "done", "total",
                                       "result" | "error"}; it waits until the state changes
    DELETE /live/jobs/ID               {"state"}: the job leaves the queue, or ends after its pass
    GET    /live/model                 {"model", "adapter", "loaded"}

What is wrong is {"message", "hint"}: 422 for a question that cannot be read, 429 where too many
wait, 413 where a picture or a question is too long, 404 for a job that is not known (any more),
409 where no model can be asked. `error` is the same of a job that failed. A job that is not asked
about for a minute is cancelled.

A question is `LiveQuestion` as an object: {"text", "sample": [run, number] | "upload", "choices",
"covers": [[left, top, right, bottom], ...], "edits": [...]}; an edit names a file of an open run as
`runs/0/results/NAME`, as the directions do. The state is "waiting" (with `ahead` jobs before it),
"loading" (the model), "running", "done", "failed" or "cancelled". Kinds and their results:

    answer     {"unedited": ANSWER, "edited": ANSWER | null, "grid": [rows, columns] | null,
                "patches": [[left, top, right, bottom], ...], "commands": {"shell", "python"}};
                edited where there are covers or edits. `patches` are those of the grid, row by row,
                as fractions of the (first) picture. A command is null where there is none: for
                several pictures, say.
               ANSWER: {"text", "choices": [{"text", "probability"}]}, the most probable first
    lens, attention, occlusion, look
               {"html": figures drawn by the report's components, "said": [sentences],
                "commands": {"shell", "python"}}; each of the question with its covers and edits.
               `occlusion` is the map of a look; `look` is all of it
    directions {"directions": [{"name", "site", "edit"}]}: what can be steered: directions and SAE
               features that the open runs hold, with an edit in which {strength} is a number. No
               question is needed, and the job is done at once.
"""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, cast

from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from vlmlens.errors import DataError, did_you_mean
from vlmlens.view.live.edits import checked
from vlmlens.view.live.jobs import ENDED
from vlmlens.view.live.kinds import KINDS
from vlmlens.view.live.question import MOST_BYTES as MOST_OF_QUESTION
from vlmlens.view.live.question import read_asked
from vlmlens.view.live.uploads import MOST_BYTES, body_of
from vlmlens.view.live.worker import QueueFull
from vlmlens.view.viewer import viewer_of

if TYPE_CHECKING:
    from starlette.requests import Request

    from vlmlens.view.live.jobs import Job
    from vlmlens.view.live.worker import ModelWorker

_LONGEST_WAIT = 25.0
_LOOK = 0.03
_MOST_NAME = 200


async def upload(request: Request) -> Response:
    """Take a picture."""
    worker = _worker(request)
    content = await body_of(request, MOST_BYTES)
    file = request.query_params.get("file", "")[:_MOST_NAME].replace("\\", "/").split("/")[-1]
    kept = await asyncio.to_thread(worker.model.uploads.add, content, _printable(file))
    width, height = kept.size
    return JSONResponse({"upload": kept.name, "width": width, "height": height}, 201)


def picture(request: Request) -> Response:
    """An uploaded picture."""
    try:
        kept = _worker(request).model.uploads.get(request.path_params["name"])
    except DataError as error:
        raise HTTPException(404, error.message) from error
    return Response(kept.png, media_type="image/png")


async def ask(request: Request) -> Response:
    """Take a question into the queue."""
    worker = _worker(request)
    asked = read_asked(await body_of(request, MOST_OF_QUESTION))
    if asked.kind not in KINDS:
        raise DataError(
            f"There is no live view {asked.kind!a}.",
            subject="kind",
            hint=did_you_mean(asked.kind, KINDS) or f"There are {', '.join(KINDS)}.",
        )
    if asked.question is not None:
        checked(asked.question.edits, worker.model.runs)
    try:
        job = worker.add(asked)
    except QueueFull:
        raise HTTPException(429, "Too many questions wait. Try again in a while.") from None
    return JSONResponse({"job": job.id}, 202)


async def look(request: Request) -> Response:
    """How far a job is; waits for a change if asked to."""
    worker, job = _job(request)
    before = _seen(worker, job)
    end = time.monotonic() + _wait(request)
    while job.state not in ENDED and not worker.ending and time.monotonic() < end:
        if _seen(worker, job) != before or await request.is_disconnected():
            break
        await asyncio.sleep(_LOOK)
        job.touch()
    return JSONResponse(job.told(worker.ahead(job)))


def cancel(request: Request) -> Response:
    """Let a job end."""
    worker, job = _job(request)
    worker.cancel(job)
    return JSONResponse({"state": job.state})


def model(request: Request) -> Response:
    """Which model is asked."""
    asked = _worker(request).model
    return JSONResponse(
        {"model": asked.name, "adapter": asked.spec.adapter, "loaded": asked.is_loaded}
    )


def _seen(worker: ModelWorker, job: Job) -> tuple[object, ...]:
    return job.state, job.done, job.total, worker.ahead(job)


def _wait(request: Request) -> float:
    given = request.query_params.get("wait", "0")
    try:
        seconds = float(given)
    except ValueError as error:
        raise HTTPException(422, "wait is no number of seconds.") from error
    return min(max(seconds, 0.0), _LONGEST_WAIT) if seconds == seconds else 0.0  # noqa: PLR0124


def _job(request: Request) -> tuple[ModelWorker, Job]:
    worker = _worker(request)
    job = worker.get(request.path_params["job"])
    if job is None:
        raise HTTPException(404, "This question is not known any more. Ask again.")
    return worker, job


def _worker(request: Request) -> ModelWorker:
    worker = cast("ModelWorker | None", viewer_of(request).live)
    if worker is None:
        raise HTTPException(409, "No model can be asked: `vlmlens view` was started without one.")
    return worker


def _printable(name: str) -> str:
    return "".join(letter for letter in name if letter.isprintable()).strip(". ")


ROUTES: tuple[Route, ...] = (
    Route("/live/model", model, methods=["GET"]),
    Route("/live/pictures", upload, methods=["POST"]),
    Route("/live/pictures/{name}", picture, methods=["GET"]),
    Route("/live/jobs", ask, methods=["POST"]),
    Route("/live/jobs/{job}", look, methods=["GET"]),
    Route("/live/jobs/{job}", cancel, methods=["DELETE"]),
)
