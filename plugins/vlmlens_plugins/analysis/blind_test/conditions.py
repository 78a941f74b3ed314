"""Each question with its image and with each kind of blank, batch by batch."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any, Generic, TypeVar

from vlmlens.samples import Sample
from vlmlens_plugins.analysis.blind_test.blank_images import blanked, image_sizes, others
from vlmlens_plugins.analysis.blind_test.options import SHOWS_NOTHING, Blank, BlindOptions

T = TypeVar("T")
Ask = Callable[[Sequence[Sample]], Sequence[T]]
_REMEMBERED = 64
_ONE_FOR_ALL = SHOWS_NOTHING - {"noise"}


class Conditions:
    """Makes blank questions.

    Args:
        samples: All samples of the run that have images.
        options: Which blanks.
        seed: Of noise, of orders, and of whose image is another's.

    Raises:
        MissingAnnotation: A sample can be shown no other's image.
    """

    def __init__(self, samples: Sequence[Sample], options: BlindOptions, seed: int) -> None:
        self.kinds = options.blank
        self._options = options
        self._seed = seed
        self._others = others(samples, seed) if "other" in self.kinds else {}

    def made(self, sample: Sample, blank: Blank) -> Sample:
        """The sample's question with that blank."""
        if blank == "other":
            return replace(sample, images=self._others[sample.id])
        chosen = self._options
        return blanked(sample, blank, self._seed, blur=chosen.blur, grid=chosen.grid)

    def key(self, sample: Sample, blank: Blank) -> Any:
        """Equal for samples that are the same question with that blank."""
        if blank not in _ONE_FOR_ALL:
            return blank, sample.id
        sizes = () if blank == "none" else tuple(image_sizes(sample))
        other_way = sample.attributes.get("negated")
        return blank, sample.prompt, other_way, sizes, sample.choices


class Asked(Generic[T]):
    """Answers to questions with and without their image; equal blank questions are asked once.

    Args:
        conditions: Makes the blank ones.
        ask: Answers questions.
        batch_size: Questions at once.
        with_image: Answers those that have their image, where that is done in another way.
    """

    def __init__(
        self,
        conditions: Conditions,
        ask: Ask[T],
        batch_size: int,
        *,
        with_image: Ask[T] | None = None,
    ) -> None:
        self._conditions = conditions
        self._ask = ask
        self._with_image = with_image or ask
        self._batch_size = batch_size
        self._known: OrderedDict[Any, T] = OrderedDict()

    def __call__(self, samples: Sequence[Sample]) -> Iterator[tuple[list[int], list[Sequence[T]]]]:
        """Batches: numbers of the samples; their answers with the image and with each blank."""
        for start in range(0, len(samples), self._batch_size):
            rows = list(range(start, min(start + self._batch_size, len(samples))))
            part = [samples[i] for i in rows]
            blind = [self._blind(part, blank) for blank in self._conditions.kinds]
            yield rows, [self._with_image(part), *blind]

    def _blind(self, part: Sequence[Sample], blank: Blank) -> list[T]:
        keys = [self._conditions.key(sample, blank) for sample in part]
        new = {key: s for key, s in zip(keys, part, strict=True) if key not in self._known}
        fresh: dict[Any, T] = {}
        if new:
            made = [self._conditions.made(sample, blank) for sample in new.values()]
            fresh = dict(zip(new, self._ask(made), strict=True))
        found = {**self._known, **fresh}
        if blank in _ONE_FOR_ALL:
            self._known.update(fresh)
        while len(self._known) > _REMEMBERED:
            self._known.popitem(last=False)
        return [found[key] for key in keys]
