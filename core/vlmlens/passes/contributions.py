"""Direct logit attribution: what each component adds to the logits at a row.

The residual stream at the last block is the sum of what the embedding, each head and each MLP
wrote. With the scale of the final norm frozen at its value in this pass, a logit is linear in that
sum, so it is the sum of what the components add to it, and of a constant. Elhage et al., "A
Mathematical Framework for Transformer Circuits" (2021).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from vlmlens._display import brief, count
from vlmlens.errors import CompositionError, SpecError
from vlmlens.passes.frozen import Frozen
from vlmlens.passes.modes import differentiable
from vlmlens.passes.residual import residual_parts

if TYPE_CHECKING:
    from vlmlens.passes.batch import Batch


@dataclass(frozen=True, slots=True, eq=False)
class Contributions:
    """What components add to the logits of some tokens, per sample.

    The sum of `added` over components, and `constant`, is `total`.

    Args:
        names: The components; see `Part.name`.
        added: float64 `[components, samples, tokens]`.
        constant: float64 `[samples, tokens]`: the biases of the final norm and the unembedding.
        total: float64 `[samples, tokens]`: the logits before a soft cap, if the model has one.
        logits: float64 `[samples, tokens]`: the logits that the model gives.
    """

    names: Sequence[str]
    added: torch.Tensor
    constant: torch.Tensor
    total: torch.Tensor
    logits: torch.Tensor

    def __repr__(self) -> str:
        return brief(self, "", count(len(self.names), "component"), *self.names[:3])


@dataclass(frozen=True, slots=True, eq=False)
class LogitReader:
    """How the logits of some tokens read the residual stream at a row, with the norm frozen.

    Args:
        frozen: The final norm.
        directions: float64 `[samples, tokens, width]`: the product of a token's with the normed row
            is its logit, before a soft cap, but for its bias.
        constant: float64 `[samples, tokens]`: what the biases of norm and unembedding add.
        total: float64 `[samples, tokens]`: the logits before a soft cap.
        logits: float64 `[samples, tokens]`: the logits.
    """

    frozen: Frozen
    directions: torch.Tensor
    constant: torch.Tensor
    total: torch.Tensor
    logits: torch.Tensor

    @classmethod
    def of(cls, vlm: Any, rows: torch.Tensor, tokens: Sequence[Sequence[int]]) -> LogitReader:
        """The reader of some rows.

        Args:
            vlm: The model, a `ModelAdapter`.
            rows: What the last block gives, a row of each sample, `[samples, width]`.
            tokens: Per sample, token ids; equally many for all.

        Raises:
            CompositionError: The model has no readout, or its final norm cannot be frozen.
            SpecError: The tokens do not fit the rows.
        """
        readout = _readout(vlm)
        if len({len(each) for each in tokens}) > 1 or len(tokens) != len(rows):
            raise SpecError(
                f"{len(tokens)} lists of tokens were given for {len(rows)} rows.",
                subject="tokens",
                hint="Give equally many tokens for each sample, and one row of each.",
            )
        with torch.inference_mode():
            frozen = Frozen.of(lambda each: readout.norm(each).float(), rows)
            logits = readout.unembed(readout.norm(rows)).double()
        known = sorted({token for own in tokens for token in own})
        directions, biases = _unembedding(readout, rows, known)
        places = torch.tensor([[known.index(t) for t in own] for own in tokens])
        chosen = directions[places.to(directions.device)]
        constant = biases[places.to(biases.device)] + chosen @ frozen.bias
        numbers = torch.tensor(tokens, device=logits.device)
        added = torch.einsum("sw,stw->st", frozen(rows[None])[0], chosen)
        return cls(frozen, chosen, constant, added + constant, logits.gather(-1, numbers))

    @property
    def slopes(self) -> torch.Tensor:
        """float64 `[samples, tokens, width]`: times a part of a row, what that adds."""
        own = self.frozen.scale[:, None] * self.frozen.weight * self.directions
        return own - own.mean(-1, keepdim=True) if self.frozen.centres else own

    def added(self, parts: torch.Tensor) -> torch.Tensor:
        """What parts of the rows add to the logits: float64 `[parts, samples, tokens]`.

        Args:
            parts: `[parts, samples, width]`.
        """
        return torch.einsum("psw,stw->pst", self.frozen(parts), self.directions)

    def __repr__(self) -> str:
        return brief(self, "", count(len(self.total), "row"))


def contributions(
    vlm: Any, batch: Batch, tokens: Sequence[Sequence[int]], *, row: str = "last"
) -> Contributions:
    """What each component adds to the logits of some tokens at a row.

    Args:
        vlm: The model, a `ModelAdapter`.
        batch: From `encode`.
        tokens: Per sample, token ids; equally many for all.
        row: A selector that keeps one row of each sample.

    Raises:
        CompositionError: The model has no readout, or its final norm cannot be frozen.
        SpecError: The selector keeps several rows, or the tokens do not fit the samples.
    """
    _readout(vlm)
    parts = [part for _, own in residual_parts(vlm, batch, row) for part in own]
    written = torch.stack([part.written for part in parts])
    rows = written.sum(0).to(getattr(torch, vlm.dtype))
    reader = LogitReader.of(vlm, rows, tokens)
    names = [part.name for part in parts]
    return Contributions(names, reader.added(written), reader.constant, reader.total, reader.logits)


def _readout(vlm: Any) -> Any:
    """The model's `Readout`, which it must have."""
    readout = vlm.readout()
    if readout is None:
        raise CompositionError(
            "The model has no readout, so nothing adds to logits.",
            subject="readout",
            hint="Choose a model that writes.",
        )
    return readout


def _unembedding(
    readout: Any, like: torch.Tensor, tokens: Sequence[int]
) -> tuple[torch.Tensor, torch.Tensor]:
    """Per token, the direction whose product with the normed row is its logit, and the rest.

    The derivative at 0: the unembedding with its scale, and without its soft cap. float64
    `[tokens, width]` and `[tokens]`.
    """
    numbers = torch.tensor(tokens, device=like.device)
    with differentiable():
        zero = torch.zeros_like(like[:1]).requires_grad_()
        if readout.some is None:
            logits = readout.unembed(zero)[0, numbers]
        else:
            logits = readout.some(zero, numbers)[0]
        found = [torch.autograd.grad(one, zero, retain_graph=True)[0][0] for one in logits]
    return torch.stack(found).double(), logits.detach().double()
