"""Model work: how probable answers are when some pixels are hidden."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, ClassVar

from pydantic import Field

from vlmlens.abc import ModelAdapter, ModelWork, Options, WorkUnit
from vlmlens.samples import Sample
from vlmlens_plugins.analysis._altered.alterations import Alteration
from vlmlens_plugins.analysis._altered.canvas import Canvas
from vlmlens_plugins.analysis._scoring import AnswerScorer

_OPEN = 32
"""At most so many samples are kept open; their pixels are altered again and again."""

_BYTES = 2**28
"""So many bytes of open pixels are enough: fewer large photographs are kept open."""


class AlteredOptions(Options):
    """Options of `AlteredScores`."""

    mean: bool = Field(False, description="The mean over an answer's tokens, instead of the sum.")


class AlteredScores(ModelWork):
    """The log-probability of each answer, a list per unit; see `AnswerScorer.choices`.

    Arguments: "answers"; "own", the number of the sample's own images, which other ones follow;
    "alteration", see `Alteration.to_json`, or None.
    """

    Options: ClassVar[type[Options]] = AlteredOptions
    options: AlteredOptions
    version: ClassVar[int | None] = 1

    def __init__(self, options: AlteredOptions | None = None) -> None:
        super().__init__(options)
        self._scorer: AnswerScorer | None = None
        self._open: OrderedDict[Any, Canvas] = OrderedDict()

    def run(self, vlm: ModelAdapter, units: Sequence[WorkUnit]) -> list[list[float]]:
        """See `ModelWork.run`."""
        if self._scorer is None or self._scorer.vlm is not vlm:
            self._scorer = AnswerScorer(vlm, mean=self.options.mean)
        asked = [
            replace(self._seen(unit), choices=tuple(unit.arguments["answers"])) for unit in units
        ]
        return [logs.tolist() for logs in self._scorer.choices(asked)]

    def _seen(self, unit: WorkUnit) -> Sample:
        own = unit.arguments["own"]
        sample = replace(unit.sample, images=unit.sample.images[:own])
        if unit.arguments["alteration"] is None or not sample.images:
            return sample
        change = Alteration.from_json(unit.arguments["alteration"])
        return self._canvas(sample).altered(change, unit.sample.images[own:])

    def _canvas(self, sample: Sample) -> Canvas:
        """The sample's images, opened; those of the last samples are kept open."""
        images = [each if isinstance(each, str) else id(each) for each in sample.images]
        key = (sample.id, sample.prompt, *images, repr(sample.rules))
        if key not in self._open:
            self._open[key] = Canvas(sample)
        self._open.move_to_end(key)
        while len(self._open) > _OPEN or (len(self._open) > 1 and self._bytes() > _BYTES):
            self._open.popitem(last=False)
        return self._open[key]

    def _bytes(self) -> int:
        return sum(pixels.nbytes for canvas in self._open.values() for pixels in canvas.pixels)
