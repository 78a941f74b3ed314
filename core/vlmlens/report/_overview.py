"""The first screen of the page: what each analysis answers about each task, and what is notable."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TypeAlias

from vlmlens.report._browser import Address, behind
from vlmlens.report._charts import runs
from vlmlens.report._markup import Markup, join, tag, text
from vlmlens.report._text import finite, one_line, plural
from vlmlens.report._theme import verdict_look
from vlmlens.report.overview import overview_of
from vlmlens.results import Glance, Result, Verdict
from vlmlens.samples import Sample

_WIDE, _TALL, _EDGE = 64.0, 20.0, 2.0

Evidence: TypeAlias = Callable[[Glance], str | None]
"""Where what is behind a cell is shown; None: nowhere."""


def draw_overview(
    results: Sequence[Result],
    names: Sequence[str],
    samples: Sequence[Sample],
    *,
    evidence: Evidence = lambda _: None,
    address: Address | None = None,
) -> Markup:
    """The grid of tasks by questions, then a sentence for each notable finding.

    Empty where the analyses give neither.

    Args:
        results: Of the analyses, in order.
        names: What the questions link to: an address, or `#` and the element id of a section.
        samples: Those of the run.
        evidence: What the cells link to.
        address: What the findings' samples are at; None: in the same page.
    """
    overview = overview_of(results)
    links = {
        cell.question: name
        for item, name in zip(results, names, strict=True)
        for cell in item.overview
    }
    said = [
        tag("li", join([text(found.text), behind(found, samples, address)], " "))
        for found in overview.findings
    ]
    notable = tag("ul", *said, class_="notable", aria_label="Notable") if said else Markup("")
    grid = draw_grid(overview.overview, links, evidence) if overview.overview else Markup("")
    return join([grid, notable, verdicts(results)]) if grid or notable else Markup("")


def verdicts(results: Sequence[Result]) -> Markup:
    """What the verdicts on the page mean."""
    used = {found.verdict for item in results for found in item.findings}
    used |= {cell.verdict for item in results for cell in item.overview}
    shown = [verdict for verdict in Verdict if verdict in used and verdict is not Verdict.INFO]
    items = [tag("li", join([chip(each), text(each.meaning)], " ")) for each in shown]
    return tag("ul", *items, class_="verdicts", aria_label="Verdicts") if items else Markup("")


def chip(verdict: Verdict) -> Markup:
    """A verdict with its symbol."""
    symbol, look, _ = verdict_look(verdict)
    return tag("span", tag("i", symbol, aria_hidden="true"), verdict.value, class_=f"chip {look}")


def draw_grid(
    cells: Sequence[Glance], links: Mapping[str, str], evidence: Evidence = lambda _: None
) -> Markup:
    """Only the grid.

    Args:
        cells: Its cells.
        links: What the questions link to, in the order of the columns.
        evidence: What the cells link to.
    """
    known = {(cell.subject, cell.question): cell for cell in cells}
    subjects = dict.fromkeys(cell.subject for cell in cells)
    heads = [
        tag("th", tag("a", one_line(question), href=name), scope="col")
        for question, name in links.items()
    ]
    rows = [
        tag(
            "tr",
            tag("th", one_line(subject), scope="row"),
            *(_cell(known.get((subject, question)), evidence) for question in links),
        )
        for subject in subjects
    ]
    corner = tag("th", tag("span", "task", class_="unseen"), scope="col")
    head = tag("thead", tag("tr", corner, *heads))
    table = tag("table", tag("caption", "What each analysis answers"), head, tag("tbody", *rows))
    region = {"tabindex": "0", "role": "region", "aria_label": "What each analysis answers"}
    return tag("div", table, class_="scroll overview", **region)


def _cell(cell: Glance | None, evidence: Evidence) -> Markup:
    if cell is None:
        return tag("td")
    value = finite(cell.value)
    number = tag("b", f"{value:z.2f}") if value is not None else ""
    said = tag("span", one_line(cell.text)) if cell.text else ""
    beside = tag("small", one_line(cell.beside)) if cell.beside else ""
    lines = [[_mark(cell.verdict), number, said], [_curve(cell.curve), beside]]
    filled = [line for line in lines if any(line)]
    where = evidence(cell) if filled else None
    drawn = [tag("div" if where is None else "span", *line) for line in filled]
    return tag("td", *drawn if where is None else [tag("a", *drawn, href=where, class_="evidence")])


def _mark(verdict: Verdict) -> Markup:
    """A sign that differs in shape as well as in colour; its name is there for screen readers."""
    if verdict is Verdict.INFO:
        return Markup("")
    symbol, look, _ = verdict_look(verdict)
    sign = tag("i", symbol, aria_hidden="true", class_=f"mark-{look}", title=verdict.value)
    return join([sign, tag("span", verdict.value, class_="unseen")])


def _curve(values: Sequence[float | None]) -> Markup:
    """The number over the layers; from 0 to 1 where it stays in there, else over its own range."""
    numbers = [finite(value) for value in values]
    known = [number for number in numbers if number is not None]
    if len(known) < 2:
        return Markup("")
    low, high = min(0.0, *known), max(1.0, *known)
    step = (_WIDE - 2 * _EDGE) / (len(numbers) - 1)

    def place(i: int, number: float) -> str:
        y = _EDGE + (_TALL - 2 * _EDGE) * (1 - (number - low) / (high - low))
        return f"{_EDGE + i * step:.1f} {y:.1f}"

    lines = [
        "M" + "L".join(place(i, y) for i, y in run) + "h0" for run in runs(list(enumerate(numbers)))
    ]
    return tag(
        "svg",
        tag("path", class_="base", d=f"M0 {_TALL - 0.5}H{_WIDE:.0f}"),
        tag("path", class_="line", d="".join(lines)),
        viewBox=f"0 0 {_WIDE:.0f} {_TALL:.0f}",
        width=_WIDE,
        height=_TALL,
        role="img",
        aria_label=f"over {plural(len(numbers), 'layer')}: {known[0]:z.2f} to {known[-1]:z.2f}",
    )
