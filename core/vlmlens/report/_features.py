"""Pages of single features: as data for the page's script, as a table without it, as text."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

from vlmlens.report._embed import Words, data_block, rounded
from vlmlens.report._markup import Markup, join, tag
from vlmlens.report._pictures import MIDDLE, Pictures
from vlmlens.report._sheets import Box, clipped
from vlmlens.report._text import cut, finite, one_line, plural
from vlmlens.report._views import Panel, panels_of
from vlmlens.results import FeatureLabel, FeaturePage, FeatureSample, FeatureScene, Figure

Item = TypeVar("Item")
CLEAR = 0.05
"""Corrected p-values below this are offered in the search by attribute."""
_LONGEST_TOLD, _LONGEST_FACT, _LONGEST = 2000, 240, 80
_MOST_TOKENS = 400
_LISTED = 24


def draw_features(figure: Figure, pictures: Pictures) -> Markup:
    """A figure of kind "features".

    Args:
        figure: What to draw.
        pictures: The samples' pictures.
    """
    if not figure.pages:
        return tag("p", "No feature is shown.", class_="muted")
    title = one_line(figure.title)
    listed = tag("div", class_="list", role="group", aria_label=f"{title}: features")
    found = tag("p", class_="found", role="status")
    clear = tag("button", "Show all features", type="button", class_="more clear", hidden=True)
    beside = tag("div", found, clear, listed, class_="beside")
    page = tag("div", class_="feature-page", role="region", aria_label=f"{title}: one feature")
    return join(
        [
            tag("div", *_controls(), class_="live controls"),
            tag("div", beside, page, class_="live looked"),
            tag("div", _still(figure), class_="still"),
            data_block(_data(figure, pictures), "features-data"),
        ]
    )


def feature_lines(figure: Figure) -> list[str]:
    """The features of a figure as lines of text: number, name or reason, density, samples."""
    lines = [one_line(figure.title)]
    for page in figure.pages[:_LISTED]:
        named = one_line(page.name or f"no name; {page.why}")
        lines.append(f"  {page.number}  {named}  fires in {page.density:.2%} of rows")
        tops = ", ".join(f"{one_line(each.sample)} {each.value:.3g}" for each in page.samples[:3])
        raised = " ".join(one_line(token) for token, _ in page.raised[:5])
        said = [f"samples: {tops}" if tops else "no sample", f"raises: {raised}" if raised else ""]
        lines.append(f"      {'; '.join(filter(None, said))}")
    rest = len(figure.pages) - _LISTED
    return [*lines, f"  and {plural(rest, 'more feature')}"] if rest > 0 else lines


def best_label(page: FeaturePage) -> FeatureLabel | None:
    """The first of what a feature separates; None if nothing was tested."""
    return page.labels[0] if page.labels else None


def _controls() -> list[Markup]:
    search = tag("input", type="search", data_role="feature-search", size="16")
    return [
        tag("label", tag("span", "number, name, sample or token"), search),
        tag("span", class_="facets"),
        tag("output", class_="count"),
    ]


def _still(figure: Figure) -> Markup:
    """All features in a table, for pages without scripts and on paper."""
    names = ("feature", "name", "shown because", "fires in", "separates best", "strongest in")
    head = tag("tr", *(tag("th", name, scope="col") for name in names))
    rows = [tag("tr", *(tag("td", cell) for cell in _cells(page))) for page in figure.pages]
    title = one_line(figure.title)
    table = tag("table", tag("caption", title), tag("thead", head), tag("tbody", *rows))
    region = {"tabindex": "0", "role": "region", "aria_label": title}
    note = tag("p", "Pictures and codes are shown if scripts are allowed.", class_="muted")
    return join([tag("div", table, class_="scroll", **region), note])


def _cells(page: FeaturePage) -> list[str]:
    best = best_label(page)
    separates = f"{best.target}: {best.label}, AUC {best.auc:.2f}" if best else ""
    tops = ", ".join(one_line(each.sample) for each in page.samples[:3])
    texts = [str(page.number), page.name, page.why, f"{page.density:.2%}", separates, tops]
    return [cut(one_line(text), _LONGEST) for text in texts]


class _Boxes:
    """Places of patches that are embedded once and named by number."""

    def __init__(self) -> None:
        self._numbers: dict[tuple[float, ...], int] = {}

    def numbers(self, boxes: Iterable[Sequence[float]]) -> list[int]:
        return [self._numbers.setdefault(tuple(box), len(self._numbers)) for box in boxes]

    def listed(self) -> list[list[float | None]]:
        return [[rounded(edge) for edge in box] for box in self._numbers]


class _Made:
    """What the parts of a figure's data share."""

    def __init__(self, figure: Figure, pictures: Pictures) -> None:
        self.figure, self.pictures = figure, pictures
        self.words, self.boxes = Words(), _Boxes()
        self.place = {page.number: place for place, page in enumerate(figure.pages)}
        self.scene = {scene.sample: place for place, scene in enumerate(figure.scenes)}
        self.panels = [panels_of(scene.places) for scene in figure.scenes]

    def word(self, text: object, longest: int = _LONGEST) -> int:
        return self.words.number(cut(one_line(text), longest))

    def picture(self, sample: str, image: int) -> int | None:
        return self.pictures.number(sample, image, MIDDLE)


