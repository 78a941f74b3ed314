"""What the live page's script asks, as JSON.

    GET    /live                       the page
    POST   /live/pictures              body: an image file -> {"upload", "width", "height"}
    GET    /live/pictures/NAME         the picture as it was decoded, PNG
    POST   /live/jobs                  {"kind", "question": {...}} -> 202 {"job"}
    GET    /live/jobs/ID?wait=SECONDS  {"state", "ahead", "done", "total", "result" | "error"}
    DELETE /live/jobs/ID               {"state"}: the job leaves the queue, or ends after its pass

A question is `LiveQuestion` as an object: {"text", "sample": [run, number] | "upload", "choices",
"covers": [[left, top, right, bottom], ...], "edits": [...]}. The state is "waiting" (with `ahead`
jobs before it), "loading" (the model), "running", "done", "failed" or "cancelled". Kinds and their
results:

    answer     {"unedited": ANSWER, "edited": ANSWER | null, "grid": [rows, columns],
                "commands": {"shell", "python"}}; edited where there are covers or edits.
               ANSWER: {"text", "choices": [{"text", "probability"}]}, the most probable first
    lens, attention, occlusion
               {"html": figures drawn by the report's components, "said": [sentences],
                "commands": {"shell", "python"}}; each of the question with its covers and edits
    directions {"directions": [{"name", "site", "edit"}]}: what can be steered: directions and SAE
               features that the open runs hold, with an edit in which {strength} is a number
"""

from __future__ import annotations

from starlette.routing import Route

from vlmlens.view.live import page

ROUTES: tuple[Route, ...] = (Route("/live", page.show),)
