"""The sample browser: filters, and the samples that pass them by slice."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING
from urllib.parse import urlencode

from starlette.exceptions import HTTPException
from starlette.responses import HTMLResponse, JSONResponse

from vlmlens.report._markup import Markup, join, tag, text
from vlmlens.report._pictures import TINY, to_show
from vlmlens.report._text import cut, one_line, plural
from vlmlens.view.page import page
from vlmlens.view.sample_columns import RightColumn
from vlmlens.view.sample_filter import (
    SIGNS,
    SampleFilter,
    finding_of,
    label_codes,
    selection,
    task_codes,
)
from vlmlens.view.viewer import run_of

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response

    from vlmlens.runs.stored_samples import Coded
    from vlmlens.samples import Sample
    from vlmlens.view.sample_columns import SampleColumn
    from vlmlens.view.shown_run import ShownRun

SLICE = 50
"""How many samples come at once."""

_MOST_CHOICES = 60
_LONGEST_PROMPT, _LONGEST_VALUE = 220, 80


def show(request: Request) -> Response:
    """The page, with the first slice."""
    run = run_of(request)
    asked = asked_of(request, run)
    body = [
        _controls(run, asked),
        tag("div", *_chips(run, asked), id="chips", class_="chips"),
        tag("div", _slice(run, asked, _start(request)), id="rows"),
        tag("p", _KEYS, class_="live muted keys"),
        tag("p", id="rows-said", class_="unseen", role="status"),
    ]
    scripts = ("report.js", "samples.js")
    return HTMLResponse(page(request, "Samples", *body, scripts=scripts, run=run))


def rows(request: Request) -> Response:
    """A slice of the samples that pass the filters, as JSON: how many, and their rows as HTML."""
    run = run_of(request)
    asked = asked_of(request, run)
    found, start = selection(asked, run), _start(request)
    return JSONResponse(
        {
            "count": len(found),
            "total": len(run.samples),
            "from": start,
            "chips": join(_chips(run, asked)),
            "html": _slice(run, asked, start),
        }
    )


def column(request: Request) -> Response:
    """What can be asked of a column: its kind, the ends of its numbers, its values."""
    run = run_of(request)
    known = run.tables.columns.get(request.query_params.get("name", ""))
    if known is None:
        raise HTTPException(404, "There is no such column.")
    return JSONResponse(known.described())


def asked_of(request: Request, run: ShownRun) -> SampleFilter:
    """The filter of the address.

    Raises:
        SpecError: It asks for something that there is not.
    """
    query = request.url.query
    return SampleFilter.parse(query, run.tables.columns if "=" in query else ())


def _start(request: Request) -> int:
    given = request.query_params.get("from", "0")
    if not (given.isascii() and given.isdecimal() and len(given) < 10):
        raise HTTPException(422, "`from` is a number of samples to pass over.")
    return int(given)


def _slice(run: ShownRun, asked: SampleFilter, start: int) -> Markup:
    """The count, the rows, and a link to the next ones."""
    found = selection(asked, run)
    shown = found[start : start + SLICE].tolist()
    said = f"{len(found):,} of {plural(len(run.samples), 'sample')}"
    if start or len(found) > SLICE:
        said += f", {start + 1:,} to {start + len(shown):,}" if shown else ""
    columns, query = _columns(run, asked), asked.query()
    listed = [_row(run, number, columns, query) for number in shown]
    parts = [
        tag("p", tag("output", f"{said}.", class_="count"), class_="muted"),
        tag("ol", *listed, class_="rows", start=str(start + 1)) if listed else _nothing(run),
    ]
    if start + SLICE < len(found):
        address = _address(run, query, start + SLICE)
        parts.append(tag("a", "Show more", href=address, class_="more", rel="next"))
    return join(parts)


def _columns(run: ShownRun, asked: SampleFilter) -> Sequence[SampleColumn]:
    """The columns that a row shows: whether answers are right, and what is asked for."""
    names = dict.fromkeys([each.column for each in asked.where])
    if asked.sort:
        names.setdefault(asked.sort)
    right = [column.name for column in run.tables.right[:1]]
    return [run.tables.columns[name] for name in dict.fromkeys([*right, *names])]


def _row(run: ShownRun, number: int, columns: Sequence[SampleColumn], query: str) -> Markup:
    sample = run.samples[number]
    address = f"{run.address}/samples/{number}" + (f"?{query}" if query else "")
    said = [
        tag("span", cut(str(sample.prompt), _LONGEST_PROMPT) or "no prompt", class_="prompt"),
        tag("span", *_marks(sample, number, columns), class_="marks"),
    ]
    link = tag("a", _thumb(run, sample, number), tag("span", *said, class_="said"), href=address)
    return tag("li", link, value=str(number))


def _thumb(run: ShownRun, sample: Sample, number: int) -> Markup:
    places = to_show(sample)
    if not places:
        return tag("span", "no image", class_="thumb muted")
    source = f"{run.address}/samples/{number}/pictures/{places[0]}?side={TINY}"
    picture = tag("img", src=source, alt="", loading="lazy", width="72", height="72")
    return tag("span", picture, class_="thumb")


def _marks(sample: Sample, number: int, columns: Sequence[SampleColumn]) -> Iterator[Markup]:
    if sample.label is not None:
        yield tag("b", cut(one_line(sample.label), _LONGEST_VALUE))
    if sample.task:
        yield tag("span", cut(one_line(sample.task), _LONGEST_VALUE), class_="task")
    for column in columns:
        if value := column.shown(number):
            look = value if value in ("right", "wrong") else None
            name = "" if look else f"{one_line(column.header)} "
            yield tag("span", name, cut(value, _LONGEST_VALUE), class_=look, title=column.title)
            if value == "wrong" and isinstance(column, RightColumn):
                yield tag("span", "says ", tag("b", cut(column.said(number), _LONGEST_VALUE)))
    yield tag("small", cut(one_line(sample.id), _LONGEST_VALUE), class_="name")


def _nothing(run: ShownRun) -> Markup:
    said = "No sample fits." if len(run.samples) else "The run has no samples."
    return tag("p", said, class_="muted")


def _address(run: ShownRun, query: str, start: int = 0) -> str:
    parts = [query] if query else []
    if start:
        parts.append(urlencode({"from": start}))
    return f"{run.address}/samples" + (f"?{'&'.join(parts)}" if parts else "")


def _chips(run: ShownRun, asked: SampleFilter) -> list[Markup]:
    """What is asked for beside the controls, each with a link to the samples without it."""
    made = []
    for name in ("tasks", "labels"):
        first, *others = getattr(asked, name) or ("",)
        for value in others:
            rest = (first, *(other for other in others if other != value))
            query = asked.without(**{name: rest}).query()
            made.append(_chip(f"or {name[:-1]} {one_line(value)}", _address(run, query)))
    for each in asked.where:
        rest = tuple(other for other in asked.where if other != each)
        told = f"{one_line(each.column)} {SIGNS[each.sign]} {one_line(each.value)}"
        made.append(_chip(told, _address(run, asked.without(where=rest).query())))
    if asked.among:
        count = plural(len(asked.chosen), "chosen sample")
        made.append(_chip(count, _address(run, asked.without(among="").query())))
    if asked.finding:
        said = f"behind: {finding_of(asked.finding, run).text}"
        made.append(_chip(said, _address(run, asked.without(finding="").query())))
    return made


def _chip(said: str, address: str) -> Markup:
    shown = cut(one_line(said), 160)
    sign = tag("span", "✕", aria_hidden="true")
    gone = tag("a", sign, href=address, aria_label=f"Without {shown}")
    return tag("span", shown, " ", gone, class_="chip info")


def _controls(run: ShownRun, asked: SampleFilter) -> Markup:
    """What the page's script reads; without it, the links below still lead on."""
    columns = run.tables.columns
    numbers = [(name, each.header) for name, each in columns.items() if each.kind == "number"]
    search = tag("input", type="search", data_role="q", value=asked.text, maxlength="500")
    parts = [
        _labelled("search", search),
        *_choosers(run, asked),
        _labelled("sort by", _select("sort", [("", "as they are"), *numbers], asked.sort, columns)),
        _labelled(
            "first",
            _select("order", [("", "smallest"), ("down", "largest")], "down" * asked.down),
        ),
    ]
    return tag("div", *parts, _adder(columns), class_="live controls", data_address=run.address)


