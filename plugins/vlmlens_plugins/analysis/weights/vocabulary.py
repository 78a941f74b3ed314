"""What heads and directions write towards the unembedding, from the weights alone."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch

from vlmlens.abc import ModelAdapter, Readout
from vlmlens_plugins.analysis.weights.calling import in_float32
from vlmlens_plugins.analysis.weights.factors import eigenvalue_score
from vlmlens_plugins.analysis.weights.norms import Norm, read_norm

_SMALL = 0.1
"""Rows that the unembedding is given have this length: a soft cap is linear there."""
_SHUFFLES = 19
_TOP = 3
_ROWS = 32


@dataclass(frozen=True)
class Words:
    """The embedding and the unembedding of a model, with the weight of the final norm.

    Args:
        vlm: The model.
        readout: Its final norm and unembedding.
        fold: Whether the final norm's weight is folded in.
    """

    vlm: ModelAdapter
    readout: Readout
    fold: bool = True

    @classmethod
    def of(cls, vlm: ModelAdapter, *, fold: bool) -> Words | None:
        """None where the model has no embedding and unembedding, or they are not in memory."""
        readout = vlm.readout()
        if readout is None or not has_words(vlm):
            return None
        found = cls(vlm, readout, fold)
        return None if found._embedding.weight.is_meta else found

    @cached_property
    def size(self) -> int:
        """How many tokens have both an embedding and a logit."""
        rows = len(self._embedding.weight)
        return min(rows, self.logits(self.embed([0])).shape[-1])

    def embed(self, tokens: Sequence[int]) -> torch.Tensor:
        """float32 `[tokens, width]`: embeddings."""
        ids = torch.tensor([list(tokens)], device=self._embedding.weight.device)
        with torch.no_grad():
            found: torch.Tensor = self._embedding(ids)[0].float()
        return found

    def logits(self, directions: torch.Tensor, tokens: torch.Tensor | None = None) -> torch.Tensor:
        """float32 `[directions, tokens]`: what directions of the residual stream add to logits.

        Up to one factor, which the final norm would choose; without what the logits are at rest.

        Args:
            directions: `[directions, width]`.
            tokens: int64; None: the whole vocabulary.
        """
        rows = directions if self._norm is None else self._norm.after(directions)
        factor = _SMALL / rows.norm(dim=-1).max().clamp(min=1e-30)
        scaled = torch.cat([torch.zeros_like(rows[:1]), rows * factor])
        with torch.no_grad():
            if tokens is None or self.readout.some is None:
                found = self.readout.unembed(scaled).float()
                found = found if tokens is None else found[:, tokens.to(found.device)]
            else:
                found = self.readout.some(scaled, tokens).float()
        apart: torch.Tensor = (found[1:] - found[:1]) / factor
        return apart

    def copying(
        self, value: torch.Tensor, output: torch.Tensor, tokens: Sequence[int], seed: int
    ) -> list[dict[str, float | None]]:
        """Per head, whether it raises the logits of the tokens that it reads.

        "copying" is the sum of the eigenvalues of `unembedding @ OV @ embedding` over the sum of
        their sizes, 1 where all are positive; logits are less their mean over tokens.
        "copying_shuffled" is the mean size of the same with the tokens of the two ends shuffled,
        and "copying_p" how often it is as large.

        Args:
            value: `[heads, size, width]`.
            output: Likewise.
            tokens: The tokens of both ends.
            seed: Of the shuffles.
        """
        heads, size = value.shape[:2]
        ids = torch.tensor(list(tokens))
        embedded = self.embed(tokens).to(value)
        read = torch.einsum("hsw,tw->hst", value, embedded)
        wrote = self.logits(output.flatten(0, 1), ids).to(value).unflatten(0, (heads, size))
        random = torch.Generator().manual_seed(seed)
        orders = [torch.arange(len(ids))]
        orders += [torch.randperm(len(ids), generator=random) for _ in range(_SHUFFLES)]
        scores = [_scores(read[:, :, order.to(read.device)], wrote) for order in orders]
        return [_beside([each[head] for each in scores]) for head in range(heads)]

    def written(self, directions: torch.Tensor, own: Sequence[int]) -> list[list[dict[str, Any]]]:
        """Which tokens directions write most, and how much of some tokens of one's own.

        Args:
            directions: `[groups, directions, width]`.
            own: The token that stands for each direction of a group.

        Returns:
            Per group and direction: "top", tokens; "rank" of the own token, from 1; "own", its
            logit in standard deviations over the vocabulary. Empty for a direction of zeros.
        """
        found = []
        for group in directions:
            answers: list[dict[str, Any]] = []
            for start in range(0, len(group), _ROWS):
                part = group[start : start + _ROWS]
                logits = self.logits(part)[:, : self.size]
                answers += [
                    _answer(row, token) if bool(direction.any()) else {}
                    for row, token, direction in zip(
                        logits, own[start : start + _ROWS], part, strict=True
                    )
                ]
            found.append(answers)
        return found

    @property
    def _embedding(self) -> Any:
        return self.vlm.module.get_submodule(self.vlm.sites.canonical["llm.embed"].path)

    @cached_property
    def _norm(self) -> Norm | None:
        if not self.fold:
            return None
        site = self.vlm.sites.canonical.get("llm.norm")
        module = None if site is None else self.vlm.module.get_submodule(site.path)
        weight = self.embed([0])
        with torch.no_grad(), nullcontext() if module is None else in_float32([module]):
            return read_norm(self.readout.norm, weight.shape[-1], weight.device)


def has_words(vlm: ModelAdapter) -> bool:
    """Whether a model, or its skeleton, has an embedding and an unembedding."""
    return "llm.embed" in vlm.sites.canonical and vlm.readout() is not None


def _scores(read: torch.Tensor, wrote: torch.Tensor) -> list[float | None]:
    """Per head; what is added to all logits alike changes no probability, and is left out."""
    apart = wrote - wrote.mean(-1, keepdim=True)
    small = torch.einsum("hst,hut->hsu", read, apart)
    scales = (read.norm(dim=(1, 2)) * wrote.norm(dim=(1, 2))).tolist()
    return [eigenvalue_score(each, scale) for each, scale in zip(small, scales, strict=True)]


def _beside(scores: Sequence[float | None]) -> dict[str, float | None]:
    own, *shuffled = scores
    sizes = [abs(each) for each in shuffled if each is not None]
    if own is None:
        return {"copying": None, "copying_shuffled": None, "copying_p": None}
    reached = sum(each >= abs(own) - 1e-9 for each in sizes)
    return {
        "copying": own,
        "copying_shuffled": sum(sizes) / max(1, len(sizes)),
        "copying_p": (1 + reached) / (1 + len(shuffled)),
    }


def _answer(logits: torch.Tensor, token: int) -> dict[str, Any]:
    own = logits[token]
    return {
        "top": logits.topk(min(_TOP, len(logits))).indices.tolist(),
        "rank": 1 + int((logits > own).sum()),
        "own": float((own - logits.mean()) / logits.std().clamp(min=1e-30)),
    }
