"""Reading residual streams through the model's own final norm and unembedding."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from vlmlens.abc import ModelAdapter, Readout, Values
from vlmlens.errors import ReadoutError
from vlmlens.samples import Sample

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float32]
_ELEMENTS = 2**24
_TOLERANCES: Mapping[str, float] = {"float32": 1e-3, "float16": 1e-2, "bfloat16": 5e-2}


@dataclass(frozen=True, slots=True)
class LayerReading:
    """One layer read for all samples; logarithms are natural.

    Args:
        top: int64 `[n, k]`, the most probable tokens, best first.
        top_probability: float32 `[n, k]`.
        entropy: float32 `[n]`, nats.
        answer_probability: float32 `[n]`, of the model's final answer.
        answer_rank: int64 `[n]`, its rank, 1 is best.
        label_probability: float32 `[n]`, of the label's first token; NaN without a label.
        label_rank: int64 `[n]`; 0 without a label.
    """

    top: Ints
    top_probability: Floats
    entropy: Floats
    answer_probability: Floats
    answer_rank: Ints
    label_probability: Floats
    label_rank: Ints


def read_layer(
    readout: Readout, hidden: npt.NDArray[Any], answers: Ints, labels: Ints, *, k: int, norm: bool
) -> LayerReading:
    """Read one layer, a few rows at a time, so that memory never holds all rows' logits.

    Args:
        readout: The model's final norm and unembedding.
        hidden: `[n, width]`, a block's output at the last position.
        answers: int64 `[n]`, tokens of the model's final answers.
        labels: int64 `[n]`, first tokens of the labels; -1 without a label.
        k: How many top tokens to keep.
        norm: Whether the final norm is applied.
    """
    parts = []
    size = _rows_at_once(readout, hidden)
    for start in range(0, len(hidden), size):
        rows = slice(start, start + size)
        logits = _logits(readout, hidden[rows], norm=norm)
        wanted = torch.from_numpy(np.stack([answers[rows], labels[rows]], 1)).to(logits.device)
        parts.append(_read(logits, wanted, min(k, logits.shape[-1])))
    joined = [torch.cat(tensors).cpu().numpy() for tensors in zip(*parts, strict=True)]
    top, top_probability, entropy, probability, rank = joined
    has_label = labels >= 0
    return LayerReading(
        top=top,
        top_probability=top_probability,
        entropy=entropy,
        answer_probability=probability[:, 0],
        answer_rank=rank[:, 0],
        label_probability=np.where(has_label, probability[:, 1], np.nan).astype(np.float32),
        label_rank=np.where(has_label, rank[:, 1], 0),
    )


def top_tokens(readout: Readout, hidden: npt.NDArray[Any]) -> Ints:
    """int64 `[n]`: the token that the model itself would write, from its last block's output."""
    size = _rows_at_once(readout, hidden)
    parts = [
        _logits(readout, hidden[start : start + size], norm=True).argmax(-1)
        for start in range(0, len(hidden), size)
    ]
    tokens: Ints = torch.cat(parts).cpu().numpy()
    return tokens


def settling(top: Ints, answers: Ints) -> Ints:
    """int64 `[n]`: the first layer from which the answer stays top-1 to the end.

    Args:
        top: int64 `[layers, n]`, top-1 tokens.
        answers: int64 `[n]`.

    Returns:
        The layer's number, or the number of layers where it is not top-1 at the last one.

    >>> settling(np.array([[7, 7], [1, 7], [7, 7]]), np.array([7, 7])).tolist()
    [2, 0]
    """
    wrong = top != answers
    backwards = wrong[::-1].argmax(0)
    layers = len(top)
    return np.where(wrong.any(0), layers - backwards, 0).astype(np.int64)


def check_readout(
    vlm: ModelAdapter, readout: Readout, samples: Sequence[Sample], stored: Values
) -> float:
    """Compare the lens at the last block with the model's own logits.

    Args:
        vlm: The model.
        readout: Its final norm and unembedding.
        samples: A few samples.
        stored: The column `<last block>/last` for these samples.

    Returns:
        The largest difference, relative to the largest logit.

    Raises:
        ReadoutError: It is above what the dtype explains.
    """
    own = vlm.forward(vlm.encode(samples), logits="last").logits
    assert own is not None  # noqa: S101
    own = own.float()
    lens = _logits(readout, stored.numpy(), norm=True).to(own.device)
    if lens.shape != own.shape:
        raise _mismatch(readout, f"{tuple(lens.shape)} logits where it has {tuple(own.shape)}")
    error = float((lens - own).abs().max() / own.abs().max().clamp(min=1e-9))
    compute = str(vlm.describe().get("dtype", "float32"))
    allowed = max(_TOLERANCES.get(name, 1e-3) for name in (stored.dtype, compute))
    if not error <= allowed:
        raise _mismatch(readout, f"logits that are off by {error:.2g} (allowed {allowed:g})")
    return error


def _mismatch(readout: Readout, what: str) -> ReadoutError:
    return ReadoutError(
        f"The logit lens at {readout.site} does not give the model's own logits: {what}.",
        subject=readout.site,
        hint="The columns were stored with another checkpoint, dtype or data, or the adapter's "
        "readout is wrong. Extract again with --fresh; if that fails too, report the adapter.",
    )


def _rows_at_once(readout: Readout, hidden: npt.NDArray[Any]) -> int:
    vocabulary = _logits(readout, hidden[:1], norm=True).shape[-1]
    return max(1, _ELEMENTS // int(vocabulary))


def _logits(readout: Readout, hidden: npt.NDArray[Any], *, norm: bool) -> Tensor:
    with torch.inference_mode():
        return readout(torch.from_numpy(np.array(hidden)), norm=norm)


def _read(logits: Tensor, wanted: Tensor, k: int) -> tuple[Tensor, ...]:
    logs = logits.log_softmax(-1)
    probabilities = logs.exp()
    entropy = -(probabilities * logs.clamp(min=-1e4)).sum(-1)
    top, tokens = probabilities.topk(k, -1)
    chosen = logs.gather(1, wanted.clamp(min=0))
    rank = torch.stack([(logs > column[:, None]).sum(-1) for column in chosen.T], 1) + 1
    return tokens, top, entropy, chosen.exp(), rank
