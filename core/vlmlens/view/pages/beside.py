"""Runs side by side: what each answers, what they answer differently, and tests of differences."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import replace
from threading import Lock
from typing import TYPE_CHECKING, cast

from starlette.exceptions import HTTPException
from starlette.responses import HTMLResponse

from vlmlens.comparison import compare_runs
from vlmlens.comparison._sides import facts_of
from vlmlens.report._figure import draw_figures
from vlmlens.report._markup import Markup, join, tag
from vlmlens.report._overview import draw_grid, verdicts
from vlmlens.report._sections import draw_finding, notes
from vlmlens.report._text import one_line
from vlmlens.results import Glance, Result
from vlmlens.view.addresses import of_analysis, of_evidence
from vlmlens.view.commands import copied
from vlmlens.view.page import page, section
from vlmlens.view.pages.answers import Differing, differing
from vlmlens.view.pages.tables import draw_sliced, slice_of
from vlmlens.view.shown_run import names_of
from vlmlens.view.viewer import viewer_of

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response

    from vlmlens.view.shown_run import ShownRun

_ANSWERS = 1000
"""Numbers of tables from here on are of answers that differ; smaller ones are of the tests."""
_KEPT = 8
"""Comparisons that are kept."""


class Comparisons:
    """Comparisons that were asked for, each made once; the last few are kept."""

    def __init__(self) -> None:
        self._made: dict[tuple[str, ...], tuple[Sequence[object], Result]] = {}
        self._lock = Lock()

    def of(self, runs: Sequence[ShownRun]) -> Result:
        """The comparison of runs; it is made again if their results have changed.

        Raises:
            RunError: They cannot be compared.
        """
        places = tuple(str(run.run.path) for run in runs)
        with self._lock:
            read = [run.results for run in runs]
            known = self._made.get(places)
            if known is None or any(a is not b for a, b in zip(known[0], read, strict=True)):
                trust = all(run.run.trust for run in runs)
                made = compare_runs(places, registry=runs[0].run.registry, trust=trust)
                self._made.pop(places, None)
                known = self._made[places] = (read, made)
                for oldest in list(self._made)[:-_KEPT]:
                    del self._made[oldest]
            return known[1]


def show(request: Request) -> Response:
    """The page. The query: `runs` (their numbers, `0,2`; default: all), `tests` (1: with tests)."""
    runs = _chosen(request)
    if len(runs) < 2:
        command = shlex.join(["vlmlens", "view", *(str(run.run.path) for run in runs), "ANOTHER"])
        said = ["Only one run is open. Name the others, too:"]
        content = [copied(command, "The command", "Copy as command")]
        return HTMLResponse(page(request, "Side by side", *content, said=said))
    with_tests = request.query_params.get("tests") == "1"
    content = [
        _choice(request, runs),
        section("overview", "What each run answers", _grid(runs)),
        section("answers", "What they answer differently", _answers(runs)),
        section("tests", "What differs, with tests", _tests(request, runs, shown=with_tests)),
        section("runs", "The runs", _facts(runs)),
        section("repeat", "Repeat it", _commands(runs)),
    ]
    return HTMLResponse(page(request, "Side by side", *content, scripts=("report.js",)))


def rows(request: Request) -> Response:
    """A slice of one of the page's tables as JSON."""
    runs, number = _chosen(request), int(request.path_params["table"])
    if number >= _ANSWERS:
        found = _differing(runs)
        if number - _ANSWERS < len(found):
            one = found[number - _ANSWERS]
            return slice_of(request, one.table, one.address)
    elif len(runs) > 1:
        tables = _comparisons(request).of(runs).tables
        if number < len(tables):
            return slice_of(request, tables[number], _nowhere)
    raise HTTPException(404, "There is no such table.")


def _chosen(request: Request) -> list[ShownRun]:
    """The runs that the query names.

    Raises:
        HTTPException: 422: it names others.
    """
    runs, given = viewer_of(request).runs, request.query_params.get("runs", "")
    if not given:
        return list(runs)
    numbers = given.split(",")
    known = {str(number) for number in range(len(runs))}
    if not set(numbers) <= known or len(set(numbers)) < len(numbers):
        raise HTTPException(
            422, f"runs = {given[:80]!r}: expected different numbers from 0 to {len(runs) - 1}."
        )
    return [runs[int(number)] for number in numbers]


def _address(runs: Sequence[ShownRun], part: str = "") -> str:
    return f"/beside{part}?runs={','.join(str(run.number) for run in runs)}"


def _choice(request: Request, runs: Sequence[ShownRun]) -> Markup:
    """Links to the first run beside each other one, if there are more than two."""
    known = viewer_of(request).runs
    if len(known) < 3:
        return Markup("")
    sets = [list(known), *([known[0], other] for other in known[1:])]
    links = [
        tag("li", tag("a", "All" if each == list(known) else " and ".join(names_of(each)),
                      href=_address(each), aria_current="true" if each == list(runs) else None))
        for each in sets
    ]  # fmt: skip
    return tag("ul", *links, class_="sets", aria_label="Which runs")


