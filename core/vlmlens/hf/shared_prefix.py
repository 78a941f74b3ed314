"""Batches in which samples with the same images share a prefix: system prompt and images.

The prefix ("beginning") is computed once and fills the KV cache. The rest of each sample (its
"tail") continues from there: the tails of a group stand in one row, and a mask lets each attend to
the beginning and to itself only. In a causal model no position depends on a later one, so the
activations are those of running each sample whole.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import torch
import transformers

from vlmlens.hf.layouts import joined, placed_images
from vlmlens.hf.question_rows import with_names
from vlmlens.hf.recurrent import carries_state
from vlmlens.hf.sample_encoding import SampleEncoding
from vlmlens.passes.batch import Batch, Pass
from vlmlens.passes.compiling import is_compiled
from vlmlens.passes.tracing import end_pass
from vlmlens.samples import Sample
from vlmlens.sites import Axis
from vlmlens.tokens import AxisLayout, TokenLayout


class Filling(transformers.DynamicCache):
    """The KV cache of the beginnings; it can end the pass that fills it after a given layer."""

    last: int | None = None

    def update(self, *args: Any, **kwargs: Any) -> Any:
        """See `transformers.Cache.update`."""
        found = super().update(*args, **kwargs)
        layer = args[2] if len(args) > 2 else kwargs["layer_idx"]
        if layer == self.last:
            end_pass()
        return found

    def stay_plain(self) -> None:
        """Keep this out of compiled code, which cannot end a pass."""
        self.__dict__["update"] = torch.compiler.disable(self.update)


@dataclass(frozen=True)
class Beginnings:
    """Encoded samples, one per group of equal images, cut where the samples of a group differ.

    Args:
        inputs: Of the cut samples, without padding.
        ids: int64 `[groups, prefix]`.
        tails: Per sample of every group, the token ids after the beginning.
        owners: Per sample, the number of its group.
    """

    inputs: Mapping[str, Any]
    ids: torch.Tensor
    tails: Sequence[Sequence[int]]
    owners: Sequence[int]

    @property
    def prefix(self) -> int:
        """Number of tokens in a beginning."""
        return int(self.ids.shape[1])

    @property
    def longest(self) -> int:
        """Number of tokens in the longest tail."""
        return max(len(tail) for tail in self.tails)

    @cached_property
    def starts(self) -> list[int]:
        """Where each tail begins in the row of its group."""
        filled = [0] * len(self.ids)
        starts = []
        for owner, tail in zip(self.owners, self.tails, strict=True):
            starts.append(filled[owner])
            filled[owner] += len(tail)
        return starts

    @property
    def packed(self) -> int:
        """Number of tokens in the longest row of tails."""
        ends = (start + len(tail) for start, tail in zip(self.starts, self.tails, strict=True))
        return max(ends)

    def packed_tails(self, fill: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """The tails of each group in a row, padded on the right.

        Returns:
            Token ids and places after the beginning, int64 `[groups, packed]`; and what each
            position may see, bool `[groups, 1, packed, prefix + packed]`.
        """
        groups = len(self.ids)
        ids = torch.full((groups, self.packed), fill)
        places = torch.zeros_like(ids)
        sees = torch.zeros(groups, 1, self.packed, self.prefix + self.packed, dtype=torch.bool)
        sees[..., : self.prefix] = True
        for owner, start, tail in zip(self.owners, self.starts, self.tails, strict=True):
            stop = start + len(tail)
            ids[owner, start:stop] = torch.tensor(list(tail))
            places[owner, start:stop] = torch.arange(len(tail))
            own = slice(self.prefix + start, self.prefix + stop)
            sees[owner, 0, start:stop, own] = torch.ones(len(tail), len(tail)).tril().bool()
        return ids, places, sees

    def whole(self, fill: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Token ids `[samples, prefix + longest]` and mask of the whole samples."""
        ids = torch.full((len(self.tails), self.longest), fill)
        mask = torch.zeros_like(ids)
        for row, tail in enumerate(self.tails):
            ids[row, : len(tail)] = torch.tensor(list(tail))
            mask[row, : len(tail)] = 1
        heads = self.ids[list(self.owners)].to(ids.device)
        return torch.cat([heads, ids], 1), torch.cat([torch.ones_like(heads), mask], 1)


