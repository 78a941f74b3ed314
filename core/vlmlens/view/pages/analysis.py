"""One analysis: its findings, figures and tables."""

from __future__ import annotations

from typing import TYPE_CHECKING

from starlette.exceptions import HTTPException
from starlette.responses import HTMLResponse

from vlmlens.report._figure import draw_figures
from vlmlens.report._markup import Markup, join, tag
from vlmlens.report._overview import verdicts
from vlmlens.report._sections import draw_finding, notes
from vlmlens.report._text import one_line
from vlmlens.results import Finding, Result
from vlmlens.view.addresses import (
    figure_about,
    figure_id,
    figures_here,
    finding_id,
    is_about,
    of_analysis,
    of_samples,
)
from vlmlens.view.commands import repeat_analysis
from vlmlens.view.page import page, section
from vlmlens.view.pages.features import sets_of_features
from vlmlens.view.pages.tables import draw_sliced, slice_of, to_samples
from vlmlens.view.pictures import LinkedPictures
from vlmlens.view.viewer import run_of

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response

    from vlmlens.view.shown_run import ShownRun


def show(request: Request) -> Response:
    """The page; `subject` in the query marks what is about that task or attribute."""
    run, name = run_of(request), request.path_params["name"]
    result = run.results.get(name)
    if result is None:
        known = ", ".join(run.results) or "none"
        raise HTTPException(404, f"The run has no result of {name!r}. There are: {known}.")
    subject = request.query_params.get("subject", "")
    pictures = LinkedPictures(run)
    content = [
        _contents(result),
        _marked(run, name, subject),
        section("warnings", "Read this before you trust it", _warnings(result)),
        section("findings", "Findings", _findings(run, result, subject)),
        section("figures", "Figures", _figures(run, result, subject, pictures)),
        section("tables", "Tables", _tables(run, name, result)),
        section("method", "Method", notes([result], headings=False)),
        section("repeat", "Repeat it", repeat_analysis(run, result)),
        pictures.block(),
    ]
    return HTMLResponse(page(request, result.title, *content, scripts=("report.js",), run=run))


def _contents(result: Result) -> Markup:
    """Links to the parts of a long page, with how much there is."""
    counts = [
        ("findings", "Findings", len(result.findings)),
        ("figures", "Figures", len(result.figures)),
        ("tables", "Tables", len(result.tables)),
    ]
    parts = [(part, f"{title} ({count:,})") for part, title, count in counts if count]
    parts += [("method", "Method")] * bool(result.notes or result.options)
    parts.append(("repeat", "Repeat it"))
    items = [tag("li", tag("a", title, href=f"#{part}")) for part, title in parts]
    return tag("ul", *items, class_="sets", aria_label="On this page")


def _marked(run: ShownRun, name: str, subject: str) -> Markup:
    """What is marked, and the way to the page without marks."""
    if not subject:
        return Markup("")
    said = ["What is about ", tag("b", subject), " is marked. "]
    link = tag("a", "Show all alike", href=of_analysis(run, name))
    return tag("p", *said, link, class_="muted", role="note")


def _warnings(result: Result) -> Markup:
    items = [tag("li", line) for line in dict.fromkeys(result.warnings)]
    return tag("ul", *items) if items else Markup("")


def _findings(run: ShownRun, result: Result, subject: str) -> Markup:
    address = of_samples(run)
    listed = [
        draw_finding(
            finding, run.samples, address, _to_figure(result, finding),
            id=finding_id(number),
            class_="about" if is_about(finding, subject) else None,
        )
        for number, finding in enumerate(result.findings)
    ]  # fmt: skip
    return join([tag("ul", *listed, class_="findings"), verdicts([result])] if listed else [])


def _to_figure(result: Result, finding: Finding) -> Markup:
    figure = figure_about(result, finding.subject)
    if figure is None:
        return Markup("")
    return tag("a", "figure", href=f"#{figure_id(figure)}", class_="behind")


def _figures(run: ShownRun, result: Result, subject: str, pictures: LinkedPictures) -> Markup:
    """The figures; features have a page of their own."""
    marked = figure_about(result, subject)
    about = () if marked is None else (marked,)
    drawn = draw_figures(figures_here(result), None, "figure", pictures, about)
    links = [
        tag("li", tag("a", one_line(figure.title), href=f"{run.address}/features?of={of}"))
        for of, (name, figure) in enumerate(sets_of_features(run))
        if name == result.analysis
    ]
    return join([tag("ul", *links, class_="sets") if links else "", drawn])


def _tables(run: ShownRun, name: str, result: Result) -> Markup:
    address = f"{of_analysis(run, name)}/tables"
    return join(
        draw_sliced(table, f"{address}/{number}", number, to_samples(run, table))
        for number, table in enumerate(result.tables)
    )


def rows(request: Request) -> Response:
    """A slice of a table as JSON."""
    run, number = run_of(request), int(request.path_params["table"])
    result = run.results.get(request.path_params["name"])
    if result is None or number >= len(result.tables):
        raise HTTPException(404, "There is no such table.")
    table = result.tables[number]
    return slice_of(request, table, to_samples(run, table))
