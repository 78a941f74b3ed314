"""The report's pictures by address: a page names them, and a browser asks for what it draws."""

from __future__ import annotations

from typing import TYPE_CHECKING

from PIL.Image import DecompressionBombError

from vlmlens.images import UNREADABLE, open_image, upright_size
from vlmlens.report._pictures import Pictures
from vlmlens.view.sample_pictures import SIDES

if TYPE_CHECKING:
    from vlmlens.samples import Sample
    from vlmlens.view.shown_run import ShownRun


class LinkedPictures(Pictures):
    """Pictures of a run's samples that are not embedded. Their files are opened for the size alone.

    Args:
        run: The run.
        most: How many there are at most of each size; see `Pictures`.
    """

    def __init__(self, run: ShownRun, most: int = 240) -> None:
        super().__init__(run.samples, most)
        self._address = f"{run.address}/samples"

    def _add(self, sample: Sample, image: int, side: int) -> int | None:
        source = sample.images[image]
        if not isinstance(source, str) or sample.video is not None:
            return super()._add(sample, image, side)
        try:
            with open_image(source) as opened:
                size = sample.rules.size or upright_size(opened)
        except (*UNREADABLE, DecompressionBombError):
            return None
        number = self.samples.numbers[sample.id]
        served = next((each for each in SIDES if each >= side), SIDES[-1])
        address = f"{self._address}/{number}/pictures/{image}?side={served}"
        return self._listed_as(address, size, side)