def _data(figure: Figure, pictures: Pictures) -> dict[str, Any]:
    made = _Made(figure, pictures)
    _ask_for_pictures(made)
    return {
        "features": [_page(page, made) for page in figure.pages],
        "scenes": [_scene(scene, made) for scene in figure.scenes],
        "words": made.words.listed(),
        "boxes": made.boxes.listed(),
        "clear": CLEAR,
    }


def _ask_for_pictures(made: _Made) -> None:
    """If the page cannot hold all pictures, it holds those of each feature's first samples."""
    most = max((len(page.samples) for page in made.figure.pages), default=0)
    for rank in range(most):
        for page in made.figure.pages:
            for each in page.samples[rank : rank + 1]:
                for image in _images(each, made):
                    made.picture(each.sample, image)


def _images(each: FeatureSample, made: _Made) -> list[int]:
    place = made.scene.get(each.sample)
    known = made.panels[place] if place is not None else []
    return list(dict.fromkeys(one.image for one in known or each.maps))


def _page(page: FeaturePage, made: _Made) -> dict[str, Any]:
    return {
        "number": page.number,
        "name": made.word(page.name, 2 * _LONGEST),
        "why": made.word(page.why, 4 * _LONGEST),
        "density": rounded(page.density),
        "rows": page.rows,
        "edges": [rounded(edge, 3) for edge in page.edges],
        "counts": list(page.counts),
        "counted": page.counted,
        "samples": [_sample(each, made) for each in page.samples],
        "labels": [
            [made.word(each.target), made.word(each.label), rounded(each.auc), each.shuffled,
             each.corrected, each.units]
            for each in page.labels
        ],
        "raised": _tokens(page.raised, made),
        "lowered": _tokens(page.lowered, made),
        "written": made.word(page.written, 4 * _LONGEST),
        "nearest": [[number, rounded(value)] for number, value in page.nearest],
        "modality": [[made.word(name), rounded(share)] for name, share in page.modality.items()],
        "told": made.words.number(cut(page.told, _LONGEST_TOLD)),
        "explainer": made.word(page.explainer),
    }  # fmt: skip


def _tokens(pairs: Sequence[tuple[str, float]], made: _Made) -> list[list[Any]]:
    return [[made.word(token), rounded(value, 3)] for token, value in pairs]


def _facts(facts: Mapping[str, str], made: _Made) -> list[list[int]]:
    return [[made.word(name), made.word(value, _LONGEST_FACT)] for name, value in facts.items()]


def _sample(each: FeatureSample, made: _Made) -> dict[str, Any]:
    place = made.scene.get(each.sample)
    known = made.panels[place] if place is not None else []
    panels = known or panels_of(each.maps)
    return {
        "sample": made.word(each.sample),
        "scene": place,
        "why": made.word(each.why),
        "value": rounded(each.value),
        "facts": _facts(each.facts, made),
        "panels": [_map(each, panel, made) for panel in panels],
        "tokens": made.words.numbers(map(one_line, each.tokens[:_MOST_TOKENS])),
        "values": [rounded(finite(value)) for value in each.values[:_MOST_TOKENS]],
    }


def _map(each: FeatureSample, panel: Panel, made: _Made) -> dict[str, Any]:
    own = [one for one in each.maps if (one.image, one.view) in panel.views]
    pairs = [pair for one in own for pair in _placed(one.boxes, one.values)]
    return {
        "view": made.word(panel.name),
        "picture": made.picture(each.sample, panel.image),
        "boxes": made.boxes.numbers(box for box, _ in pairs),
        "values": [rounded(value) for _, value in pairs],
    }


def _scene(scene: FeatureScene, made: _Made) -> dict[str, Any]:
    return {
        "sample": made.word(scene.sample),
        "fires": _fires(scene.fires, made),
        "panels": [_places(scene, panel, made) for panel in made.panels[made.scene[scene.sample]]],
    }


def _places(scene: FeatureScene, panel: Panel, made: _Made) -> dict[str, Any]:
    own = [one for one in scene.places if (one.image, one.view) in panel.views]
    pairs = [pair for one in own for pair in _placed(one.boxes, one.fires)]
    return {
        "boxes": made.boxes.numbers(box for box, _ in pairs),
        "fires": [_fires(fires, made) for _, fires in pairs],
    }


def _placed(boxes: Sequence[Box | None], items: Sequence[Item]) -> Iterator[tuple[Box, Item]]:
    """What has a place in the picture."""
    for box, item in zip(map(clipped, boxes), items, strict=True):
        if box is not None:
            yield box, item


def _fires(pairs: Sequence[tuple[int, float]], made: _Made) -> list[list[Any]]:
    return [[made.place[number], rounded(value)] for number, value in pairs]
