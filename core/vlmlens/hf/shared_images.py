"""Batches in which each distinct image goes through the vision tower once.

For samples with the same images that cannot share a prefix: image tokens attend to the question (a
prefix language model), or the images do not come first. transformers' models accept image features
in place of pixels; the result is the same, bit for bit.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import torch

from vlmlens.errors import SiteShapeError
from vlmlens.hf.layouts import joined, placed_images
from vlmlens.hf.question_rows import with_names
from vlmlens.hf.sample_encoding import SampleEncoding
from vlmlens.hf.shared_prefix import owned
from vlmlens.passes.batch import Batch, Pass
from vlmlens.rows.uploads import uploaded
from vlmlens.samples import Sample
from vlmlens.sites import Axis
from vlmlens.tokens import AxisLayout, TokenLayout

_PIXELS = "pixel_values"
_SEEN = frozenset({Axis.VISION, Axis.PROJECTOR, Axis.SAMPLE})
_READ = frozenset({Axis.LLM, Axis.ENCODER})


class ImageFeatures:
    """The features of some images, computed when they are first asked for.

    Args:
        encoder: A model's `get_image_features`.
        inputs: Its keyword arguments.
        images: How many images these are.
    """

    def __init__(self, encoder: Any, inputs: Mapping[str, Any], images: int) -> None:
        self._encoder = encoder
        self._inputs = inputs
        self._images = images
        self._found: Any = None

    def compute(self) -> Any:
        """The encoder's output, computed once.

        Raises:
            SiteShapeError: It does not have one entry per image.
        """
        if self._found is None:
            found = self._encoder(**self._inputs, return_dict=True)
            if len(found.pooler_output) != self._images:
                raise SiteShapeError(
                    f"{self._images} images gave {len(found.pooler_output)} pieces of features.",
                    subject="images",
                    hint="Run each sample whole: --no-share-prefix.",
                )
            self._found = found
        return self._found

    def of(self, numbers: Sequence[int]) -> dict[str, Any]:
        """The features of images by number, as a model's `mm_encoder_outputs`."""
        output = self.compute()
        found = output.pooler_output
        chosen: dict[str, Any] = {"pooler_output": _rows(found, numbers)}
        deeper = getattr(output, "deepstack_features", None)
        if deeper is not None:
            chosen["deepstack_features"] = [_rows(level, numbers) for level in deeper]
        return {"image": type(output)(**chosen)}


def encode_same_images(
    vlm: SampleEncoding, groups: Sequence[Sequence[Sample]], budget: int | None
) -> Batch:
    """One batch of samples whose distinct images are computed once.

    Args:
        vlm: An adapter whose model accepts `mm_encoder_outputs`.
        groups: Samples with equal images, at least one each.
        budget: About how many tokens one pass of the language model should have.
    """
    opened = vlm.open_images([group[0] for group in groups])
    firsts = vlm.process(vlm.asked([group[0] for group in groups]), opened)
    placed = placed_images(opened, firsts)
    grids = [joined([vlm.patch_grid(image) for image in images]) for images in placed]
    owners = [number for number, group in enumerate(groups) for _ in group]
    samples = [sample for group in groups for sample in group]
    layouts = {
        axis: owned(layout, owners) for axis, layout in vlm.image_layouts(placed, grids).items()
    }
    features = ImageFeatures(*_encoder(vlm, firsts), sum(map(len, opened)))
    passes = [Pass(_SEEN, lambda _: features.compute(), whole=True)]
    parts: list[Mapping[Axis, AxisLayout]] = []
    largest: dict[str, Any] = {}
    for chunk in _chunks(len(samples), int(firsts["input_ids"].shape[1]), budget):
        own = [owners[number] for number in chunk]
        asking = [samples[i] for i in chunk]
        inputs = vlm.process(vlm.asked(asking), [opened[owner] for owner in own])
        vlm.check_lengths(asking, inputs)
        parts.append(vlm.sequence_layouts(inputs, [grids[owner] for owner in own], ()))
        inputs = vlm.placed({k: value for k, value in inputs.items() if k != _PIXELS})
        images = [image.index for owner in own for image in placed[owner]]
        passes.append(Pass(_READ, partial(_read, vlm, inputs, features, images)))
        largest = largest or inputs
    layouts |= {axis: stacked([part[axis] for part in parts]) for axis in parts[0]}
    named = with_names(vlm, layouts, samples, [opened[owner] for owner in owners])
    return Batch(tuple(samples), largest, named, tuple(passes))


def stacked(layouts: Sequence[AxisLayout]) -> AxisLayout:
    """The layouts of several passes as one: the rows of one pass after those of another."""
    first, samples = 0, list[TokenLayout]()
    for layout in layouts:
        samples += [replace(one, rows=one.rows + first) for one in layout.samples]
        first += layout.total
    return AxisLayout(first, samples)


def _rows(found: Any, numbers: Sequence[int]) -> Any:
    if isinstance(found, torch.Tensor):
        return found[uploaded(torch.tensor(list(numbers)), found.device)]
    return [found[number] for number in numbers]


def _read(
    vlm: SampleEncoding,
    inputs: Mapping[str, Any],
    features: ImageFeatures,
    images: Sequence[int],
    head: bool,
) -> None:
    vlm.run_model({**vlm.placed(inputs), "mm_encoder_outputs": features.of(images)}, head=head)


def _encoder(vlm: SampleEncoding, inputs: Mapping[str, Any]) -> tuple[Any, dict[str, Any]]:
    """The function that makes image features, and its arguments."""
    inner = getattr(vlm.module, "model", None)
    owner: Any = inner if hasattr(inner, "get_image_features") else vlm.module
    encoder = vlm.computing(owner.get_image_features)
    taken = inspect.signature(owner.get_image_features).parameters

    def encode(**inputs: Any) -> Any:
        return encoder(**vlm.placed(inputs))

    return encode, vlm.placed({name: inputs[name] for name in inputs if name in taken})


def _chunks(samples: int, tokens: int, budget: int | None) -> Iterator[range]:
    step = samples if budget is None else max(1, budget // tokens)
    for start in range(0, samples, step):
        yield range(start, min(start + step, samples))
