"""The samples as data for the page's script: the questions, and what each analysis says of them.

Analyses say it in tables with a column `sample` and one row per sample.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

from vlmlens.report._embed import Words, data_block
from vlmlens.report._markup import Markup, tag
from vlmlens.report._pictures import Pictures, to_show
from vlmlens.report._text import cut, one_line, plural, show
from vlmlens.results import Cell, Finding, Result, Table
from vlmlens.sample_table import SampleTable
from vlmlens.samples import Sample

MOST_SAMPLES = 3_000
_CHOICES = 12
_LONGEST_PROMPT, _LONGEST_VALUE = 300, 80
_KNOWN = ("sample", "task", "label")
_MOST_PARTS = 12

Address: TypeAlias = Callable[[Finding, Sequence[int]], str]
"""Where a finding's samples are shown, given their numbers; none: all those of its task."""


def draw_browser(
    samples: Sequence[Sample], results: Sequence[Result], pictures: Pictures
) -> Markup:
    """Controls, an empty list that the page's script fills, and the data."""
    search = tag("label", tag("span", "search"), tag("input", type="search", data_role="search"))
    controls = tag("div", search, tag("span", class_="facets"), class_="controls")
    more = tag("button", "Show more", type="button", class_="more")
    note = _note(len(samples))
    shown = samples[:MOST_SAMPLES]
    return tag(
        "div",
        controls,
        tag("p", tag("output", class_="count"), note, class_="muted"),
        tag("div", class_="samples"),
        more,
        data_block(_data(shown, results, pictures), "browser-data"),
        class_="live browser",
    )


def behind(finding: Finding, samples: Sequence[Sample], address: Address | None = None) -> Markup:
    """A link from a finding to the samples behind it; empty if they are not known.

    Args:
        finding: The finding.
        samples: Those of the run.
        address: Where they are shown; None: in the section of samples of the same page.
    """
    wanted, table = set(finding.samples), SampleTable.of(samples)
    chosen = [i for i, name in enumerate(table.ids) if name in wanted] if wanted else []
    of_task = table.tasks[finding.subject] if finding.subject and not wanted else 0
    count = len(chosen) if wanted else of_task
    if not count:
        return Markup("")
    among = [i for i in chosen if i < MOST_SAMPLES] if address is None else chosen
    said = plural(count, "sample")
    if address is not None:
        return tag("a", said, href=address(finding, among), class_="behind")
    link = {
        "href": "#samples",
        "class_": "behind",
        "data_task": None if wanted else finding.subject,
        "data_among": " ".join(map(str, among)) if wanted else None,
    }
    return tag("a", said, **link)


def _note(count: int) -> str:
    return f" The first {MOST_SAMPLES:,} of {count:,} are in this page." * (count > MOST_SAMPLES)


def _data(
    samples: Sequence[Sample], results: Sequence[Result], pictures: Pictures
) -> dict[str, Any]:
    words = Words()
    numbers = {sample.id: i for i, sample in enumerate(samples)}
    tables = [_said(table, result, numbers, words) for result, table in per_sample(results)]
    return {
        "samples": [_sample(sample, words, pictures) for sample in samples],
        "groups": groups(samples),
        "tables": [table for table in tables if table["rows"]],
        "words": words.listed(),
    }


def per_sample(results: Sequence[Result]) -> list[tuple[Result, Table]]:
    """The tables with at most one row per sample; tables with further keys are split by them."""
    found = [(result, table) for result in results for table in result.tables]
    parts = [(result, part) for result, table in found for part in _parts(table)]
    return [(result, part) for result, part in parts if _is_per_sample(part)]


def _parts(table: Table) -> list[Table]:
    keys = [name for name in table.about if name not in _KNOWN]
    if "sample" not in table.columns or not keys or _is_per_sample(table):
        return [table]
    rows: dict[str, list[tuple[Cell, ...]]] = {}
    for place, row in enumerate(table.rows()):
        about = ", ".join(str(table.columns[key][place]) for key in keys)
        rows.setdefault(about, []).append(row)
    if len(rows) > _MOST_PARTS:
        return []
    return [
        Table(table.name, f"{table.title}, {about}", dict(zip(table.columns, cells, strict=True)))
        for about, cells in ((about, zip(*part, strict=True)) for about, part in rows.items())
    ]


def _is_per_sample(table: Table) -> bool:
    ids = table.columns.get("sample", ())
    return len(ids) > 0 and len(set(ids)) == len(ids)


def groups(samples: Sequence[Sample]) -> list[int]:
    """A number for each sample, the same for all questions about the same pictures."""
    known: dict[tuple[object, ...], int] = {}
    keys = (
        tuple(image if isinstance(image, str) else id(image) for image in sample.images)
        or (sample.id, None)
        for sample in samples
    )
    return [known.setdefault(key, len(known)) for key in keys]


def _sample(sample: Sample, words: Words, pictures: Pictures) -> list[Any]:
    number = [pictures.number(sample.id, i) for i in to_show(sample)]
    return [
        words.number(one_line(sample.id)),
        words.number(cut(sample.prompt, _LONGEST_PROMPT)),
        words.number(one_line(sample.task or "")),
        words.number("" if sample.label is None else cut(one_line(sample.label), _LONGEST_VALUE)),
        [each for each in number if each is not None],
    ]


def _said(table: Table, result: Result, numbers: dict[str, int], words: Words) -> dict[str, Any]:
    names = [name for name in table.columns if name not in _KNOWN]
    rows: dict[int, list[int]] = {}
    for place, identity in enumerate(table.columns["sample"]):
        if (number := numbers.get(str(identity))) is not None:
            cells = (table.columns[name][place] for name in names)
            rows[number] = words.numbers(cut(show(cell), _LONGEST_VALUE) for cell in cells)
    return {
        "title": f"{one_line(result.title)}: {one_line(table.title)}",
        "columns": [one_line(name) for name in names],
        "chosen": [i for i, name in enumerate(names) if _is_choice(table, name)],
        "rows": rows,
    }


def _is_choice(table: Table, name: str) -> bool:
    """Whether a column can be a filter: it has few values, and they are not numbers."""
    values = set(table.columns[name])
    return 1 < len(values) <= _CHOICES and not any(type(value) is float for value in values)
