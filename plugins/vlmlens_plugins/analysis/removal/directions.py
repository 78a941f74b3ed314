"""What is removed: the state of an object's word, or the difference that the object makes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from vlmlens.abc import AnalysisContext
from vlmlens.errors import MissingAnnotation
from vlmlens.samples import Sample
from vlmlens_plugins.analysis._statistics import generator
from vlmlens_plugins.analysis._sweeps import Item
from vlmlens_plugins.analysis.removal.options import RemovalOptions
from vlmlens_plugins.analysis.removal.writing import WordRows
from vlmlens_plugins.analysis.steering.learning import Rows, random_direction
from vlmlens_plugins.analysis.steering.rows import mean_rows

_LEAST = 2


@dataclass(frozen=True)
class Pictures:
    """Objects, and what directions of them can be learnt from.

    Args:
        objects: Their names.
        shown: Samples of the first half.
        has: Whether an object is in a sample's picture; None: it is not known.
    """

    objects: Sequence[str]
    shown: Sequence[Sample]
    has: Callable[[Sample, str], bool | None]


@dataclass(frozen=True)
class Directions:
    """Directions of objects, as sweeps name them.

    Args:
        vectors: By name.
        objects: The objects that have one, in order.
        left_out: Those that have none.
        sources: What directions are read from, by edited site: text sites, or the site itself.
    """

    vectors: Mapping[str, Sequence[float]]
    objects: Sequence[str]
    left_out: Sequence[str]
    sources: Mapping[str, Sequence[str]]

    def named(self, item: Item, name: str, controls: int, seed: int) -> Item:
        """An item with its own directions, and with those of other objects as controls.

        Args:
            item: The item.
            name: The object that is removed.
            controls: How many exchanges.
            seed: Of the exchanges.
        """
        meant = {}
        for source in {each for several in self.sources.values() for each in several}:
            meant[own(source)] = of(source, name)
            for draw in range(controls if len(self.objects) > 1 else 0):
                meant[other(source, draw)] = of(source, self._other(name, draw, seed))
        return replace(item, directions=meant)

    def _other(self, name: str, draw: int, seed: int) -> str:
        """Another object, in a cycle through all of them, drawn at random."""
        order = generator(seed, "removal", "others", str(draw)).permutation(len(self.objects))
        cycle: list[str] = [self.objects[i] for i in order]
        return cycle[(cycle.index(name) + 1) % len(cycle)]


def own(source: str) -> str:
    """What cells call the direction of an item's own object."""
    return f"own {source}"


def other(source: str, draw: int) -> str:
    """What cells call the direction of another object."""
    return f"other {draw} {source}"


def random(source: str, draw: int) -> str:
    """The name of a random direction."""
    return f"random {draw} {source}"


def directions(
    context: AnalysisContext,
    pictures: Pictures,
    options: RemovalOptions,
    sites: Sequence[str],
    text_sites: Sequence[str],
) -> Directions:
    """The directions of all objects, and random ones of equal length.

    Args:
        context: The context of the analysis.
        pictures: The objects, and pictures with and without them.
        options: The options.
        sites: Where image rows are edited.
        text_sites: Where words are read.

    Raises:
        MissingAnnotation: No object has a direction.
    """
    if options.method == "steer":
        found = _differences(context, pictures, options, sites)
        sources = {site: [site] for site in sites}
    else:
        found = _words(context, pictures.objects, text_sites)
        sources = {site: list(text_sites) for site in sites}
    usable = [name for name in pictures.objects if all(map(partial(_usable, name), found.values()))]
    if not usable:
        raise MissingAnnotation(
            "No object has a direction: each needs two pictures with it and two without, in the "
            "half of the groups on which the edit is chosen.",
            subject="object",
            hint="Give more samples, or the attribute `objects`, or use method=project-out.",
        )
    vectors: dict[str, Sequence[float]] = {}
    for source, each in found.items():
        rng = generator(context.seed, "removal", "random", source)
        norm = float(np.mean([np.linalg.norm(each[name]) for name in usable]))
        for name in usable:
            vectors[of(source, name)] = _single(each[name])
        for draw in range(options.controls):
            vectors[random(source, draw)] = _single(
                random_direction(len(each[usable[0]]), norm, rng)
            )
    return Directions(vectors, usable, sorted(set(pictures.objects) - set(usable)), sources)


def word_sample(name: str) -> Sample:
    """An object's word as a prompt without a picture."""
    return Sample(f"the word {name!r}", name)


def _words(
    context: AnalysisContext, objects: Sequence[str], text_sites: Sequence[str]
) -> dict[str, dict[str, Rows]]:
    """By text site and object, the state of the last token of its word, without a picture."""
    columns = {site: f"{site}/question[-1]" for site in text_sites}
    words = [word_sample(name) for name in objects]
    read = mean_rows(context, words, list(columns.values()), work=WordRows())
    return {site: dict(zip(objects, read[column], strict=True)) for site, column in columns.items()}


def _differences(
    context: AnalysisContext, pictures: Pictures, options: RemovalOptions, sites: Sequence[str]
) -> dict[str, dict[str, Rows]]:
    """By site and object, the mean over pictures with it less that over those without it."""
    columns = {site: f"{site}/{options.rows}" for site in sites}
    read = mean_rows(context, pictures.shown, list(columns.values()))
    found: dict[str, dict[str, Rows]] = {site: {} for site in sites}
    for name in pictures.objects:
        known = [pictures.has(sample, name) for sample in pictures.shown]
        there = np.array([each is True for each in known])
        absent = np.array([each is False for each in known])
        if min(there.sum(), absent.sum()) < _LEAST:
            continue
        for site, column in columns.items():
            found[site][name] = read[column][there].mean(0) - read[column][absent].mean(0)
    return found


def _usable(name: str, found: Mapping[str, Rows]) -> bool:
    return name in found and bool(np.isfinite(found[name]).all() and found[name].any())


def of(source: str, name: str) -> str:
    """The name of an object's direction."""
    return f"{source} {name}"


def _single(vector: Rows) -> list[float]:
    """As float32, the type in which it is used."""
    found: list[float] = vector.astype(np.float32).tolist()
    return found
