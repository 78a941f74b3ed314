"""The loss of answers: how improbable a model finds the tokens that were appended to prompts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch

from vlmlens.errors import CompositionError, SpecError
from vlmlens.passes.modes import inference
from vlmlens.passes.tracing import hooked
from vlmlens.sites import Axis
from vlmlens.tokens import Selector, TokenKind, select

if TYPE_CHECKING:
    from vlmlens.passes.batch import Batch

_BEFORE = Selector.parse("steps")


def answer_loss(vlm: Any, batch: Batch, *, per_sample: bool = False) -> torch.Tensor:
    """The mean negative log-probability of the answers' tokens, in nats.

    It can be differentiated inside `vlmlens.passes.modes.differentiable`. The pass ends at the last
    block, and logits are computed for the rows before answer tokens only.

    Args:
        vlm: The model, a `ModelAdapter`.
        batch: From `encode(samples, answers=...)`.
        per_sample: Whether the mean is taken for each sample alone.

    Returns:
        float32, a single number, or `[samples]`.

    Raises:
        CompositionError: The model has no readout, so it writes no answers.
        SpecError: A sample has no answer.
    """
    found = answer_log_probabilities(vlm, batch)
    if per_sample:
        return torch.stack([-each.mean() for each in found])
    return -torch.cat(found).mean()


def answer_log_probabilities(vlm: Any, batch: Batch) -> list[torch.Tensor]:
    """The log-probability of each token of each sample's answer: float32 `[tokens]`, in nats.

    See `answer_loss`.
    """
    readout = vlm.readout()
    if readout is None:
        raise CompositionError(
            "This model has no readout, so no loss of its answers can be computed.",
            subject="readout",
            hint="Choose a model that writes.",
        )
    written = _answers(batch)
    (site,) = vlm.sites.resolve(readout.site)
    rows: list[torch.Tensor] = []
    with inference():
        with hooked(vlm.module, [site], lambda _, given: rows.append(given), stop=True):
            vlm.forward(batch, logits="none")
        before = select(rows[0], _BEFORE, batch.layouts[Axis.LLM], site)
        logits = readout(torch.cat(list(before)))
        chosen = torch.tensor([token for each in written for token in each], device=logits.device)
        found = logits.log_softmax(-1).gather(-1, chosen[:, None])[:, 0]
    return list(found.split([len(each) for each in written]))


def _answers(batch: Batch) -> list[Sequence[int]]:
    """The tokens of each sample's answer."""
    found: list[Sequence[int]] = []
    for i, sample in enumerate(batch.samples):
        layout = batch.layout(i)
        where = layout.positions(TokenKind.ANSWER)
        if layout.token_ids is None or not len(where):
            raise SpecError(
                f"The sample {sample.id!r} has no answer in this batch.",
                subject=sample.id,
                hint="Make the batch with `encode(samples, answers=[...])`.",
            )
        found.append(layout.token_ids[where].tolist())
    return found
