"""The map over the picture, the lens over layers, heads and layers as bars."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np

from vlmlens.results import Figure, Series, Sheet
from vlmlens.samples import Sample
from vlmlens_plugins.analysis._patches import rounded
from vlmlens_plugins.analysis._results import slug
from vlmlens_plugins.analysis._sweeps.pictures import heat_map
from vlmlens_plugins.analysis.look.answers import chance
from vlmlens_plugins.analysis.look.components import Components
from vlmlens_plugins.analysis.look.looked import Looked

_EFFECT = "fall of the log-odds"
_READ = ("first", "second", "third")


def figures(found: Sequence[Looked]) -> list[Figure]:
    """Those for which there are numbers, in the order in which they are looked at."""
    made = [*_map(found), *_lens(found)]
    for one in found:
        made += _of_components(one, len(found) > 1)
        made += _difference(one, len(found) > 1)
    return made


def _map(found: Sequence[Looked]) -> Iterator[Figure]:
    sheets = []
    for one in found:
        maps = () if one.evidence is None else one.evidence.maps
        for image, values in enumerate(maps):
            steps = len(values)
            places = [divmod(i, steps) for i in range(steps**2)]
            sheets.append(
                Sheet(
                    one.sample.id,
                    rounded(values.reshape(1, -1)),
                    x=[f"row {row + 1}, column {column + 1}" for row, column in places],
                    boxes=[
                        (c / steps, r / steps, (c + 1) / steps, (r + 1) / steps) for r, c in places
                    ],
                    image=image,
                    facets=_which(one.sample, image) if len(maps) > 1 else {},
                )
            )
    if sheets:
        yield Figure(
            "look-map", "What each part of the picture adds to the answer", "patches",
            x=(), y=["picture"], y_label="log-odds", sheets=sheets,
        )  # fmt: skip


def _which(sample: Sample, image: int) -> dict[str, str]:
    """Which picture of several, from 1, or which frame of a video, from 0 as in selectors."""
    return {"picture": str(image + 1)} if sample.video is None else {"frame": str(image)}


def _lens(found: Sequence[Looked]) -> Iterator[Figure]:
    known = [one for one in found if one.layers is not None]
    if not known:
        return
    sheets = []
    for one in known:
        assert one.layers is not None  # noqa: S101
        word = one.answer.begins or one.answer.text
        cells = [
            [chance(score), *(p for _, p in top)]
            for score, top in zip(one.layers.scores, one.layers.tops, strict=True)
        ]
        texts = [[word, *(text for text, _ in top)] for top in one.layers.tops]
        tips = [
            [f"{text}: {p:.1%}" for text, p in zip(*pair, strict=True)]
            for pair in zip(texts, cells, strict=True)
        ]
        count = len(texts[0]) - 1
        sheets.append(
            Sheet(one.sample.id, rounded(np.array(cells)), texts, tips, ["answer", *_READ[:count]])
        )
    first = known[0].layers
    assert first is not None  # noqa: S101
    yield Figure(
        "look-lens", "What every block would answer: the answer, and the most probable tokens",
        "lens", x=(), y=list(first.names), y_label="probability", sheets=sheets,
    )  # fmt: skip


def _of_components(one: Looked, several: bool) -> Iterator[Figure]:
    found = one.components
    if found is None:
        return
    about = f"{one.sample.id}: " if several else ""
    order = sorted(range(len(found.strongest)), key=lambda i: -found.drops[i])
    names = [str(found.nodes[found.strongest[i]]) for i in order]
    yield Figure(
        slug(f"look heads {one.sample.id}" if several else "look heads"),
        f"{about}The strongest heads and MLPs, with what they compute from a gray picture",
        "bar", x=names, y_label=_EFFECT,
        series=[
            Series("really exchanged", [found.drops[i] for i in order]),
            Series("estimate", [float(found.estimates[found.strongest[i]]) for i in order]),
        ],
    )  # fmt: skip
    yield _by_layer(found, about, one.sample.id if several else "")


def _by_layer(found: Components, about: str, name: str) -> Figure:
    """Estimates of each head and MLP, summed over groups of rows; the colour is their size."""
    sums: dict[tuple[str, str], float] = {}
    for node, estimate in zip(found.nodes, found.estimates, strict=True):
        block, inside = _split(node.site)
        sums[block, inside] = sums.get((block, inside), 0.0) + float(estimate)
    made = heat_map(
        slug(f"look layers {name}"),
        f"{about}Heads and MLPs by layer: estimates, over all rows",
        sums,
        label="size of the estimate",
        limits=(0.0, max(abs(value) for value in sums.values()) or 1.0),
    )
    sizes = [[None if one is None else abs(one) for one in line] for line in made.cells]
    return replace(made, cells=sizes)


def _split(site: str) -> tuple[str, str]:
    """The block of a component, and its name in it.

    >>> _split("llm.block.3.attn.heads[5]"), _split("llm.block.3.mlp_out")
    (('llm.block.3', 'head 5'), ('llm.block.3', 'mlp'))
    """
    parts = site.split(".")
    inside = ".".join(parts[3:]).replace("attn.heads[", "head ").rstrip("]")
    return ".".join(parts[:3]), inside.removesuffix("_out")


def _difference(one: Looked, several: bool) -> Iterator[Figure]:
    if one.traced is None or not one.traced.shares:
        return
    about = f"{one.sample.id}: " if several else ""
    yield heat_map(
        slug(f"look difference {one.sample.id}" if several else "look difference"),
        f"{about}Share of the difference that rows carry into the other run",
        one.traced.shares,
        label="share of the difference",
    )
