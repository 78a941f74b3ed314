"""Which samples are shown of a feature, and its codes in their rows."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from scipy.sparse import csr_array

from vlmlens.samples import Sample
from vlmlens_plugins.analysis.sae.peaks import Peaks
from vlmlens_plugins.sae import Rows, Sae, TopK, in_pieces

_TOP = 8
_QUANTILES = (0.9, 0.75, 0.5, 0.25, 0.1)
_AT_ONCE = 8 * 2**20


@dataclass(frozen=True, slots=True)
class Shown:
    """A sample that is shown of a feature.

    Args:
        place: Its place among the samples of the peaks.
        why: "top 1", or "quantile 0.5" of the samples in which the feature fires.
        value: The feature's largest code there.
    """

    place: int
    why: str
    value: float


def shown(held: Peaks, number: int, samples: Sequence[Sample]) -> list[Shown]:
    """The samples that are shown of a feature: each of another group.

    Args:
        held: What the features do in the samples that may be shown.
        number: The feature.
        samples: All samples of the run.
    """
    values = held.largest[:, [number]].toarray()[:, 0]
    order = [int(i) for i in (-values).argsort(kind="stable") if values[i] > 0]
    first = {samples[held.samples[i]].split_group: i for i in reversed(order)}
    alone = [i for i in order if first[samples[held.samples[i]].split_group] == i]
    found = {i: f"top {rank + 1}" for rank, i in enumerate(alone[:_TOP])}
    for share in _QUANTILES if alone else ():
        found.setdefault(alone[round((1 - share) * (len(alone) - 1))], f"quantile {share:g}")
    return [Shown(place, why, float(values[place])) for place, why in found.items()]


def row_codes(
    sae: Sae, rows: Rows, samples: Sequence[int], numbers: Sequence[int]
) -> Iterator[tuple[int, csr_array]]:
    """The codes of some features in the rows of samples: (sample, float32 `[rows, numbers]`).

    A few samples are read at a time. Except for top-k, where features compete, only the encoder's
    part of these features is computed.
    """
    part = narrowed(sae, numbers)
    for start, parts in in_pieces(rows, samples, _AT_ONCE):
        some = samples[start : start + len(parts)]
        codes = part.codes(torch.cat(parts)) if part else sae.codes(torch.cat(parts))[:, numbers]
        end = 0
        for sample, own in zip(some, parts, strict=True):
            end += len(own)
            yield sample, codes[end - len(own) : end]


def narrowed(sae: Sae, numbers: Sequence[int]) -> Sae | None:
    """An SAE of some features alone; None for top-k."""
    if isinstance(sae.activation, TopK):
        return None
    kept = torch.tensor(list(numbers), device=sae.W_enc.device)
    own = {name: each[kept] for name, each in sae.tensors().items() if name in _PER_FEATURE}
    activation: Any = sae.activation
    return replace(
        sae,
        W_enc=sae.W_enc[:, kept],
        b_enc=sae.b_enc[kept],
        W_dec=sae.W_dec[kept],
        activation=replace(activation, **own),
    )


_PER_FEATURE = ("threshold", "b_gate", "b_mag", "r_mag")
