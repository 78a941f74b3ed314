"""A run's overview: a row per task, what each analysis answers, and what is behind each cell."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

from starlette.responses import HTMLResponse

from vlmlens.report._markup import Markup, join, tag
from vlmlens.report._overview import draw_overview
from vlmlens.report._sections import facts_list
from vlmlens.runner.run_report import facts_of, lead_of
from vlmlens.view.addresses import of_analysis, of_evidence, of_samples
from vlmlens.view.commands import copied
from vlmlens.view.page import page, section
from vlmlens.view.viewer import run_of

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response

    from vlmlens.results import Glance
    from vlmlens.view.shown_run import ShownRun


def show(request: Request) -> Response:
    """The page."""
    run = run_of(request)
    content = [
        tag("p", " · ".join(lead_of(run.run)), class_="lead"),
        tag("section", draw_answers(run) or _nothing(run), id="overview", aria_label="Answers"),
        _warnings(run),
        section("run", "This run", facts_list(facts_of(run.run))),
        section("reproduce", "Repeat it", _reproduce(run)),
    ]
    return HTMLResponse(page(request, run.name, *content, scripts=("report.js",), run=run))


def draw_answers(run: ShownRun) -> Markup:
    """The grid and what is notable, linked to analyses and samples; empty if there is neither."""
    results = list(run.results.values())
    names = [of_analysis(run, name) for name in run.results]
    whose = {
        (cell.subject, cell.question): name
        for name, result in run.results.items()
        for cell in result.overview
    }

    def evidence(cell: Glance) -> str | None:
        return of_evidence(run, whose[cell.subject, cell.question], cell)

    address = of_samples(run)
    return draw_overview(results, names, run.samples, evidence=evidence, address=address)


def _nothing(run: ShownRun) -> Markup:
    """What is said where no analysis answers anything."""
    if run.results:
        links = [
            tag("li", tag("a", result.title, href=of_analysis(run, name)))
            for name, result in run.results.items()
        ]
        said = tag("p", "No analysis of this run answers for single tasks. There are:")
        return join([said, tag("ul", *links)])
    command = f"vlmlens analyze {shlex.quote(str(run.run.path))} --analysis probe"
    said = tag("p", "This run has no results yet. An analysis makes some:")
    return join([said, copied(command, "The command", "Copy")])


def _warnings(run: ShownRun) -> Markup:
    own = {line for result in run.results.values() for line in result.warnings}
    of_run = [tag("li", line) for line in run.run.info.get("warnings", ()) if line not in own]
    of_results = [
        tag("li", tag("a", result.title, href=of_analysis(run, name, "warnings")), ": ", line)
        for name, result in run.results.items()
        for line in dict.fromkeys(result.warnings)
    ]
    items = [*dict.fromkeys(of_run), *of_results]
    listed = tag("ul", *items) if items else Markup("")
    return section("warnings", "Read this before you trust it", listed)


def _reproduce(run: ShownRun) -> Markup:
    spec = run.run.path / "spec.yaml"
    path = str(run.run.path)
    again = shlex.join(["vlmlens", "run", "-c", str(spec), "--out", "ANOTHER_FOLDER"])
    opened = f"import vlmlens\n\nrun = vlmlens.open({path!r})\nrun.results, run.samples"
    parts = [copied(again, "The command", "Copy as command")] if run.run.has_model else []
    parts.append(copied(opened, "The run in Python", "Copy as Python"))
    return tag("div", *parts, class_="commands")
