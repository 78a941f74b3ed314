"""The micro-batches of a training: what each holds, and its losses, whatever fits in memory."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence

import torch

from vlmlens.abc import ModelAdapter
from vlmlens.errors import OutOfMemory
from vlmlens.extraction.batching import Lengths
from vlmlens.passes.answer_loss import answer_loss
from vlmlens.passes.batch import Batch
from vlmlens.passes.memory import halved
from vlmlens.samples import Sample
from vlmlens_plugins.tuning.part import Part
from vlmlens_plugins.tuning.recipe import Recipe

Numbers = tuple[int, ...]

_STRETCH = 1.25
"""Samples of one micro-batch differ in length by about this factor at most."""


def composed(
    samples: Sequence[Sample], encode: Callable[[Sample], Batch], size: int, seed: int
) -> list[Numbers]:
    """Which samples go through the model together; drawn once, so that what they share is kept.

    Samples of about equal length are together, those with a video apart from the others.

    Args:
        samples: The samples.
        encode: Encodes one; a few are, to learn their lengths.
        size: The most samples of a micro-batch.
        seed: Of the draw.
    """
    lengths = Lengths.of(samples, encode).whole
    drawn = torch.randperm(len(samples), generator=torch.Generator().manual_seed(seed)).tolist()
    steps = [round(math.log(length) / math.log(_STRETCH)) for length in lengths]
    found: list[Numbers] = []
    for videos in (False, True):
        kind = [number for number in drawn if (samples[number].video is not None) is videos]
        kind.sort(key=lambda number: -steps[number])
        found += [tuple(kind[at : at + size]) for at in range(0, len(kind), size)]
    return found


class MicroBatches:
    """Samples in micro-batches, and the losses of each.

    Args:
        vlm: The model, with the part attached.
        part: The part.
        samples: All samples: those of training, and the held-out ones.
        recipe: How much may be kept.
        warn: Told once if a micro-batch does not fit in memory.
    """

    def __init__(
        self,
        vlm: ModelAdapter,
        part: Part,
        samples: Sequence[Sample],
        recipe: Recipe,
        warn: Callable[[str], None],
    ) -> None:
        self._vlm, self._part, self._samples = vlm, part, samples
        self._warn = warn
        self._most = recipe.batch_size

    def losses(self, numbers: Numbers) -> Iterator[torch.Tensor]:
        """The loss of each sample, float32 `[samples]`, in as many pieces as memory needs.

        Differentiate each piece before the next one is asked for.
        """
        for at in range(0, len(numbers), self._most):
            batch = self._encoded(numbers[at : at + self._most])
            yield answer_loss(self._vlm, batch, per_sample=True)

    def halve(self, numbers: Numbers, error: Exception) -> None:
        """Make pieces smaller from now on.

        Raises:
            OutOfMemory: They have one sample each already.
        """
        size = min(self._most, len(numbers))
        if size == 1:
            raise OutOfMemory(
                "One sample does not fit in memory while the part is trained.",
                subject=self._samples[numbers[0]].id,
                hint="Choose a smaller part, smaller images (--max-pixels), or --dtype bfloat16.",
            ) from error
        self._warn(halved(size))
        self._most = (size + 1) // 2

    def _encoded(self, numbers: Numbers) -> Batch:
        some = [self._samples[number] for number in numbers]
        return self._vlm.encode(some, answers=[str(sample.label) for sample in some])
