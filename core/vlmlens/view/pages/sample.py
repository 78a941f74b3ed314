"""One sample: its pictures, what each analysis says of it, its lens table and maps."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
from starlette.responses import HTMLResponse

from vlmlens._clean import clean
from vlmlens.errors import VlmlensError
from vlmlens.regions import ATTRIBUTE as REGIONS
from vlmlens.report._figure import draw_figures
from vlmlens.report._markup import Markup, join, tag, text
from vlmlens.report._table import draw_table
from vlmlens.report._text import cut, one_line, plural
from vlmlens.report._text import show as shown_cell
from vlmlens.results import Figure, Result, Table
from vlmlens.runs.generated_texts import GeneratedTexts
from vlmlens.view.page import page
from vlmlens.view.pages.features import sets_of_features
from vlmlens.view.pages.picture import sample_of
from vlmlens.view.pages.pictured import draw_pictures
from vlmlens.view.pages.samples import asked_of
from vlmlens.view.pages.tables import narrowed
from vlmlens.view.pictures import LinkedPictures
from vlmlens.view.sample_filter import selection
from vlmlens.view.viewer import viewer_of

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response

    from vlmlens.samples import Sample
    from vlmlens.view.sample_columns import SampleColumn
    from vlmlens.view.shown_run import ShownRun

_MOST_ROWS, _MOST_FEATURES = 60, 40
_LONGEST_PROMPT, _LONGEST_VALUE = 20_000, 2_000


def show(request: Request) -> Response:
    """The page."""
    run, sample = sample_of(request)
    number = int(request.path_params["number"])
    figures, pictures = _figures(run, sample)
    top = tag("div", draw_pictures(run, number, sample), _facts(run, number, sample), class_="top")
    parts = [
        _steps(request, run, number),
        top,
        _section("Figures of this sample", figures),
        _section("What the analyses say", *_said(run, number)),
        _section("Features that fire", *_features(run, sample)),
        _section("Stored for this sample", _stored(run)),
        pictures.block(),
    ]
    body = tag("div", *parts, class_="one-sample")
    scripts = ("report.js", "samples.js")
    return HTMLResponse(page(request, cut(str(sample.id), 200), body, scripts=scripts, run=run))


def _section(title: str, *content: str) -> Markup:
    return tag("section", tag("h2", title), *content) if any(content) else Markup("")


def _steps(request: Request, run: ShownRun, number: int) -> Markup:
    """The sample before and the one after it among those of the filter; the list; the live page."""
    asked = asked_of(request, run)
    query = asked.query()
    found = selection(asked, run)
    places = np.flatnonzero(found == number)
    behind = f"?{query}" if query else ""
    name = "The list" if query else "All samples"
    links = [tag("a", name, href=f"{run.address}/samples{behind}")]
    if len(places):
        place = int(places[0])
        links.append(text(f"{place + 1:,} of {len(found):,}"))
        for step, name, rel in ((-1, "← previous", "prev"), (1, "next →", "next")):
            if 0 <= place + step < len(found):
                other = f"{run.address}/samples/{int(found[place + step])}{behind}"
                links.append(tag("a", name, href=other, rel=rel))
    else:
        links.append(text("This sample does not fit the filter."))
    if viewer_of(request).live is not None:
        live = f"/live?run={run.number}&sample={number}"
        links.append(tag("a", "Ask the model live", href=live, class_="ask"))
    return tag("p", join(links, " "), class_="steps")


def _facts(run: ShownRun, number: int, sample: Sample) -> Markup:
    """The question, the right answer, what the model answered, and what else is known."""
    prompt = cut(clean(sample.prompt), _LONGEST_PROMPT)
    answer = GeneratedTexts(run.run.path).of(sample.id)
    pairs: dict[str, str | None] = {
        "label": sample.label,
        "answer": answer,
        **{_right_name(each, run): each.shown(number) or None for each in run.tables.right},
        "choices": ", ".join(map(one_line, sample.choices)) or None,
        "task": sample.task,
        "group": sample.group,
        "video": None if sample.video is None else sample.video.source or None,
        **{
            one_line(name): shown_cell(value)
            for name, value in sample.attributes.items()
            if value is not None and name != REGIONS
        },
    }
    listed = [
        tag("div", tag("dt", one_line(name)), tag("dd", cut(clean(value), _LONGEST_VALUE)))
        for name, value in pairs.items()
        if value is not None
    ]
    question = tag("p", prompt, class_="question") if prompt else tag("p", "no prompt")
    return tag("div", question, tag("dl", *listed), class_="known")


def _right_name(column: SampleColumn, run: ShownRun) -> str:
    return "the answer is" if len(run.tables.right) == 1 else f"the answer is, {column.title}"


def _said(run: ShownRun, number: int) -> Iterator[Markup]:
    """The rows about the sample in each table."""
    for each in run.tables.tables:
        found = int((each.samples == number).sum())
        if not found:
            continue
        table = narrowed(_without_empty(each.of(number, _MOST_ROWS)))
        title = f"{one_line(each.result.title)}: {one_line(table.title)}"
        if found == 1:
            yield join([tag("h3", title), _alone(table)])
            continue
        yield draw_table(replace(table, title=title), "", None)
        if found > _MOST_ROWS:
            yield tag("p", f"The first {_MOST_ROWS} of {plural(found, 'row')}.", class_="muted")


def _alone(table: Table) -> Markup:
    """A table of one row as a list."""
    pairs = [
        tag("div", tag("dt", one_line(name)), tag("dd", cut(shown_cell(cells[0]), _LONGEST_VALUE)))
        for name, cells in table.columns.items()
    ]
    return tag("dl", *pairs, class_="inline")


def _without_empty(table: Table) -> Table:
    """The table without columns that say nothing here."""
    kept = {
        name: cells
        for name, cells in table.columns.items()
        if any(cell is not None for cell in cells)
    }
    return Table(table.name, table.title, kept, table.keys)


def _figures(run: ShownRun, sample: Sample) -> tuple[Markup, LinkedPictures]:
    """The sheets about the sample: lens tables, maps of attention and occlusion, patching."""
    pictures = LinkedPictures(run)
    drawn = []
    for result, figure in _every_figure(run.results):
        sheets = tuple(sheet for sheet in figure.sheets if sheet.sample == sample.id)
        if sheets:
            title = f"{result.title}: {figure.title}"
            drawn.append(replace(figure, title=title, sheets=sheets))
    return draw_figures(drawn, None, "figure", pictures), pictures


def _every_figure(results: Mapping[str, Result]) -> Iterator[tuple[Result, Figure]]:
    for result in results.values():
        for figure in result.figures:
            yield result, figure


def _features(run: ShownRun, sample: Sample) -> Iterator[Markup]:
    """The features that fire in the sample, strongest first, with links to them."""
    for of, (analysis, figure) in enumerate(sets_of_features(run)):
        named = {feature.number: feature.name for feature in figure.pages}
        for scene in figure.scenes:
            if scene.sample == sample.id and scene.fires:
                title = f"{one_line(run.results[analysis].title)}: {one_line(figure.title)}"
                fires = scene.fires[:_MOST_FEATURES]
                items = [_feature(run, of, each, named.get(each[0], "")) for each in fires]
                yield join([tag("h3", title), tag("ol", *items, class_="fires")])


def _feature(run: ShownRun, of: int, fires: tuple[int, float], name: str) -> Markup:
    number, code = fires
    link = tag("a", f"feature {number}", href=f"{run.address}/features?of={of}&find={number}")
    return tag("li", link, f" {one_line(name)} ", tag("small", f"{code:.3g}"))


def _stored(run: ShownRun) -> Markup:
    """The columns in the store, by name and shape."""
    try:
        columns = run.stored
    except VlmlensError as error:
        return tag("p", f"The columns cannot be listed: {error.message}", class_="muted")
    if not columns:
        return Markup("")
    items = [
        tag("li", tag("code", one_line(each.name)), " ",
            tag("small", f"[{'rows, ' if each.ragged else ''}{each.width}] {each.dtype}"
                f", of {plural(each.samples, 'sample')}"))
        for each in columns
    ]  # fmt: skip
    summary = tag("summary", plural(len(items), "column"))
    return tag("details", summary, tag("ul", *items, class_="stored"))