def _choosers(run: ShownRun, asked: SampleFilter) -> Iterator[Markup]:
    """Menus of tasks, labels, and right or wrong answers."""
    for name, codes, chosen in (
        ("task", task_codes(run), asked.tasks),
        ("label", label_codes(run), asked.labels),
    ):
        first = chosen[0] if chosen else ""
        if len(codes.values) > _MOST_CHOICES:
            yield _labelled(name, join(_typed(name, codes, first)))
        elif len(codes.values) > 1 or chosen:
            counts = codes.counts()
            values = [(v, f"{one_line(v)} ({counts[v]:,})") for v in sorted(codes.values)]
            yield _labelled(name, _select(name, [("", "any"), *values], first))
    for each in run.tables.right:
        held = next((c.value for c in asked.where if c.column == each.name and c.sign == "="), "")
        options = [("", "any"), *((value, value) for value in sorted(each.texts.values))]
        name = "answer" if len(run.tables.right) == 1 else f"answer, {each.title}"
        select = _select("right", options, held, column=each.name)
        yield _labelled(cut(one_line(name), 40), select)


def _typed(name: str, codes: Coded, chosen: str) -> list[Markup]:
    """A field for one of very many texts, with the most frequent ones."""
    common = codes.counts().most_common(_MOST_CHOICES)
    known = [tag("option", value=value) for value, _ in common]
    field = tag("input", data_role=name, list=f"{name}s", value=chosen, size="12")
    return [field, tag("datalist", *known, id=f"{name}s")]


def _adder(columns: Mapping[str, SampleColumn]) -> Markup:
    """A condition on any column: which, how, what."""
    if not columns:
        return Markup("")
    named = [(name, each.header) for name, each in columns.items()]
    return tag(
        "fieldset",
        tag("legend", "condition"),
        _labelled("column", _select("column", [("", "choose"), *named], "", columns)),
        _labelled("is", _select("sign", [(sign, sign) for sign in SIGNS], "=")),
        _labelled("value", tag("input", data_role="value", list="values", size="10")),
        tag("datalist", id="values"),
        tag("button", "Add", type="button", data_role="add"),
    )


def _labelled(name: str, element: Markup) -> Markup:
    return tag("label", tag("span", name), element)


def _select(
    role: str,
    options: Sequence[tuple[str, str]],
    chosen: str,
    columns: Mapping[str, SampleColumn] | None = None,
    column: str | None = None,
) -> Markup:
    """A menu; columns stand under the titles of their tables."""
    known = columns or {}
    groups: dict[str, list[Markup]] = {}
    for value, name in options:
        title = known[value].title if value in known else ""
        made = tag("option", cut(one_line(name), 60), value=value, selected=value == chosen)
        groups.setdefault(title, []).append(made)
    parts = [
        tag("optgroup", *made, label=cut(one_line(title), 80)) if title else join(made)
        for title, made in groups.items()
    ]
    return tag("select", *parts, data_role=role, data_column=column)


_KEYS = text("Arrow keys walk through the list, Enter opens a sample, / goes to the search.")
