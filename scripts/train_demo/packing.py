"""Several questions on one image in one sequence.

The image prefix comes first, then every question with its answer. A block-diagonal mask and
restarting positions let each question see the prefix and itself only, so that its logits equal
those of an ordinary forward pass.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import LlavaForConditionalGeneration, PreTrainedTokenizerFast

from scripts.train_demo.build import ASSISTANT, GRID, IMAGE_LINE, USER, answer_id
from scripts.train_demo.data import Asked, ask, prior
from vlmlens_plugins.demo.questions import CHOICES
from vlmlens_plugins.demo.scenes import Scene

PATCHES = GRID * GRID
HIDDEN = -1e9


@dataclass(frozen=True)
class Packed:
    """Packed questions of a batch.

    Attributes:
        ids: Token ids of all segments, ``[batch, segments, length]``.
        answer_at: Where in its segment the answer is predicted, ``[batch, segments]``.
        targets: Answer distributions over the vocabulary, ``[batch, segments, vocabulary]``.
        asked: The ``(task, prompt, label)`` of every segment.
    """

    ids: Tensor
    answer_at: Tensor
    targets: Tensor
    asked: list[list[Asked]]


class Packer:
    """Turns scenes into packed questions."""

    def __init__(self, tokenizer: PreTrainedTokenizerFast, presence: int) -> None:
        """Keep the tokenizer and the number of presence questions per image."""
        self.tokenizer = tokenizer
        self.presence = presence
        self.head = self._encode(USER, bos=True)
        self.answers = {w: answer_id(tokenizer, w) for c in CHOICES.values() for w in c}
        self._priors = {task: self._distribution(prior(task)) for task in CHOICES}
        self._segments: dict[tuple[str, bool], list[int]] = {}

    def pack(self, scenes: list[Scene], blank: Tensor, rng: random.Random) -> Packed:
        """Fresh questions for every scene; blank images and surfaces get their prior."""
        ids, targets, everything = [], [], []
        for scene, hidden in zip(scenes, blank.tolist(), strict=True):
            asked = ask(scene, rng, self.presence)
            everything.append(asked)
            for task, prompt, label in asked:
                free = hidden or task == "surface"
                target = self._priors[task] if free else self._distribution({label: 1.0})
                word = rng.choices(*zip(*prior(task).items(), strict=True))[0] if free else label
                ids.append([*self._segment(prompt, True), self.answers[word]])
                targets.append(target)
        shape = (len(scenes), 4 + self.presence)
        padded, answer_at = self._pad(ids)
        return Packed(
            ids=padded.view(*shape, -1),
            answer_at=answer_at.view(shape),
            targets=torch.stack(targets).view(*shape, -1),
            asked=everything,
        )

    def text_only(self, scenes: list[Scene], rng: random.Random) -> tuple[Tensor, Tensor, Tensor]:
        """Questions without an image: ids ``[n, length]``, answer positions and targets."""
        ids, targets = [], []
        for scene in scenes:
            task, prompt, _ = rng.choice(ask(scene, rng, 1))
            word = rng.choices(*zip(*prior(task).items(), strict=True))[0]
            ids.append([*self._segment(prompt, False), self.answers[word]])
            targets.append(self._priors[task])
        return (*self._pad(ids), torch.stack(targets))

    def _segment(self, prompt: str, image: bool) -> list[int]:
        key = (prompt, image)
        if key not in self._segments:
            whole = USER + (IMAGE_LINE if image else "") + prompt + ASSISTANT
            ids = self._encode(whole, bos=True)
            if image:
                cut = len(self.head) + 1
                if ids[:cut] != [*self.head, self.tokenizer.image_token_id]:
                    raise ValueError(f"prompt {prompt!r} does not follow the image prefix")
                ids = ids[cut:]
            self._segments[key] = ids
        return list(self._segments[key])

    def _encode(self, text: str, *, bos: bool) -> list[int]:
        return list(self.tokenizer.encode(text, add_special_tokens=bos))

    def _pad(self, rows: list[list[int]]) -> tuple[Tensor, Tensor]:
        length = max(map(len, rows))
        fill = self.tokenizer.pad_token_id
        padded = [row + [fill] * (length - len(row)) for row in rows]
        return torch.tensor(padded), torch.tensor([len(row) - 2 for row in rows])

    def _distribution(self, weights: dict[str, float]) -> Tensor:
        target = torch.zeros(len(self.tokenizer))
        for word, weight in weights.items():
            target[self.answers[word]] = weight
        return target


def mask_and_positions(prefix: int, segments: int, length: int) -> tuple[Tensor, Tensor]:
    """What is added to attention scores, ``[1, 1, T, T]``, and the positions, ``[1, T]``."""
    owner = torch.cat([torch.full((prefix,), -1), torch.arange(segments).repeat_interleave(length)])
    places = torch.cat([torch.arange(prefix), prefix + torch.arange(length).repeat(segments)])
    order = torch.arange(len(owner))
    same = owner[:, None] == owner[None, :]
    visible = (same | (owner == -1)[None, :]) & (order[None, :] <= order[:, None])
    return torch.where(visible, 0.0, HIDDEN)[None, None], places[None]


def packed_hidden(
    model: LlavaForConditionalGeneration, head: list[int], patches: Tensor, ids: Tensor
) -> Tensor:
    """Final hidden states of all segments.

    Args:
        model: The model.
        head: Token ids before the image.
        patches: Vision-tower states of the patches, ``[batch, 64, vision width]``.
        ids: Segments, ``[batch, segments, length]``.

    Returns:
        Normed hidden states, ``[batch, segments, length, width]``.
    """
    batch, segments, length = ids.shape
    embed = model.get_input_embeddings()
    before = embed(torch.tensor(head)).expand(batch, -1, -1)
    image = model.model.multi_modal_projector(patches)
    inputs = torch.cat([before, image.to(before.dtype), embed(ids.flatten(1))], 1)
    prefix = len(head) + PATCHES
    mask, positions = mask_and_positions(prefix, segments, length)
    hidden: Tensor = model.model.language_model(
        inputs_embeds=inputs,
        attention_mask=mask.expand(batch, -1, -1, -1),
        position_ids=positions,
        use_cache=False,
    ).last_hidden_state
    return hidden[:, prefix:].unflatten(1, (segments, length))