def encode_beginnings(vlm: SampleEncoding, groups: Sequence[Sequence[Sample]]) -> Batch | None:
    """One batch of samples whose common beginnings are computed once; None if that is not exact.

    Args:
        vlm: An adapter whose language model is causal and whose images precede the question.
        groups: Samples with equal images, at least one each.
    """
    begin = beginnings(vlm, groups)
    if begin is None or not sees_all(vlm, begin.prefix + begin.longest):
        return None
    if vlm.context is not None and begin.prefix + begin.longest > vlm.context:
        return None
    opened = [vlm.opened(group[0]) for group in groups]
    firsts = placed_images(opened, begin.inputs)
    grids = [joined([vlm.patch_grid(image) for image in group]) for group in firsts]
    ids, mask = begin.whole(vlm.pad_token_id)
    whole = {**begin.inputs, "input_ids": ids, "attention_mask": mask}
    of_samples = [grids[owner] for owner in begin.owners]
    layouts = {
        axis: owned(layout, begin.owners)
        for axis, layout in vlm.image_layouts(firsts, grids).items()
    }
    sequence = vlm.sequence_layouts(whole, of_samples, ())
    layouts |= {axis: shared_rows(layout, begin) for axis, layout in sequence.items()}
    samples = tuple(sample for group in groups for sample in group)
    inputs = vlm.placed(begin.inputs)
    named = with_names(vlm, layouts, samples, [opened[owner] for owner in begin.owners])
    return Batch(samples, inputs, named, _passes(vlm, begin, inputs))


def _passes(vlm: SampleEncoding, begin: Beginnings, inputs: Mapping[str, Any]) -> tuple[Pass, ...]:
    """The beginnings, which fill a cache, then all tails."""
    module: Any = vlm.module
    cache = Filling()
    if is_compiled(module):
        cache.stay_plain()

    def fill(last: int) -> None:
        cache.last = last
        first(False)

    def first(head: bool) -> None:
        model = module if head else module.model
        model(**vlm.placed(inputs), past_key_values=cache, use_cache=True)

    def then(head: bool) -> None:
        cache.last = None
        ids, places, sees = begin.packed_tails(vlm.pad_token_id)
        hidden = torch.finfo(module.dtype).min
        mask = torch.zeros(sees.shape, dtype=module.dtype).masked_fill(~sees, hidden)
        tails = {"input_ids": ids, "attention_mask": mask}
        tails["position_ids"] = vlm.tail_positions(places + begin.prefix, begin.inputs)
        model = module if head else module.model
        model(**vlm.placed(tails), past_key_values=cache, use_cache=True)

    rows = begin.ids.numel()
    return Pass(frozenset(Axis), first, rows, fill), Pass(frozenset({Axis.LLM}), then)


def sees_all(vlm: SampleEncoding, length: int) -> bool:
    """Whether tokens attend to all earlier ones in a sample of that length, and take our mask.

    A state that is carried along the sequence heeds no mask: it mixes tails that share a row.
    """
    text = vlm.config.get_text_config()
    windows = [getattr(text, name, None) for name in ("sliding_window", "attention_chunk_size")]
    narrow = any(window is not None and window < length for window in windows)
    masked = text._attn_implementation in {"sdpa", "eager"} and not carries_state(vlm.module)
    return masked and not narrow


