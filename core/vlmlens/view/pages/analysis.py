"""One analysis: its findings, figures and tables."""

from __future__ import annotations

from typing import TYPE_CHECKING

from starlette.exceptions import HTTPException
from starlette.responses import HTMLResponse

from vlmlens.report._figure import draw_figures
from vlmlens.report._markup import Markup, join, tag
from vlmlens.report._overview import verdicts
from vlmlens.report._pictures import Pictures
from vlmlens.report._sections import draw_finding, notes
from vlmlens.results import Finding, Result
from vlmlens.view.addresses import (
    figure_about,
    figure_id,
    finding_id,
    is_about,
    of_analysis,
    of_samples,
)
from vlmlens.view.commands import repeat_analysis
from vlmlens.view.page import page, section
from vlmlens.view.pages.tables import draw_sliced
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
    pictures = Pictures(run.samples)
    content = [
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


def _figures(run: ShownRun, result: Result, subject: str, pictures: Pictures) -> Markup:
    marked = figure_about(result, subject)
    about = () if marked is None else (marked,)
    return draw_figures(result.figures, None, "figure", pictures, about)


def _tables(run: ShownRun, name: str, result: Result) -> Markup:
    return join(draw_sliced(run, name, number, each) for number, each in enumerate(result.tables))
