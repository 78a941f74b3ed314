"""The sections of the page that are made from results."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from vlmlens.report._browser import behind
from vlmlens.report._figure import draw_figures
from vlmlens.report._markup import Markup, join, tag, text
from vlmlens.report._pictures import Pictures
from vlmlens.report._table import draw_table, table_element
from vlmlens.report._text import clean, one_line, show, slug
from vlmlens.report._theme import verdict_look
from vlmlens.report.files import file_names
from vlmlens.results import Cell, Finding, Result, Table, Verdict
from vlmlens.samples import Sample


def anchors(results: Sequence[Result]) -> list[str]:
    """An element id per result, each different."""
    return [f"analysis-{index}-{slug(item.analysis)}" for index, item in enumerate(results)]


def chip(verdict: Verdict) -> Markup:
    """A verdict with its symbol."""
    symbol, look, _ = verdict_look(verdict)
    return tag("span", tag("i", symbol, aria_hidden="true"), verdict.value, class_=f"chip {look}")


def contents(results: Sequence[Result], names: Sequence[str]) -> Markup:
    """Links to the analyses and to what follows them."""
    links = [("found", "Findings"), *zip(names, (item.title for item in results), strict=True)]
    made = [tag("a", one_line(title), href=f"#{name}") for name, title in links]
    return tag("nav", *made, aria_label="Contents") if results else Markup("")


def findings(
    results: Sequence[Result], names: Sequence[str], samples: Sequence[Sample] = ()
) -> Markup:
    """One sentence per finding, grouped by analysis, each with a link to its samples."""
    if not any(item.findings for item in results):
        return tag("p", "No analysis found anything to report.", class_="muted")
    groups = []
    for item, name in zip(results, names, strict=True):
        if item.findings:
            heading = tag("h3", tag("a", one_line(item.title), href=f"#{name}"))
            listed = [_finding(finding, samples) for finding in item.findings]
            groups.append(join([heading, tag("ul", *listed, class_="findings")]))
    return join(groups)


def verdicts(results: Sequence[Result]) -> Markup:
    """What the verdicts on the page mean."""
    used = {finding.verdict for item in results for finding in item.findings}
    shown = [verdict for verdict in Verdict if verdict in used and verdict is not Verdict.INFO]
    items = [tag("li", join([chip(each), text(each.meaning)], " ")) for each in shown]
    return tag("ul", *items, class_="verdicts", aria_label="Verdicts") if items else Markup("")


def glance(results: Sequence[Result]) -> Markup:
    """Verdicts by subject and analysis; empty where there is less than two of either."""
    by_subject: dict[str, dict[int, list[Finding]]] = {}
    for index, item in enumerate(results):
        for finding in item.findings:
            if finding.subject and finding.verdict is not Verdict.INFO:
                row = by_subject.setdefault(finding.subject, {})
                row.setdefault(index, []).append(finding)
    used = [i for i in range(len(results)) if any(i in row for row in by_subject.values())]
    if len(used) < 2 or len(by_subject) < 2:
        return Markup("")
    headers = [tag("th", one_line(results[i].title), scope="col") for i in used]
    rows = [_glance_row(subject, row, used) for subject, row in by_subject.items()]
    head = tag("thead", tag("tr", tag("th", "subject", scope="col"), *headers))
    table = tag("table", tag("caption", "Verdicts at a glance"), head, tag("tbody", *rows))
    region = {"tabindex": "0", "role": "region", "aria_label": "Verdicts at a glance"}
    return join([tag("h3", "At a glance"), tag("div", table, class_="scroll glance", **region)])


def analysis(result: Result, name: str, max_rows: int | None, pictures: Pictures) -> Markup:
    """Figures and tables of one result."""
    tables = zip(result.tables, file_names(result, result.tables, "parquet"), strict=True)
    files = file_names(result, result.figures, "svg") if max_rows is not None else None
    parts = [
        tag("h2", one_line(result.title)),
        draw_figures(result.figures, files, name, pictures),
        *(draw_table(table, file, max_rows) for table, file in tables),
        _values(result.findings),
    ]
    return tag("section", *parts, id=name)


def notes(results: Sequence[Result]) -> Markup:
    """How the numbers were made, and the options of each analysis."""
    parts = []
    for item in results:
        lines = [tag("p", clean(note)) for note in item.notes]
        options = [_pair(key, _option(value)) for key, value in item.options.items()]
        if lines or options:
            listed = tag("dl", *options, class_="inline") if options else ""
            parts.append(join([tag("h3", one_line(item.title)), *lines, listed]))
    return join(parts)


def facts_list(facts: Mapping[str, Cell | Mapping[str, Cell]]) -> Markup:
    """Facts as a list of terms; groups under a heading each."""
    alone = [_pair(k, show(v)) for k, v in facts.items() if not isinstance(v, Mapping)]
    parts = [tag("dl", *alone)] if alone else []
    for name, group in facts.items():
        if isinstance(group, Mapping):
            pairs = [_pair(key, show(value)) for key, value in group.items()]
            parts.append(tag("div", tag("h3", one_line(name)), tag("dl", *pairs)))
    return tag("div", *parts, class_="facts") if parts else Markup("")


def _finding(finding: Finding, samples: Sequence[Sample]) -> Markup:
    said = tag("p", join([text(finding.text), behind(finding, samples)], " "))
    return tag("li", chip(finding.verdict), said)


def _glance_row(subject: str, row: Mapping[int, Sequence[Finding]], used: Sequence[int]) -> Markup:
    cells = [tag("td", *(_short(f) for f in row[i])) if i in row else tag("td", "-") for i in used]
    return tag("tr", tag("th", one_line(subject), scope="row"), *cells)


def _short(finding: Finding) -> Markup:
    """A verdict with the part of the model that it holds for."""
    scope = tag("small", f" {one_line(finding.scope)}") if finding.scope else ""
    return tag("div", chip(finding.verdict), scope)


def _values(found: Sequence[Finding]) -> Markup:
    """The numbers behind the findings as one table."""
    keys = list(dict.fromkeys(key for finding in found for key in finding.values))
    if not keys:
        return Markup("")
    columns: dict[str, list[Cell]] = {"subject": [], "verdict": []}
    columns.update({key: [] for key in keys if key not in columns})
    for finding in found:
        row = {**finding.values, "subject": finding.subject, "verdict": finding.verdict.value}
        for key, column in columns.items():
            column.append(row.get(key))
    title = "Numbers behind the findings"
    table = table_element(Table("values", title, columns), len(found))
    region = {"tabindex": "0", "role": "region", "aria_label": title}
    inner = tag("div", table, class_="scroll", **region)
    return tag("details", tag("summary", title), inner, class_="table")


def _option(value: object) -> str:
    return show(value) if isinstance(value, str | int | float | bool | None) else one_line(value)


def _pair(key: str, value: str) -> Markup:
    return tag("div", tag("dt", one_line(key)), tag("dd", value))
