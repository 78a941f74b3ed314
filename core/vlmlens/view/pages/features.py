"""Features of an SAE, with search."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING
from urllib.parse import urlencode

from starlette.exceptions import HTTPException
from starlette.responses import HTMLResponse

from vlmlens.report._features import CLEAR, best_label
from vlmlens.report._figure import draw_figures
from vlmlens.report._markup import Markup, tag
from vlmlens.report._text import one_line, plural
from vlmlens.results import FeaturePage, FeaturePlaces, FeatureScene, Figure
from vlmlens.view.addresses import of_analysis
from vlmlens.view.commands import copied
from vlmlens.view.page import page
from vlmlens.view.pictures import LinkedPictures
from vlmlens.view.queries import whole_number
from vlmlens.view.viewer import run_of

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response

    from vlmlens.view.shown_run import ShownRun

SLICE = 48
"""Features that are shown at a time; a figure of an analysis has 24 by default."""

_ACTIVE: Mapping[str, tuple[str, Callable[[float], bool]]] = {
    "": ("any", lambda density: True),
    "never": ("never", lambda density: density == 0),
    "rare": ("in less than 1 %", lambda density: 0 < density < 0.01),
    "some": ("in 1 % to 10 %", lambda density: 0.01 <= density <= 0.1),
    "dense": ("in more than 10 %", lambda density: density > 0.1),
}
_ORDERS: Mapping[str, tuple[str, Callable[[FeaturePage], float]]] = {
    "": ("as they were chosen", lambda _: 0),
    "number": ("number", lambda each: each.number),
    "density": ("how often they fire", lambda each: -each.density),
    "auc": ("what they separate", lambda each: -_separates(each)),
}


def show(request: Request) -> Response:
    """The page.

    The query: `of` (which figure of features), `find`, `active`, `sort`, `from`.
    """
    run = run_of(request)
    figures = sets_of_features(run)
    if not figures:
        return HTMLResponse(page(request, "Features", *_nothing(run), run=run))
    of = whole_number(request, "of") or 0
    if of >= len(figures):
        raise HTTPException(404, f"There are {len(figures)} sets of features.")
    name, figure = figures[of]
    asked = {key: request.query_params.get(key, "") for key in ("find", "active", "sort")}
    found = search(figure.pages, **asked)
    start = whole_number(request, "from") or 0
    pictures = LinkedPictures(run)
    content = [
        _sets(run, figures, of),
        _controls(of, asked),
        _place(run, {"of": str(of), **asked}, start, len(found), len(figure.pages)),
        draw_figures([part_of(figure, found[start : start + SLICE])], pictures=pictures),
        tag("p", tag("a", "All of this analysis", href=of_analysis(run, name))),
        pictures.block(),
    ]
    scripts = ("report.js", "features_search.js")
    return HTMLResponse(
        page(request, "Features", tag("div", *content, class_="searched"), scripts=scripts, run=run)
    )


def sets_of_features(run: ShownRun) -> list[tuple[str, Figure]]:
    """The figures of features of a run, each with its analysis, as `of` numbers them."""
    return [
        (name, figure)
        for name, result in run.results.items()
        for figure in result.figures
        if figure.kind == "features"
    ]


def search(
    pages: Sequence[FeaturePage], find: str = "", active: str = "", sort: str = ""
) -> list[FeaturePage]:
    """Features that fit.

    Args:
        pages: All.
        find: Part of a number, name, label, sample or token, in whatever case. A feature with
            exactly this number comes first.
        active: How often they fire: "", "never", "rare", "some" or "dense".
        sort: What they are sorted by: "", "number", "density" or "auc".

    Raises:
        HTTPException: 422: `active` or `sort` is unknown.
    """
    for name, given, known in (("active", active, _ACTIVE), ("sort", sort, _ORDERS)):
        if given not in known:
            options = ", ".join(filter(None, known))
            raise HTTPException(422, f"{name} = {given!r}: expected one of {options}.")
    wanted = find.strip().casefold()
    fires = _ACTIVE[active][1]
    kept = [each for each in pages if fires(each.density) and wanted in _said(each)]
    order = _ORDERS[sort][1]
    return sorted(kept, key=lambda each: (str(each.number) != wanted, order(each)))


def part_of(figure: Figure, pages: Sequence[FeaturePage]) -> Figure:
    """A figure with some of its features, and what of its scenes is about them."""
    numbers = {each.number for each in pages}
    shown = {sample.sample for each in pages for sample in each.samples}
    scenes = [_scene(scene, numbers) for scene in figure.scenes if scene.sample in shown]
    return replace(figure, pages=pages, scenes=scenes)


def _scene(scene: FeatureScene, numbers: set[int]) -> FeatureScene:
    def kept(pairs: Sequence[tuple[int, float]]) -> list[tuple[int, float]]:
        return [pair for pair in pairs if pair[0] in numbers]

    places = [
        FeaturePlaces(each.image, each.view, each.boxes, list(map(kept, each.fires)))
        for each in scene.places
    ]
    return FeatureScene(scene.sample, kept(scene.fires), places)


def _said(each: FeaturePage) -> str:
    """All that a feature is found by."""
    labels = [f"{one.target}: {one.label}" for one in each.labels if one.corrected < CLEAR]
    tokens = [
        token
        for sample in each.samples
        for token, value in zip(sample.tokens, sample.values, strict=True)
        if value
    ]
    facts = [value for sample in each.samples for value in sample.facts.values()]
    written = [token for token, _ in (*each.raised, *each.lowered)]
    samples = [sample.sample for sample in each.samples]
    said = [str(each.number), each.name, each.told, *labels, *tokens, *facts, *written, *samples]
    return "\n".join(said).casefold()


def _separates(each: FeaturePage) -> float:
    best = best_label(each)
    return best.auc if best else 0.0


def _sets(run: ShownRun, figures: Sequence[tuple[str, Figure]], of: int) -> Markup:
    """Links to the figures of features, if there are several."""
    if len(figures) < 2:
        return Markup("")
    links = [
        tag("li", tag("a", f"{one_line(figure.title)} ({len(figure.pages):,})",
                      href=f"{run.address}/features?of={i}",
                      aria_current="true" if i == of else None))
        for i, (_, figure) in enumerate(figures)
    ]  # fmt: skip
    return tag("ul", *links, class_="sets", aria_label="Sets of features")


def _controls(of: int, asked: Mapping[str, str]) -> Markup:
    """What `features_search.js` reads; without it, the addresses below still work."""
    field = tag("input", type="search", name_="find", value=asked["find"], size="22")
    parts = [
        tag("input", type="hidden", name_="of", value=str(of)),
        tag("label", tag("span", "number, name, label, token, caption or sample"), field),
        _select("fires", "active", {key: said for key, (said, _) in _ACTIVE.items()}, asked),
        _select("order", "sort", {key: said for key, (said, _) in _ORDERS.items()}, asked),
        tag("button", "Search", type="submit", class_="more"),
    ]
    return tag("form", *parts, class_="live controls", role="search", data_role="features")


def _select(said: str, name: str, options: Mapping[str, str], asked: Mapping[str, str]) -> Markup:
    made = [
        tag("option", text, value=value, selected=value == asked[name])
        for value, text in options.items()
    ]
    return tag("label", tag("span", said), tag("select", *made, name_=name))


def _place(run: ShownRun, query: Mapping[str, str], start: int, found: int, of: int) -> Markup:
    """How many fit, and the way to the others."""
    kept = {key: value for key, value in query.items() if value}

    def step(name: str, to: int) -> Markup:
        address = f"{run.address}/features?{urlencode({**kept, 'from': to})}"
        return tag("a", name, href=address, class_="more")

    said = f"{plural(found, 'feature')} of {of:,}" if found < of else plural(of, "feature")
    if found > SLICE:
        said += f", {start + 1:,} to {min(start + SLICE, found):,} shown"
    before = step("Previous", max(start - SLICE, 0)) if start else ""
    after = step("Next", start + SLICE) if start + SLICE < found else ""
    return tag("p", tag("span", said, role="status"), before, after, class_="count steps")


def _nothing(run: ShownRun) -> list[Markup]:
    """What is said of a run without features."""
    command = shlex.join(["vlmlens", "analyze", str(run.run.path), "--analysis", "sae"])
    said = [
        "The analysis ",
        tag("code", "sae"),
        " trains an SAE (sparse autoencoder) at a place in the model, or reads one, and shows "
        "single features of it. ",
        tag("code", "activating"),
        " shows where single coordinates of a column are large.",
    ]
    return [
        tag("p", "This run has no features. This command makes some:"),
        copied(command, "The command", "Copy as command"),
        tag("p", *said, class_="muted"),
    ]
