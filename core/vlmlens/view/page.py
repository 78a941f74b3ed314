"""The frame around every page: title, navigation, styles and scripts of the app."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from vlmlens.report._markup import Markup, join, tag, text
from vlmlens.report._text import one_line
from vlmlens.view.viewer import viewer_of

if TYPE_CHECKING:
    from starlette.requests import Request

    from vlmlens.view.shown_run import ShownRun


def page(
    request: Request,
    title: str,
    *content: str,
    said: Sequence[str] = (),
    scripts: Sequence[str] = (),
    run: ShownRun | None = None,
) -> str:
    """A whole page.

    Args:
        request: What was asked, which tells the open runs and the current address.
        title: The heading.
        content: Markup below it; text is escaped.
        said: Paragraphs before the content.
        scripts: The page's own scripts, names of files in `static/`; `report.js` holds those of
            the report's figures.
        run: The run that the page is about; its pages are linked.
    """
    loaded = [tag("script", src=f"/static/{name}", defer=True) for name in scripts]
    sheets = ("report.css", "view.css", "samples.css", "live.css")
    head = [
        tag("meta", charset="utf-8"),
        tag("meta", name_="viewport", content="width=device-width, initial-scale=1"),
        tag("title", f"{one_line(title)} - vlmlens"),
        *(tag("link", rel="stylesheet", href=f"/static/{name}") for name in sheets),
        *loaded,
    ]
    main = tag(
        "main",
        tag("header", tag("h1", one_line(title))),
        *(tag("p", line) for line in said),
        *content,
        id="main",
    )
    body = [tag("a", "To the content", href="#main", class_="skip"), _links(request, run), main]
    html = tag("html", tag("head", *head), tag("body", *body), lang="en")
    return join([Markup("<!doctype html>"), html])


def _links(request: Request, run: ShownRun | None) -> Markup:
    """Links to the pages of a run, and to what is about all runs."""
    viewer, here = viewer_of(request), request.url.path
    listed: list[tuple[str, str]] = []
    if run is not None:
        listed += [(run.address, "Overview"), (f"{run.address}/samples", "Samples")]
        listed += [
            (f"{run.address}/analyses/{name}", result.title) for name, result in run.results.items()
        ]
    if len(viewer.runs) > 1:
        listed += [("/beside", "Side by side")]
        listed += [(each.address, each.name) for each in viewer.runs if each is not run]
    if viewer.live is not None:
        listed.append(("/live", "Live"))
    return tag("nav", *(_link(href, name, here) for href, name in listed), aria_label="Pages")


def _link(address: str, name: str, here: str) -> Markup:
    current = "page" if address == here else None
    return tag("a", text(one_line(name)), href=address, aria_current=current)
