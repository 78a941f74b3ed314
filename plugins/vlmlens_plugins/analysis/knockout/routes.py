"""Routes: rows that are read, and rows that read them; windows of layers; the cells to cut them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from vlmlens.errors import SelectorError, SpecError
from vlmlens.passes.edits import EdgeCut, WrittenEdit
from vlmlens.sites import Site
from vlmlens.tokens import TokenLayout
from vlmlens_plugins.analysis._sweeps import Cell, Change
from vlmlens_plugins.analysis._sweeps.rows import LATER, Drawn, cut_of

ALL_LAYERS: Final = "all layers"
_WIDEST = 9
_QUESTION = ("question", "text[:-1]")
"""The question, and what stands for it where a model's family cannot tell it."""


@dataclass(frozen=True, slots=True)
class Route:
    """Rows that are read, and the rows that no longer read them.

    Args:
        source: A selector.
        target: A selector, or `later`.
    """

    source: str
    target: str

    @classmethod
    def parse(cls, text: str) -> Route:
        """Read `FROM -> TO`.

        Raises:
            SpecError: It has another form.
            SelectorError: A part is no selector.

        >>> Route.parse("image -> last")
        Route(source='image', target='last')
        """
        source, arrow, target = (part.strip() for part in text.partition("->"))
        if not (source and arrow and target):
            raise SpecError(
                f"{text!r} is no route.",
                subject=text,
                hint="Write FROM -> TO, for example image -> last.",
            )
        route = cls(source, target)
        route.cut("llm.block.*.attn")
        return route

    def text(self, site: str, *, renormalise: bool = True) -> str:
        """The edit that cuts it at a site."""
        how = "cut" if renormalise else "cut(renormalise=false)"
        return f"{site} / {self.target} <- {self.source} = {how}"

    def cut(self, site: str, seed: int | None = None, drawn: Drawn = "keys") -> EdgeCut:
        """The cut at a site, or that of a control."""
        return cut_of(WrittenEdit.parse(self.text(site)), seed, drawn)

    def fault(self, layout: TokenLayout, seed: int | None = None, drawn: Drawn = "keys") -> str:
        """Why it cannot be cut in a sample; "" if it can."""
        cut = self.cut("llm.block.*.attn", seed, drawn)
        try:
            cut.queries.positions(layout)
            cut.keys.positions(layout)
        except SelectorError as error:
            return error.message
        return ""

    def __str__(self) -> str:
        return f"{self.source} -> {self.target}"


def default_routes(layouts: Sequence[TokenLayout]) -> list[Route]:
    """The ways from the image to the answer; the question by what the family can tell of it."""
    known = (name for name in _QUESTION if _known(name, layouts))
    question = next(known, _QUESTION[-1])
    pairs = [("image", "last"), ("image", question), (question, "last"), ("image", LATER)]
    return [Route(*pair) for pair in pairs]


def control_of(route: Route, layouts: Sequence[TokenLayout]) -> Drawn | None:
    """What can be drawn at random in every sample: other keys, else other readers, or nothing."""
    kinds: tuple[Drawn, ...] = ("keys", "readers")
    for drawn in kinds:
        if not any(route.fault(layout, 0, drawn) for layout in layouts):
            return drawn
    return None


def width_of(wanted: int | None, layers: int) -> int:
    """The width of windows.

    >>> [width_of(None, layers) for layers in (1, 2, 6, 12, 28, 32, 80)]
    [1, 1, 3, 3, 7, 9, 9]
    """
    quarter = -(-layers // 4)
    return min(wanted or min(quarter + 1 - quarter % 2, _WIDEST), layers)


def windows(layers: int, width: int) -> list[tuple[int, int]]:
    """For each layer, the first and the last layer of the window around it, cut at the ends.

    F. Zhang et al. (2024, arXiv 2411.18620) take the same ones.

    >>> windows(5, 3)
    [(0, 1), (0, 2), (1, 3), (2, 4), (3, 4)]
    """
    return [(max(0, i - width // 2), min(layers, i + -(-width // 2)) - 1) for i in range(layers)]


def pattern_of(sites: Sequence[Site]) -> str:
    """The blocks of neighbouring attention modules: `llm.block.2-4`.

    >>> from vlmlens.sites import Axis
    >>> pattern_of([Site(f"llm.block.{i}.attn", "", Axis.LLM, index=i) for i in (2, 4)])
    'llm.block.2-4'
    """
    first, last = sites[0].name.removesuffix(".attn"), sites[-1].index
    return first if sites[0].index == last else f"{first}-{last}"


def cells_of(
    routes: Sequence[tuple[Route, Drawn | None]],
    sites: Sequence[Site],
    width: int,
    *,
    controls: int,
    seed: int,
    renormalise: bool,
) -> list[Cell]:
    """What is cut: each route in each window and in all layers, and the controls of each.

    Args:
        routes: With what is random in their controls.
        sites: The attention modules, in order.
        width: Of the windows.
        controls: How often a control is drawn.
        seed: Of the first draw.
        renormalise: See `KnockoutOptions`.
    """
    spans = [*windows(len(sites), width), (0, len(sites) - 1)]
    centers = [*(site.name.removesuffix(".attn") for site in sites), ALL_LAYERS]
    cells = []
    for (first, last), center in zip(spans, centers, strict=True):
        layers = pattern_of(sites[first : last + 1])
        for route, drawn in routes:
            text = route.text(f"{layers}.attn", renormalise=renormalise)
            about = {"route": str(route), "layers": layers, "center": center}
            cells.append(Cell((Change(text),), about))
            draws = controls if drawn else 0
            cells += [
                Cell(
                    (Change(text, random=seed + draw, drawn=drawn or "keys"),),
                    {**about, "control": drawn or ""},
                )
                for draw in range(draws)
            ]
    return cells


def _known(name: str, layouts: Sequence[TokenLayout]) -> bool:
    route = Route(name, "last")
    try:
        return not any(route.fault(layout) for layout in layouts)
    except SelectorError:
        return False
