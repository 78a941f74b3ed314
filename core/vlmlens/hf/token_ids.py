"""Works on token tensors: kinds of positions, appended answers, padding."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from vlmlens.tokens import TokenKind


def token_kinds(
    input_ids: torch.Tensor,
    attention_mask: torch.Tensor,
    image: torch.Tensor,
    special_ids: AbstractSet[int],
    answer_lengths: Sequence[int] = (),
) -> npt.NDArray[np.uint8]:
    """uint8 `[samples, positions]`: a `TokenKind` per position; padding is SPECIAL.

    Args:
        input_ids: int64 `[samples, positions]`.
        attention_mask: `[samples, positions]`, 0 at padding.
        image: bool `[samples, positions]`, the positions that image features replace.
        special_ids: Ids of special tokens: neither text nor image.
        answer_lengths: Per sample, how many of its last tokens are an appended answer.
    """
    ids = input_ids.cpu().numpy()
    mask = attention_mask.cpu().numpy().astype(bool)
    kinds = np.full(ids.shape, TokenKind.TEXT, np.uint8)
    kinds[np.isin(ids, sorted(special_ids)) | ~mask] = TokenKind.SPECIAL
    kinds[image.cpu().numpy() & mask] = TokenKind.IMAGE
    for i, length in enumerate(answer_lengths):
        own = np.flatnonzero(mask[i])
        kinds[i, own[len(own) - length :]] = TokenKind.ANSWER
    return kinds


def append_answers(
    inputs: Mapping[str, Any], answers: Sequence[Sequence[int]], pad_token_id: int, *, side: str
) -> dict[str, Any]:
    """The inputs with answer tokens after each sample's prompt, padded again.

    Every tensor that is aligned with the tokens grows. Type ids of answers are 0, as for text.

    Args:
        inputs: With `input_ids` and `attention_mask`, `[samples, positions]`.
        answers: Token ids per sample; some may have none.
        pad_token_id: Pads `input_ids`.
        side: "left" or "right".
    """
    mask = inputs["attention_mask"].bool()
    grown = dict(inputs)
    for name, value in inputs.items():
        if not (isinstance(value, torch.Tensor) and value.shape == mask.shape):
            continue
        rows = [
            torch.cat([row[keep], _continuation(name, answer, row)])
            for row, keep, answer in zip(value, mask, answers, strict=True)
        ]
        grown[name] = pad_rows(rows, pad_token_id if name == "input_ids" else 0, side=side)
    return grown


def padded_left(inputs: Mapping[str, Any], pad_token_id: int, multiple: int) -> dict[str, Any]:
    """The inputs with each sample's tokens at the end of its row.

    Args:
        inputs: With `input_ids` and `attention_mask`, `[samples, positions]`.
        pad_token_id: Pads `input_ids`.
        multiple: The length of the rows becomes a multiple of it.
    """
    mask = inputs["attention_mask"].bool()
    length = -(-int(mask.sum(1).max()) // multiple) * multiple
    moved = dict(inputs)
    for name, value in inputs.items():
        if not (isinstance(value, torch.Tensor) and value.shape == mask.shape):
            continue
        moved[name] = value.new_full((len(mask), length), pad_token_id * (name == "input_ids"))
        for new, row, keep in zip(moved[name], value, mask, strict=True):
            new[length - int(keep.sum()) :] = row[keep]
    return moved


def pad_rows(rows: Sequence[torch.Tensor], fill: int, *, side: str) -> torch.Tensor:
    """Rows of different lengths as one tensor `[rows, longest]`."""
    return torch.nn.utils.rnn.pad_sequence(
        list(rows), batch_first=True, padding_value=fill, padding_side=side
    )


def one_batch(
    parts: Sequence[Mapping[str, Any]], frames: str, axis: int, pad_token_id: int, *, side: str
) -> dict[str, Any]:
    """The inputs of single samples with videos as one batch.

    Args:
        parts: The inputs of each sample: frames, and rows `[1, positions]`.
        frames: Name of the frames, which follow each other, as those of one video.
        axis: Along which they do.
        pad_token_id: Pads `input_ids`.
        side: "left" or "right".
    """
    joined: dict[str, Any] = {}
    for name in dict.fromkeys(name for part in parts for name in part):
        found = [part[name] for part in parts if name in part]
        if name == frames:
            joined[name] = torch.cat(found, axis)
        else:
            fill = pad_token_id if name == "input_ids" else 0
            joined[name] = pad_rows([one[0] for one in found], fill, side=side)
    return joined


def counted_positions(attention_mask: torch.Tensor, length: int) -> torch.Tensor:
    """int64 `[samples, length]`: how many tokens precede each of the last positions.

    Args:
        attention_mask: `[samples, positions]`, 0 at padding.
        length: How many of the last positions are asked for.
    """
    return (attention_mask.long().cumsum(-1) - 1).clamp(min=0)[:, -length:]


def _continuation(name: str, answer: Sequence[int], like: torch.Tensor) -> torch.Tensor:
    if name == "input_ids":
        return torch.tensor(list(answer), dtype=like.dtype)
    fill = 1 if name == "attention_mask" else 0
    return torch.full((len(answer),), fill, dtype=like.dtype)


def ids_after(
    head: str, answer: str, ids_of: Callable[[str], list[int]], special_ids: AbstractSet[int]
) -> list[int]:
    """The ids of an answer, as the model would write it after a prompt.

    A space separates prompt and answer, unless the prompt ends in white space or in a special
    token.

    Args:
        head: The prompt in the chat template.
        answer: Without the space before it.
        ids_of: The tokenizer, without special tokens of its own.
        special_ids: Ids of special tokens.
    """
    before = ids_of(head)
    glued = head[-1:].isspace() or (bool(before) and before[-1] in special_ids)
    text = answer if glued else f" {answer}"
    after = ids_of(head + text)
    return after[len(before) :] if after[: len(before)] == before else ids_of(text)
