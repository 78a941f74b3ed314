"""The sections of the page that are made from results."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from vlmlens._clean import clean
from vlmlens.report._browser import Address, behind
from vlmlens.report._figure import draw_figures
from vlmlens.report._markup import Markup, join, tag, text
from vlmlens.report._overview import chip
from vlmlens.report._pictures import Pictures
from vlmlens.report._table import draw_table
from vlmlens.report._text import one_line, show, slug
from vlmlens.report.files import file_names
from vlmlens.results import Cell, Finding, Result
from vlmlens.samples import Sample


def anchors(results: Sequence[Result]) -> list[str]:
    """An element id per result, each different."""
    return [f"analysis-{index}-{slug(item.analysis)}" for index, item in enumerate(results)]


def contents(sections: Sequence[tuple[str, str]]) -> Markup:
    """Links to all sections, given as (id, title); they stay in view."""
    made = [tag("a", one_line(title), href=f"#{name}") for name, title in sections]
    return tag("nav", *made, aria_label="Contents")


def analysis(
    result: Result,
    name: str,
    max_rows: int | None,
    pictures: Pictures,
    samples: Sequence[Sample] = (),
) -> Markup:
    """Figures, findings and tables of one result; findings first where the overview has none."""
    tables = zip(result.tables, file_names(result, result.tables, "parquet"), strict=True)
    files = file_names(result, result.figures, "svg") if max_rows is not None else None
    figures = draw_figures(result.figures, files, name, pictures)
    said = findings(result, samples)
    return join(
        [
            *((figures, said) if result.overview else (said, figures)),
            *(draw_table(table, file, max_rows) for table, file in tables),
        ]
    )


def findings(result: Result, samples: Sequence[Sample]) -> Markup:
    """A sentence per finding with its verdict and a link to its samples; its numbers are folded."""
    listed = [draw_finding(finding, samples) for finding in result.findings]
    return tag("ul", *listed, class_="findings") if listed else Markup("")


def draw_finding(
    finding: Finding,
    samples: Sequence[Sample],
    address: Address | None = None,
    beside: str = "",
    **look: str | None,
) -> Markup:
    """One finding as an item of a list.

    Args:
        finding: The finding.
        samples: Those of the run.
        address: What its samples are at; None: in the same page.
        beside: Markup behind the sentence.
        look: Attributes of the item.
    """
    parts = [text(finding.text), behind(finding, samples, address), beside]
    said = tag("p", join(filter(None, parts), " "))
    return tag("li", chip(finding.verdict), tag("div", said, _numbers(finding)), **look)


def notes(results: Sequence[Result], *, headings: bool = True) -> Markup:
    """How the numbers were made, and the options of each analysis, below its title."""
    parts = []
    for item in results:
        lines = [tag("p", clean(note)) for note in item.notes]
        options = [_pair(key, _option(value)) for key, value in item.options.items()]
        if lines or options:
            listed = tag("dl", *options, class_="inline") if options else ""
            heading = tag("h3", one_line(item.title)) if headings else ""
            parts.append(join([heading, *lines, listed]))
    return join(parts)


def facts_list(facts: Mapping[str, Cell | Mapping[str, Cell]]) -> Markup:
    """Facts as a list of terms, groups under a heading each; what is not known is left out."""
    alone = _pairs({k: v for k, v in facts.items() if not isinstance(v, Mapping)})
    parts = [tag("dl", *alone)] if alone else []
    for name, group in facts.items():
        if isinstance(group, Mapping) and (pairs := _pairs(group)):
            parts.append(tag("div", tag("h3", one_line(name)), tag("dl", *pairs)))
    return tag("div", *parts, class_="facts") if parts else Markup("")


def _numbers(finding: Finding) -> Markup:
    pairs = _pairs({key.replace("_", " "): value for key, value in finding.values.items()})
    if not pairs:
        return Markup("")
    return tag("details", tag("summary", "numbers"), tag("dl", *pairs, class_="inline"))


def _pairs(values: Mapping[str, Cell]) -> list[Markup]:
    shown = {key: show(value) for key, value in values.items()}
    return [_pair(key, value) for key, value in shown.items() if value]


def _option(value: object) -> str:
    """An option's value in words: never as Python writes it."""
    if isinstance(value, Mapping):
        return (
            ", ".join(f"{one_line(key)}: {_option(each)}" for key, each in value.items()) or "none"
        )
    if isinstance(value, list | tuple | set):
        return ", ".join(map(_option, value)) or "none"
    return "not set" if value is None else show(value)  # type: ignore[arg-type]


def _pair(key: str, value: str) -> Markup:
    return tag("div", tag("dt", one_line(key)), tag("dd", value))
