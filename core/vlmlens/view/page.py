"""The frame around every page: title, navigation, styles and scripts of the app."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from vlmlens.report._markup import Markup, join, tag
from vlmlens.report._text import one_line
from vlmlens.view.addresses import of_analysis
from vlmlens.view.shown_run import names_of
from vlmlens.view.viewer import viewer_of

if TYPE_CHECKING:
    from starlette.requests import Request

    from vlmlens.view.shown_run import ShownRun

_ON_SOME = re.compile(r" \(on [\d,]+ of [\d,]+ samples\)$")
Group = tuple[str, Sequence[tuple[str, str]]]
"""Links under a heading: (address, name)."""


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
            the report's figures. `view.js` is part of every page.
        run: The run that the page is about; its pages are linked.
    """
    sheets = ("report.css", "view.css", "samples.css", "live.css")
    loaded = dict.fromkeys((*scripts, "view.js"))
    head = [
        tag("meta", charset="utf-8"),
        tag("meta", name_="viewport", content="width=device-width, initial-scale=1"),
        tag("meta", name_="color-scheme", content="light dark"),
        tag("title", f"{one_line(title)} - vlmlens"),
        tag("link", rel="icon", href="data:,"),
        *(tag("link", rel="stylesheet", href=f"/static/{name}") for name in sheets),
        *(tag("script", src=f"/static/{name}", defer=True) for name in loaded),
    ]
    heading = tag("header", tag("h1", one_line(title)), *(tag("p", line) for line in said))
    main = tag("main", heading, *content, id="main", tabindex="-1")
    body = [
        tag("a", "To the content", href="#main", class_="skip"),
        _bar(run),
        _navigation(request, run),
        main,
        tag("p", id="said", class_="unseen", role="status"),
    ]
    html = tag("html", tag("head", *head), tag("body", *body, class_="app"), lang="en")
    return join([Markup("<!doctype html>"), html])


def section(name: str, title: str, *content: str) -> Markup:
    """A part of a page under a heading; empty without content.

    Args:
        name: Its element id.
        title: The heading.
        content: Markup below it.
    """
    if not any(content):
        return Markup("")
    return tag("section", tag("h2", one_line(title)), *content, id=name)


def _bar(run: ShownRun | None) -> Markup:
    """What stands above a page on small screens: where one is, and what opens the navigation."""
    where = tag("span", one_line(run.name) if run else "", class_="where")
    button = {"type": "button", "class_": "menu", "aria_expanded": "false"}
    return tag("div", _brand(), where, tag("button", "Pages", **button, aria_controls="pages"),
               class_="topbar")  # fmt: skip


def _brand() -> Markup:
    return tag("a", "vlmlens", href="/", class_="brand")


def _navigation(request: Request, run: ShownRun | None) -> Markup:
    """Links to the pages of a run, and to what is about all runs."""
    here = request.url.path
    runs = viewer_of(request).runs
    names = dict(zip((each.number for each in runs), names_of(runs), strict=True))
    own = [] if run is None else _of_run(run, names.get(run.number, run.name))
    groups = [*own, *_of_all(request, run, names)]
    drawn = [_drawn(group, here) for group in groups if group[1]]
    return tag("nav", _brand(), *drawn, id="pages", aria_label="Pages")


def _of_run(run: ShownRun, called: str) -> list[Group]:
    own = [(run.address, "Overview"), (f"{run.address}/samples", "Samples")]
    kinds = {figure.kind for result in run.results.values() for figure in result.figures}
    if "features" in kinds:
        own.append((f"{run.address}/features", "Features"))
    made = [
        (of_analysis(run, name), short_title(name, result.title))
        for name, result in run.results.items()
    ]
    return [(called, own), ("Analyses", made)]


def short_title(name: str, title: str) -> str:
    """A title for a list: without the number of samples, with the label of the analysis.

    >>> short_title("probe:mlp", "What each layer encodes (on 300 of 3,000 samples)")
    'What each layer encodes (mlp)'
    """
    _, _, label = name.partition(":")
    short = _ON_SOME.sub("", title)
    return f"{short} ({label})" if label and label not in short else short


def _of_all(request: Request, run: ShownRun | None, names: Mapping[int, str]) -> list[Group]:
    viewer = viewer_of(request)
    several = len(viewer.runs) > 1
    beside = [("/beside", "Side by side")] if several else []
    others = [(each.address, names[each.number]) for each in viewer.runs if each is not run]
    live = [("/live", "Live")] if viewer.live is not None else []
    return [("Runs" if run is None else "Other runs", [*others, *beside]), ("Model", live)]


def _drawn(group: Group, here: str) -> Markup:
    heading, links = group
    items = [tag("li", _link(address, name, here)) for address, name in links]
    return join([tag("p", one_line(heading), class_="group"), tag("ul", *items)])


def _link(address: str, name: str, here: str) -> Markup:
    current = "page" if address == here else None
    return tag("a", one_line(name), href=address, aria_current=current)