def beginnings(vlm: SampleEncoding, groups: Sequence[Sequence[Sample]]) -> Beginnings | None:
    """The common beginning of each group's samples, encoded; None if they have none.

    Args:
        vlm: The model.
        groups: Samples with equal images.
    """
    texts = [[_cut(vlm, sample) for sample in group] for group in groups]
    heads = [{None if text is None else text[0] for text in group} for group in texts]
    if any(len(found) != 1 or None in found for found in heads):
        return None
    tails = [[_ids_after_image(vlm, text[1]) for text in group if text] for group in texts]
    firsts = [group[0] for group in groups]
    inputs = vlm.process(vlm.asked(firsts), vlm.open_images(firsts))
    rows = [
        ids[mask.bool()]
        for ids, mask in zip(inputs["input_ids"], inputs["attention_mask"], strict=True)
    ]
    lengths = {len(row) - len(group[0]) for row, group in zip(rows, tails, strict=True)}
    if len(lengths) != 1 or min(lengths) < 1:
        return None
    prefix = lengths.pop()
    for row, group in zip(rows, tails, strict=True):
        split_elsewhere = row[prefix:].tolist() != list(group[0])
        if split_elsewhere or vlm.image_token_id in group[0] or not all(group):
            return None
    cut = {
        name: _cut_rows(value, inputs["attention_mask"], prefix) for name, value in inputs.items()
    }
    owners = [number for number, group in enumerate(groups) for _ in group]
    return Beginnings(cut, cut["input_ids"], [tail for group in tails for tail in group], owners)


def shared_rows(layout: AxisLayout, begin: Beginnings) -> AxisLayout:
    """The layout of whole samples, moved to rows in which each beginning stands once and first.

    Args:
        layout: Of `Beginnings.whole`: rows of `[samples, prefix + longest]`.
        begin: The beginnings.
    """
    wide, first = begin.prefix + begin.longest, len(begin.ids) * begin.prefix
    owners, starts = np.asarray(begin.owners), np.asarray(begin.starts)

    def moved(sample: TokenLayout) -> TokenLayout:
        number, place = np.divmod(sample.rows, wide)
        in_beginning = owners[number] * begin.prefix + place
        in_row = starts[number] + place - begin.prefix
        in_tail = first + owners[number] * begin.packed + in_row
        rows = np.where(place < begin.prefix, in_beginning, in_tail)
        return replace(sample, rows=rows)

    total = first + len(begin.ids) * begin.packed
    return AxisLayout(total, [moved(sample) for sample in layout.samples])


def owned(layout: AxisLayout, owners: Sequence[int]) -> AxisLayout:
    """The layout of groups, repeated per sample: each sample has the rows of its group."""
    others = tuple(owned(other, owners) for other in layout.others)
    return AxisLayout(layout.total, [layout.samples[owner] for owner in owners], others)


def _cut(vlm: SampleEncoding, sample: Sample) -> tuple[str, str] | None:
    """The templated text up to and including the last image or the video, and the rest."""
    text = vlm.prompt_text(sample)
    head, found, tail = text.rpartition(vlm.mark(vlm.shown(sample)))
    return (head + found, tail) if found else None


def _ids_after_image(vlm: SampleEncoding, text: str) -> list[int]:
    """Token ids of a text after an image or a video.

    It is tokenized behind the image token, so that it does not count as the start of a text.
    """
    mark: str = vlm.tokenizer.convert_ids_to_tokens(vlm.image_token_id)
    ids = vlm.tokenizer(mark + text, add_special_tokens=False)["input_ids"]
    return list(ids[1:]) if ids and ids[0] == vlm.image_token_id else []


def _cut_rows(value: Any, mask: torch.Tensor, prefix: int) -> Any:
    """The first `prefix` positions without padding, of tensors aligned with the tokens."""
    if not (isinstance(value, torch.Tensor) and value.shape[:2] == mask.shape[:2]):
        return value
    if value.dim() != 2:
        return value
    return torch.stack([row[keep][:prefix] for row, keep in zip(value, mask.bool(), strict=True)])
