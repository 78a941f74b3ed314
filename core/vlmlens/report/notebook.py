"""How runs, results, findings, tables, figures and what is inside a model look in a notebook.

Importing this module registers the renderers at `vlmlens._display`. The markup brings its few
styles along, since a notebook has no style sheet of ours; all text from data is escaped.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import quote

from vlmlens._display import register
from vlmlens.passes.batch import Batch
from vlmlens.report._inside import sites_html, trace_html
from vlmlens.report._markup import Markup, tag, text
from vlmlens.report._prompt import batch_html, layout_html
from vlmlens.report._text import cut, one_line, plural, show
from vlmlens.report._theme import verdict_look
from vlmlens.report.figures import figure_svg
from vlmlens.results import Figure, Finding, Glance, Result, Table
from vlmlens.rows.layouts import TokenLayout
from vlmlens.runs.look import Look
from vlmlens.runs.run import Run
from vlmlens.sites.site_map import SiteMap

_CELL = 80
_ROWS = 10
_TABLES = 6
_FIGURES = 3


def run_html(run: Run) -> str:
    """A run: what it is, its overview or its findings, and a link to the report."""
    info, spec = run.info, run.spec
    facts = [
        " ".join(filter(None, (spec.adapter, spec.model))),
        "" if spec.data == str(run.path) else str(spec.data),
        plural(run.sample_count, "sample"),
        plural(len(info.get("columns", ())), "column"),
        str(info.get("state", "")),
    ]
    overview = run.overview
    findings = overview.findings
    if not overview.overview:
        findings = [found for result in run.results.values() for found in result.findings]
    return tag(
        "div",
        tag("p", tag("b", str(run.path)), ": ", one_line(", ".join(filter(None, facts)))),
        grid(overview.overview),
        _findings(findings),
        _link("Report: ", run.report_path),
    )


def result_html(result: Result) -> Markup:
    """A result: findings, warnings, the first figures, and tables that open."""
    more = len(result.figures) - _FIGURES
    rest = f"{plural(more, 'more figure')} in .figures" if more > 0 else ""
    return tag(
        "div",
        tag("h4", one_line(result.title)),
        _findings(result.findings),
        *(tag("p", "! ", text(warning)) for warning in result.warnings),
        *(_picture(figure) for figure in result.figures[:_FIGURES]),
        tag("p", rest) if rest else "",
        *(_folded(table) for table in result.tables[:_TABLES]),
    )


def look_html(look: Look) -> str:
    """A look: what was found, the first figures, and a link to the page."""
    return tag("div", result_html(look.result), _link("Page: ", look.page))


def finding_html(finding: Finding) -> str:
    """A finding: its verdict and its sentence."""
    return tag("div", _verdict(finding), " ", text(finding.text))


def table_html(table: Table) -> str:
    """The first rows of a table."""
    left = len(table) - _ROWS
    note = f"{plural(left, 'more row')}: .to_pandas() has all" if left > 0 else ""
    return tag("div", tag("b", one_line(table.title)), _rows(table), tag("p", note) if note else "")


def grid(cells: Sequence[Glance]) -> Markup:
    """A row per task, a column per question; empty where there are no answers."""
    if not cells:
        return Markup("")
    known = {(cell.subject, cell.question): cell for cell in cells}
    questions = list(dict.fromkeys(cell.question for cell in cells))
    rows = [
        tag(
            "tr", tag("th", one_line(subject)), *(_cell(known.get((subject, q))) for q in questions)
        )
        for subject in dict.fromkeys(cell.subject for cell in cells)
    ]
    head = tag("tr", tag("th"), *(tag("th", one_line(question)) for question in questions))
    return tag("table", tag("thead", head), tag("tbody", *rows))


def _link(label: str, page: Path) -> Markup:
    if not page.exists():
        return Markup("")
    link = tag("a", str(page), href=quote(page.as_posix()), target="_blank")
    return tag("p", label, link)


def _cell(cell: Glance | None) -> Markup:
    if cell is None:
        return tag("td", "-")
    value = "" if cell.value is None else f"{cell.value:.2f}"
    symbol, _, _ = verdict_look(cell.verdict)
    said = " ".join(filter(None, (symbol, cell.text, value)))
    beside = tag("small", f", {one_line(cell.beside)}") if cell.beside else ""
    return tag("td", one_line(said), beside, title=str(cell.verdict))


def _findings(findings: Sequence[Finding]) -> Markup:
    items = [tag("li", _verdict(found), " ", text(found.text)) for found in findings]
    return tag("ul", *items) if items else Markup("")


def _verdict(finding: Finding) -> Markup:
    symbol, _, _ = verdict_look(finding.verdict)
    return tag("b", f"{symbol} {finding.verdict.value}")


def _folded(table: Table) -> Markup:
    summary = tag("summary", f"{one_line(table.title)} ({plural(len(table), 'row')})")
    return tag("details", summary, _rows(table))


def _rows(table: Table) -> Markup:
    head = tag("tr", *(tag("th", one_line(name)) for name in table.columns))
    body = (
        tag("tr", *(tag("td", cut(show(cell), _CELL)) for cell in row))
        for row in table.rows()[:_ROWS]
    )
    return tag("table", tag("thead", head), tag("tbody", *body))


def _picture(figure: Figure) -> Markup:
    """The figure as an image: its ids cannot meet those of another figure on the page."""
    data = base64.b64encode(figure_svg(figure)).decode()
    title = one_line(figure.title)
    return tag("img", src=f"data:image/svg+xml;base64,{data}", alt=title, style="max-width:100%")


def _figure_svg(figure: Figure) -> str:
    return figure_svg(figure).decode()


register(Run, "html", run_html)
register(Look, "html", look_html)
register(Result, "html", result_html)
register(Finding, "html", finding_html)
register(Table, "html", table_html)
register(Figure, "svg", _figure_svg)
register(SiteMap, "html", sites_html)
register(Batch, "html", batch_html)
register(TokenLayout, "html", layout_html)
register("vlmlens.passes.tracing.Trace", "html", trace_html)
