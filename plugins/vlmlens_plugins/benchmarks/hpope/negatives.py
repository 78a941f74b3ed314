"""What is not there: objects and attributes to ask for in vain, by how misleading they are."""

from __future__ import annotations

import random
from collections import Counter, defaultdict
from collections.abc import Sequence

from vlmlens_plugins.benchmarks.hpope.card import IMAGE
from vlmlens_plugins.benchmarks.hpope.pictures import Picture, Thing


class Negatives:
    """Chooses from what the whole set knows.

    Args:
        pictures: The whole set.
    """

    def __init__(self, pictures: Sequence[Picture]) -> None:
        self._pictures: Counter[str] = Counter()
        self._together: defaultdict[str, Counter[str]] = defaultdict(Counter)
        self._values: defaultdict[str, Counter[str]] = defaultdict(Counter)
        self._of_kind: Counter[tuple[str, str, str]] = Counter()
        for picture in pictures:
            self._pictures.update(picture.kinds)
            for kind in picture.kinds:
                self._together[kind].update(picture.kinds - {kind})
            for thing in picture.things:
                for which, value in thing.attributes:
                    self._values[which][value] += 1
                    self._of_kind[thing.name, which, value] += 1

    def objects(self, picture: Picture, setting: str, rng: random.Random) -> list[str]:
        """Kinds of objects that are not in the picture, the most misleading first.

        Random ones in any order; popular ones by the pictures that they are in; adversarial ones
        by the pictures that they share with the kinds that are there (Y. Li et al. 2023, arXiv
        2305.10355).
        """
        absent = sorted({*self._pictures} - picture.kinds)
        rng.shuffle(absent)
        if setting == "random":
            return absent
        if setting == "popular":
            return sorted(absent, key=lambda kind: -self._pictures[kind])
        here = picture.kinds
        return sorted(absent, key=lambda kind: -sum(self._together[kind][own] for own in here))

    def attribute(
        self, picture: Picture, thing: Thing, which: str, setting: str, rng: random.Random
    ) -> str | None:
        """An attribute of that type that the object does not have; None if there is none.

        A random one; the most frequent one (popular); the one most frequent with that kind of
        object (adversarial); or one that another object of the picture has (image-adversarial;
        N. Pham and M. Schott 2024, arXiv 2411.04077).
        """
        own = {value for kind, value in thing.attributes if kind == which}
        known = sorted({*self._values[which]} - own)
        if setting == IMAGE:
            others = [other for other in picture.things if other != thing]
            seen = {pair for other in others for pair in other.attributes}
            known = [value for value in known if (which, value) in seen]
        rng.shuffle(known)
        if not known:
            return None
        if setting == "popular":
            return max(known, key=lambda value: self._values[which][value])
        if setting == "adversarial":
            return max(known, key=lambda value: self._of_kind[thing.name, which, value])
        return known[0]