def _grid(runs: Sequence[ShownRun]) -> Markup:
    """The runs' overviews in one: question by question, the runs in turns."""
    found: dict[str, list[tuple[ShownRun, str, str, Glance]]] = {}
    for run, called in zip(runs, names_of(runs), strict=True):
        for name, result in run.results.items():
            for cell in result.overview:
                found.setdefault(cell.question, []).append((run, called, name, cell))
    links, cells, where = {}, [], {}
    for question, of_runs in found.items():
        for run, called, name, cell in of_runs:
            made = replace(cell, question=f"{question} ({called})")
            cells.append(made)
            links[made.question] = of_analysis(run, name)
            where[made.subject, made.question] = of_evidence(run, name, cell)
    if not cells:
        return tag("p", "No analysis of these runs answers for single tasks.", class_="muted")
    grid = draw_grid(cells, links, lambda cell: where[cell.subject, cell.question])
    legend = verdicts([result for run in runs for result in run.results.values()])
    return tag("div", grid, legend, class_="sides")


def _answers(runs: Sequence[ShownRun]) -> Markup:
    found = _differing(runs)
    if not found:
        said = "No analysis of two of these runs has answers to the same samples."
        return tag("p", said, class_="muted")
    return join(_answers_of(runs, number, one) for number, one in enumerate(found, _ANSWERS))


def _answers_of(runs: Sequence[ShownRun], number: int, one: Differing) -> Markup:
    said = tag("p", one.said)
    if not len(one.table):
        return said
    address = _address(runs, f"/tables/{number}")
    return join([said, draw_sliced(one.table, address, number, one.address)])


def _differing(runs: Sequence[ShownRun]) -> list[Differing]:
    names = names_of(runs)
    return [
        each
        for other, name in zip(runs[1:], names[1:], strict=True)
        for each in differing((runs[0], names[0]), (other, name))
    ]


def _tests(request: Request, runs: Sequence[ShownRun], *, shown: bool) -> Markup:
    if not shown:
        offer = (
            f"All numbers that the runs share are tested against {names_of(runs)[0]}, with Holm's "
            "correction. This can take some seconds."
        )
        told = {"data_busy": "Testing. The page comes when it is done."}
        link = tag("a", "Test the differences", href=f"{_address(runs)}&tests=1#tests",
                   class_="more", **told)  # fmt: skip
        return join([tag("p", offer), tag("p", link)])
    result = _comparisons(request).of(runs)
    warned = [tag("li", line) for line in result.warnings]
    tables = [
        draw_sliced(table, _address(runs, f"/tables/{number}"), number, _nowhere)
        for number, table in enumerate(result.tables)
        if table.name not in ("compare-answers", "compare-runs") and len(table)
    ]
    said = [draw_finding(finding, ()) for finding in result.findings]
    return join(
        [
            tag("ul", *warned, class_="warned") if warned else "",
            tag("ul", *said, class_="findings") if said else tag("p", "Nothing was tested."),
            draw_figures(result.figures, None, "compared"),
            *tables,
            tag("details", tag("summary", "How it was tested"), notes([result], headings=False)),
        ]
    )


def _comparisons(request: Request) -> Comparisons:
    return cast("Comparisons", request.app.state.comparisons)


def _facts(runs: Sequence[ShownRun]) -> Markup:
    """What the runs are: a row per fact, those that differ first."""
    known = [facts_of(run.run) for run in runs]
    facts = dict.fromkeys(name for each in known for name in each)
    values = {name: [each.get(name, "") for each in known] for name in facts}
    order = sorted(facts, key=lambda name: len(set(values[name])) == 1)
    heads = [
        tag("th", tag("a", one_line(name), href=run.address), scope="col")
        for run, name in zip(runs, names_of(runs), strict=True)
    ]
    body = [_fact(name, values[name]) for name in order]
    caption = tag("caption", "The runs")
    corner = tag("th", tag("span", "fact", class_="unseen"), scope="col")
    table = tag("table", caption, tag("thead", tag("tr", corner, *heads)), tag("tbody", *body))
    return tag("div", table, class_="scroll plain", tabindex="0", role="region",
               aria_label="The runs")  # fmt: skip


def _fact(name: str, values: Sequence[str]) -> Markup:
    same = len(set(values)) == 1
    cells = [tag("td", one_line(value)) for value in values]
    return tag(
        "tr", tag("th", one_line(name), scope="row"), *cells, class_="muted" if same else None
    )


def _commands(runs: Sequence[ShownRun]) -> Markup:
    paths = [str(run.run.path) for run in runs]
    python = f"import vlmlens\n\nresult = vlmlens.compare({', '.join(map(repr, paths))})"
    return tag(
        "div",
        copied(shlex.join(["vlmlens", "compare", *paths]), "The command", "Copy as command"),
        copied(python, "The same in Python", "Copy as Python"),
        class_="commands",
    )


def _nowhere(row: int, name: str) -> None:
    return None
