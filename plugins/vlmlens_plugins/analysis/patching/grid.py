"""The cells of a patching sweep: sites times rows, their controls, and single patches."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from vlmlens.abc import ModelAdapter
from vlmlens.errors import SelectorError, SiteNotFound
from vlmlens.passes.edits import split_outside
from vlmlens.regions import ATTRIBUTE, regions_of
from vlmlens.samples import Sample
from vlmlens.sites import Axis, Site
from vlmlens.tokens import Selector, TokenKind, TokenLayout
from vlmlens_plugins.analysis._sweeps import Cell, Change, Item
from vlmlens_plugins.analysis._sweeps.rows import RandomRows

DEFAULT_SITES = ("projector", "llm.encoder.block.*", "llm.block.*")
DEFAULT_ROWS = ("image", "question", "last")
_OF_TEXT = (Axis.LLM, Axis.ENCODER)
Layouts = dict[Axis, list[TokenLayout]]
_ON_IMAGES = ("image", "all", "special")


@dataclass(frozen=True, slots=True)
class Place:
    """Sites that are patched together.

    Args:
        name: For tables: the site, or the first and the last of a window.
        sites: The sites.
    """

    name: str
    sites: tuple[Site, ...]

    @property
    def axis(self) -> Axis:
        """What their rows stand for."""
        return self.sites[0].axis


def places(vlm: ModelAdapter, patterns: Sequence[str] | None, window: int) -> list[Place]:
    """What is patched, in order of depth.

    Args:
        vlm: The model, or its skeleton.
        patterns: Sites; None: those of the default that the model has.
        window: How many neighbouring blocks together.

    Raises:
        SiteNotFound: A pattern matches nothing.
    """
    sites_of = vlm.sites.matching if patterns is None else vlm.sites.resolve
    wanted = patterns or DEFAULT_SITES
    found = {site.name: site for pattern in wanted for site in sites_of(pattern)}
    if not found:
        raise SiteNotFound(
            f"The model has none of the sites {', '.join(DEFAULT_SITES)}.",
            subject=DEFAULT_SITES[0],
            hint="Name sites: --set analysis.patching.sites=... (`vlmlens sites` lists them).",
        )
    sites = _by_depth(vlm, list(found.values()))
    return [Place(site.name, (site,)) for site in sites] if window == 1 else _windows(sites, window)


def _by_depth(vlm: ModelAdapter, sites: Sequence[Site]) -> list[Site]:
    """Sites in the order in which they run, if all have names of vlmlens; else as they are."""
    names = list(vlm.sites.canonical)
    depths = [
        [i for i, name in enumerate(names) if re.match(rf"{re.escape(name)}(?![^.:])", site.name)]
        for site in sites
    ]
    if not all(depths):
        return list(sites)
    order = sorted(range(len(sites)), key=lambda i: depths[i][-1])
    return [sites[i] for i in order]


def _windows(sites: Sequence[Site], width: int) -> list[Place]:
    """Windows of blocks around each block, cut at both ends; other sites stay alone."""
    stacks: dict[str, list[Site]] = {}
    for site in sites:
        key = site.name if site.index is None else _without_number(site)
        stacks.setdefault(key, []).append(site)
    made = []
    for stack in stacks.values():
        for i, site in enumerate(stack):
            low, high = max(0, i - width // 2), min(len(stack), i + (width + 1) // 2)
            made.append(Place(site.name, tuple(stack[low:high])))
    return made


def _without_number(site: Site) -> str:
    return ".".join("#" if part == str(site.index) else part for part in site.name.split("."))


def parts_of(rows: str) -> list[str]:
    """Selectors that are joined by +.

    >>> parts_of("image.region(a+b) + last")
    ['image.region(a+b)', 'last']
    """
    return [part.strip() for part in split_outside(rows, "+")]


def layouts_of(vlm: ModelAdapter, items: Sequence[Item], size: int) -> Layouts:
    """The rows of all samples and donors, by axis; they are encoded, and not run.

    Args:
        vlm: The model.
        items: The items of the sweep.
        size: How many samples are encoded together.
    """
    samples = [one for item in items for one in (item.target, item.donor) if one is not None]
    found: Layouts = {}
    for start in range(0, len(samples), size):
        for axis, layout in vlm.encode(samples[start : start + size]).layouts.items():
            found.setdefault(axis, []).extend(layout.samples)
    return found


def applicable(
    rows: Iterable[str], axis: Axis, layouts: Layouts
) -> tuple[list[str], dict[str, str]]:
    """Which rows exist on an axis in all samples; and why the others do not.

    Args:
        rows: Selectors, or several joined by +.
        axis: The axis.
        layouts: From `layouts_of`.
    """
    kept: list[str] = []
    missing: dict[str, str] = {}
    for name in rows:
        parts = [Selector.parse(part) for part in parts_of(name)]
        if axis not in _OF_TEXT and not name.startswith(_ON_IMAGES):
            continue
        if axis not in layouts:
            continue
        try:
            for part in parts:
                for layout in layouts[axis]:
                    part.positions(layout)
        except SelectorError as error:
            missing[name] = error.message
        else:
            kept.append(name)
    return kept, missing


def cell(place: Place, rows: str, controls: Sequence[int], layouts: Layouts) -> list[Cell]:
    """The cell of some rows at a place, and its controls: other rows of equal number.

    There is no control where a sample has not as many other rows.

    Args:
        place: The place.
        rows: A selector, or several joined by +.
        controls: The seed of each draw of the control.
        layouts: From `layouts_of`.
    """
    parts = parts_of(rows)
    about = {"site": place.name, "rows": rows}
    found = [Cell(tuple(_patch(site, part) for site in place.sites for part in parts), about)]
    if len(parts) == 1 and controls and _has_others(place, rows, layouts):
        found += [
            Cell(
                tuple(_patch(site, rows, seed) for site in place.sites),
                {**about, "control": "other rows"},
            )
            for seed in controls
        ]
    return found


def image_rows(layouts: Sequence[TokenLayout]) -> list[int]:
    """How many image rows samples have: each number once."""
    return sorted({int((layout.kinds == TokenKind.IMAGE).sum()) for layout in layouts})


def patch_cells(place: Place, count: int) -> list[Cell]:
    """A cell for every image row of a place."""
    return [
        Cell(
            tuple(_patch(site, f"image[{i}]") for site in place.sites),
            {"site": place.name, "rows": f"image[{i}]"},
        )
        for i in range(count)
    ]


def _patch(site: Site, rows: str, random: int | None = None) -> Change:
    return Change(f"{site.name}/{rows} = patch", random=random)


def _has_others(place: Place, rows: str, layouts: Layouts) -> bool:
    chosen = RandomRows(like=Selector.parse(rows))
    try:
        for layout in layouts[place.axis]:
            chosen.positions(layout)
    except SelectorError:
        return False
    return True


def default_rows(samples: Sequence[Sample]) -> list[str]:
    """Image, question, last; and the first region that all samples have, and the rest."""
    rows = list(DEFAULT_ROWS)
    named = [regions_of(sample.attributes.get(ATTRIBUTE), sample.id) for sample in samples]
    common = [name for name in named[0] if _named(name) and all(name in each for each in named)]
    if common:
        rows[1:1] = [f"image.region({common[0]})", f"image.rest({common[0]})"]
    return rows


def _named(region: str) -> bool:
    """Whether a selector can name it."""
    try:
        Selector.parse(f"image.region({region})")
    except SelectorError:
        return False
    return True
