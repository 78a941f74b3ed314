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
from vlmlens.passes.frozen_prefix import Form, FrozenPrefix
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

    What a pass computes before the part is kept per piece of a micro-batch, or the encoded piece
    alone, as long as there is room.

    Args:
        vlm: The model, with the part attached.
        part: The part.
        samples: All samples: those of training, and the held-out ones.
        recipe: What may be kept.
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
        self._vlm, self._samples, self._warn = vlm, samples, warn
        self._places = part.places(vlm)
        self._most = recipe.batch_size
        self._reuse, self._room = recipe.reuse, recipe.cache_bytes
        self._form: Form | None = None
        self._kept: dict[Numbers, FrozenPrefix | Batch] = {}
        self._prefixes_fit = recipe.reuse

    def losses(self, numbers: Numbers) -> Iterator[torch.Tensor]:
        """The loss of each sample, float32 `[samples]`, in as many pieces as memory needs.

        Differentiate each piece before the next one is asked for.
        """
        for at in range(0, len(numbers), self._most):
            yield self._loss(numbers[at : at + self._most])

    def halve(self, numbers: Numbers, error: Exception) -> None:
        """Make pieces smaller from now on, and keep half as much.

        Raises:
            OutOfMemory: They have one sample each already.
        """
        size = min(self._most, len(numbers))
        if size == 1 and not self._kept:
            raise OutOfMemory(
                "One sample does not fit in memory while the part is trained.",
                subject=self._samples[numbers[0]].id,
                hint="Choose a smaller part, smaller images (--max-pixels), or --dtype bfloat16.",
            ) from error
        self._room = sum(map(_bytes, self._kept.values())) // 2
        self._kept.clear()
        if size > 1:
            self._warn(halved(size))
        self._most = (size + 1) // 2

    def _loss(self, numbers: Numbers) -> torch.Tensor:
        found = self._kept.get(numbers)
        if found is None:
            found = self._keep(numbers)
        if isinstance(found, FrozenPrefix):
            with found.given():
                return answer_loss(self._vlm, found.batch, per_sample=True)
        return answer_loss(self._vlm, found, per_sample=True)

    def _keep(self, numbers: Numbers) -> FrozenPrefix | Batch:
        """What a piece is computed from; kept if there is room."""
        some = [self._samples[number] for number in numbers]
        with torch.inference_mode(False), torch.no_grad():
            batch = self._vlm.encode(some, answers=[str(sample.label) for sample in some])
            found = self._prefix(batch) if self._prefixes_fit else batch
        if isinstance(found, FrozenPrefix) and _bytes(found) > self._room:
            self._prefixes_fit, found = False, batch
        if self._reuse and _bytes(found) <= self._room:
            self._room -= _bytes(found)
            self._kept[numbers] = found
        return found

    def _prefix(self, batch: Batch) -> FrozenPrefix | Batch:
        made = FrozenPrefix(self._vlm, batch, self._places, form=self._form)
        self._form = made.form
        return batch if made.kept == "nothing" else made


def _bytes(kept: FrozenPrefix | Batch) -> int:
    if isinstance(kept, FrozenPrefix):
        return kept.bytes
    tensors = (value for value in kept.inputs.values() if isinstance(value, torch.Tensor))
    return sum(value.nbytes for value in tensors)
