"""The live page: a picture with patches to cover, a question, edits, answers side by side."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from starlette.exceptions import HTTPException
from starlette.responses import HTMLResponse

from vlmlens.report._markup import Markup, tag
from vlmlens.report._text import one_line
from vlmlens.view.commands import copied
from vlmlens.view.page import page
from vlmlens.view.queries import whole_number
from vlmlens.view.viewer import viewer_of

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response

    from vlmlens.view.shown_run import ShownRun
    from vlmlens.view.viewer import Viewer

_NO_MODEL = "No model is open: the run has none that may be loaded here."
_NO_MODEL_HINT = "Start again with --model (and --adapter), or without --no-live."
_ROWS = ("last", "question", "text", "all")
_READ = ("image", "question", "text")
_UPLOAD = re.compile(r"[A-Za-z0-9_-]{1,64}")
_VIEWS = {
    "lens": "Where the answer forms",
    "attention": "What it attends to",
    "occlusion": "What it rests on",
}


@dataclass(frozen=True)
class _Start:
    """What the page shows first.

    Args:
        text: The question.
        choices: The answers to choose from.
        picture: The picture's address; empty without one.
        data: What the page's script sends as the picture: attributes by name.
        name: What the picture is called.
        run: The run whose sample it is.
    """

    text: str = ""
    choices: Sequence[str] = ()
    picture: str = ""
    data: tuple[tuple[str, str], ...] = ()
    name: str = ""
    run: ShownRun | None = None


def show(request: Request) -> Response:
    """The page. `?run=0&sample=3` starts with a sample, `?upload=NAME` with an uploaded picture."""
    viewer = viewer_of(request)
    if viewer.live is None:
        return HTMLResponse(page(request, "Ask the model", said=[_NO_MODEL, _NO_MODEL_HINT]), 404)
    start = _start(request, viewer)
    asked = tag(
        "div",
        _picture(start),
        tag("div", _form(start), _changes(), class_="asked"),
        class_="live-ask",
        data_live=True,
        **{f"data_{name}": value for name, value in start.data},
    )
    scripts = ("report.js", "live.js")
    content = (asked, _answers(), _views(), _commands())
    return HTMLResponse(page(request, "Ask the model", *content, scripts=scripts, run=start.run))


def _start(request: Request, viewer: Viewer) -> _Start:
    given = request.query_params
    text, choices = given.get("text"), given.get("choices")
    wanted = choices.split(",") if choices else []
    if upload := given.get("upload"):
        if not _UPLOAD.fullmatch(upload):
            raise HTTPException(422, f"{one_line(upload)[:40]!r} is no name of an upload.")
        known, data = f"/live/pictures/{upload}", (("upload", upload),)
        return _Start(text or "", wanted, known, data, "uploaded picture")
    if not viewer.runs:
        return _Start(text or "", wanted)
    run, number = (whole_number(request, name) or 0 for name in ("run", "sample"))
    if run >= len(viewer.runs) or number >= len(viewer.runs[run].samples):
        raise HTTPException(404, f"There is no sample {number} in run {run}.")
    shown = viewer.runs[run]
    sample = shown.samples[number]
    picture = f"{shown.address}/samples/{number}/pictures/0" if sample.images else ""
    return _Start(
        sample.prompt if text is None else text,
        wanted or sample.choices,
        picture,
        (("run", str(run)), ("sample", str(number))),
        one_line(sample.id),
        shown,
    )


def _picture(start: _Start) -> Markup:
    """The picture below its patches, which are buttons; and where another one comes from."""
    shown = tag(
        "img",
        src=start.picture or None,
        alt=start.name,
        hidden=not start.picture,
        data_picture=True,
    )
    patches = {"role": "group", "aria_label": "Patches: press one to cover it"}
    choose = tag("input", type="file", accept="image/*", data_role="file")
    return tag(
        "div",
        tag(
            "div", shown, tag("div", class_="cover-grid", **patches), class_="stage", data_drop=True
        ),
        tag("p", "Press or drag over patches to cover them.", class_="muted"),
        tag(
            "div",
            tag("button", "Uncover all", type="button", data_role="uncover", disabled=True),
            tag("label", tag("span", "Another picture"), choose),
            class_="controls",
        ),
        class_="pictured",
    )


def _form(start: _Start) -> Markup:
    question = tag("textarea", Markup("\n"), start.text, rows=2, data_role="text", required=True)
    between = "\n" if any("," in choice for choice in start.choices) else ", "
    choices = tag(
        "textarea", Markup("\n"), between.join(start.choices), rows=1, data_role="choices",
        placeholder="none: the model writes",
    )  # fmt: skip
    return tag(
        "form",
        tag("label", tag("span", "Question"), question),
        tag("label", tag("span", "Choices, with commas or one a line"), choices),
        tag(
            "div",
            tag("button", "Ask", type="submit", class_="first"),
            tag("button", "Cancel", type="button", data_role="cancel", hidden=True),
            tag("output", "", data_role="state", role="status"),
            class_="controls",
        ),
    )


def _changes() -> Markup:
    """What is changed inside the model: steering, cut edges, any edit."""
    strength = tag(
        "input", type="range", min="-10", max="10", step="0.5", value="4", data_role="strength"
    )
    steer = tag(
        "fieldset",
        tag("legend", "Steer along a direction or feature"),
        tag("label", tag("span", "direction"), tag("select", data_role="direction")),
        tag(
            "label", tag("span", "strength"), strength, tag("output", "4", data_role="strength-is")
        ),
        tag("button", "Add", type="button", data_role="steer"),
        data_role="steering",
        hidden=True,
    )
    cut = tag(
        "fieldset",
        tag("legend", "Cut attention"),
        tag("label", tag("span", "in blocks"), _text("blocks", "*")),
        tag("label", tag("span", "rows"), _choose("rows", _ROWS)),
        tag("label", tag("span", "no longer read"), _choose("read", _READ)),
        tag("button", "Add", type="button", data_role="cut"),
    )
    free = tag(
        "fieldset",
        tag("legend", "Any edit"),
        _text("edit", "", placeholder="llm.block.3/image = zero", aria_label="Edit"),
        tag("button", "Add", type="button", data_role="add"),
    )
    listed = tag("ul", class_="edits", data_role="edits", aria_label="Edits")
    return tag(
        "details", tag("summary", "Change the model"), steer, cut, free, listed, class_="changes"
    )


def _text(role: str, value: str, **attributes: str) -> Markup:
    return tag("input", type="text", value=value, data_role=role, spellcheck="false", **attributes)


def _choose(role: str, values: Sequence[str]) -> Markup:
    return tag("select", *(tag("option", value) for value in values), data_role=role)


def _answers() -> Markup:
    columns = [
        tag("div", tag("h3", title), tag("div", data_role=role), class_="answer")
        for title, role in (("As it is", "unedited"), ("Changed", "edited"))
    ]
    difference = tag("p", class_="difference", role="status", data_role="difference")
    heading = tag("h2", "Answer")
    found = tag("div", *columns, class_="answers")
    return tag("section", heading, difference, found, id="answer", hidden=True)


def _views() -> Markup:
    buttons = [
        tag("button", title, type="button", data_view=kind, aria_pressed="false")
        for kind, title in _VIEWS.items()
    ]
    return tag(
        "section",
        tag("h2", "Look closer"),
        tag("div", *buttons, class_="controls"),
        tag("output", "", data_role="view-state", role="status"),
        tag("div", data_role="view"),
        id="views",
        hidden=True,
    )


def _commands() -> Markup:
    parts = [
        tag("div", copied("", title, f"Copy as {title}"), data_command=kind)
        for kind, title in (("shell", "command"), ("python", "Python"))
    ]
    return tag("section", tag("h2", "The same elsewhere"), *parts, id="commands", hidden=True)
