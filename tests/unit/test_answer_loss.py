"""The loss of answers: equal to that of all logits, and to nothing else."""

from __future__ import annotations

import pytest
import torch

from vlmlens.errors import CompositionError, SpecError
from vlmlens.passes.answer_loss import answer_log_probabilities, answer_loss
from vlmlens.passes.batch import Batch
from vlmlens.passes.modes import differentiable
from vlmlens.samples import Sample
from vlmlens.testing.model import TinyLlava, tiny_model
from vlmlens.testing.tiny import picture
from vlmlens.tokens import TokenKind

ANSWERS = ("red", "a green thing")


@pytest.fixture(scope="module")
def vlm() -> TinyLlava:
    return tiny_model()


@pytest.fixture(scope="module")
def batch(vlm: TinyLlava) -> Batch:
    prompts = ("What is this?", "Name the colour of the largest thing, please:")
    shown = [Sample(f"s{i}", text, (picture(32, 32, seed=i),)) for i, text in enumerate(prompts)]
    return vlm.encode(shown, answers=ANSWERS)


def from_all_logits(vlm: TinyLlava, batch: Batch) -> list[torch.Tensor]:
    """The log-probabilities, one token after the other."""
    logits = vlm.forward(batch, logits="all").logits
    assert logits is not None
    flat, found = logits.flatten(0, 1).double().log_softmax(-1), []
    for i in range(len(batch)):
        layout = batch.layout(i)
        assert layout.token_ids is not None
        where = layout.positions(TokenKind.ANSWER)
        rows = [flat[layout.rows[at - 1], layout.token_ids[at]] for at in where]
        found.append(torch.stack(rows))
    return found


def test_it_is_that_of_all_logits(vlm: TinyLlava, batch: Batch) -> None:
    expected, found = from_all_logits(vlm, batch), answer_log_probabilities(vlm, batch)
    for one, other, answer in zip(expected, found, ANSWERS, strict=True):
        assert len(one) == len(vlm.answer_ids(answer))
        assert torch.allclose(one.float(), other, atol=1e-4)
    means = torch.stack([-one.mean() for one in expected]).float()
    assert torch.allclose(answer_loss(vlm, batch, per_sample=True), means, atol=1e-4)
    assert float(answer_loss(vlm, batch)) == pytest.approx(float(-torch.cat(expected).mean()), 1e-5)
    assert abs(float(means.mean()) - float(answer_loss(vlm, batch))) > 1e-3  # not the same mean


def test_gradients_are_those_of_all_logits(vlm: TinyLlava, batch: Batch) -> None:
    weight = vlm.module.get_submodule("model.multi_modal_projector.linear_1").weight
    weight.requires_grad_(True)
    try:
        with differentiable():
            (found,) = torch.autograd.grad(answer_loss(vlm, batch), [weight])
            whole = -torch.cat(from_all_logits(vlm, batch)).mean()
            (expected,) = torch.autograd.grad(whole, [weight])
        assert not answer_loss(vlm, batch).requires_grad
    finally:
        weight.requires_grad_(False)
    assert float(expected.abs().max()) > 0
    assert float((found - expected).abs().max()) <= 1e-5 * float(expected.abs().max())


def test_a_batch_without_answers_is_refused(vlm: TinyLlava, batch: Batch) -> None:
    with pytest.raises(SpecError, match="'s0' has no answer"):
        answer_loss(vlm, vlm.encode(batch.samples))
    with pytest.raises(SpecError, match="'s1' has no answer"):
        answer_loss(vlm, vlm.encode(batch.samples, answers=["red", []]))


def test_a_model_that_writes_nothing_is_refused(
    vlm: TinyLlava, batch: Batch, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(TinyLlava, "readout", lambda self: None)
    with pytest.raises(CompositionError, match="no readout"):
        answer_loss(vlm, batch)
