"""Maps from attention, computed again from the weights that transformers gives and autograd."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch

from vlmlens.errors import CompositionError
from vlmlens.passes.attending import Attention
from vlmlens.passes.contributions import contributions
from vlmlens.passes.gradients import logit_difference
from vlmlens.samples import Sample
from vlmlens.sites import Axis
from vlmlens.testing.model import tiny_model
from vlmlens.testing.tiny import picture
from vlmlens.tokens import TokenKind
from vlmlens_adapter_paligemma.checks import PaliGemma2Checks
from vlmlens_plugins.analysis._maps import METHODS
from vlmlens_plugins.analysis._maps.attending import read_through
from vlmlens_plugins.analysis._maps.attention import Weights
from vlmlens_plugins.analysis._maps.relevance import Relevance, related, weight_slopes
from vlmlens_plugins.analysis._maps.rollout import Rollout, rolled
from vlmlens_plugins.analysis._maps.value_weighted import Written

Array = npt.NDArray[np.float64]
TOKENS = [[5, 9], [70, 20]]
NEAR = 1e-5


def samples() -> list[Sample]:
    """Two of unlike length, so that one is padded."""
    return [
        Sample("a", "What is this?", (picture(32, 32, seed=1),)),
        Sample("b", "Name the colour of it, please:", (picture(32, 32, seed=2),)),
    ]


@cache
def by_autograd() -> list[tuple[Array, Array, Any]]:
    """Per sample: weights and their gradients `[blocks, heads, n, n]`, and its layout.

    From the eager model, which gives its weights as a part of the graph.
    """
    vlm = tiny_model("eager")
    batch = vlm.encode(samples())
    with torch.enable_grad():
        pixels: Any = batch.inputs["pixel_values"]
        pixels = pixels.clone().requires_grad_()  # the parameters are frozen
        out = vlm.module(**{**batch.inputs, "pixel_values": pixels}, output_attentions=True)
        logits = out.logits.reshape(-1, out.logits.shape[-1])
        layouts = batch.layouts[Axis.LLM].samples
        ends = logits[[int(layout.rows[-1]) for layout in layouts]]
        metric = logit_difference([a for a, _ in TOKENS], [b for _, b in TOKENS])(ends).sum()
        slopes = torch.autograd.grad(metric, out.attentions)
    found = []
    for number, layout in enumerate(layouts):
        own = layout.rows % out.attentions[0].shape[-1]
        weights, grads = (
            np.stack([each[number].detach().double().numpy()[:, own][:, :, own] for each in some])
            for some in (out.attentions, slopes)
        )
        found.append((weights, grads, layout))
    return found


def read(reader: Any, vlm: Any, *more: Any, given: list[Sample] | None = None) -> Any:
    batch = vlm.encode(samples() if given is None else given)
    made = reader(vlm, batch, *more) if more else reader(batch)
    read_through(vlm, batch, [made])
    return made


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_weights_are_those_of_transformers(attention: str) -> None:
    made = read(Weights, tiny_model(attention))
    for number, (weights, _, _) in enumerate(by_autograd()):
        for block, own in zip(made.blocks[number], weights, strict=True):
            np.testing.assert_allclose(block, own[:, -1], atol=NEAR)
        np.testing.assert_allclose(made.whole(number), weights[:, :, -1].mean((0, 1)), atol=NEAR)


def test_the_gradient_at_weights_comes_from_the_gradient_at_what_heads_give() -> None:
    """Under sdpa, where no weights are in the graph; grouped values must be those of the head."""
    vlm = tiny_model("sdpa")
    batch = vlm.encode(samples())
    made = Relevance(vlm, batch, TOKENS)
    attentions = vlm.attention(batch, ["llm.block.*.attn"])
    for number, (weights, slopes, layout) in enumerate(by_autograd()):
        for block, (name, own) in enumerate(attentions.items()):
            given = made._slopes[name][number].double()
            split = given.unflatten(-1, (4, -1)).movedim(1, 0)
            values = own.of(layout).values.double()
            causal = weights[block] > 0
            found = weight_slopes(split, values).numpy()
            np.testing.assert_allclose(found[causal], slopes[block][causal], 1e-5, 1e-5)
            assert np.abs(slopes[block][causal]).max() > 1e-3
            wrong = weight_slopes(split, values[[0, 2, 1, 3]]).numpy()
            assert np.abs((wrong - slopes[block])[causal]).max() > 1e-3


def test_relevance_by_hand() -> None:
    made = read(Relevance, tiny_model("sdpa"), TOKENS)
    for number, (weights, slopes, _) in enumerate(by_autograd()):
        far = np.eye(weights.shape[-1])
        for block, (own, slope) in enumerate(zip(weights, slopes, strict=True)):
            mean = np.zeros_like(far)
            for head in range(len(own)):
                mean += np.maximum(own[head] * slope[head], 0) / len(own)
            far = far + mean @ far
            np.testing.assert_allclose(made.blocks[number][block][0], far[-1], atol=1e-6)
        assert np.abs(far[-1, :-1]).max() > 1e-5


def test_rollout_by_hand() -> None:
    made = read(Rollout, tiny_model("sdpa"))
    for number, (weights, _, _) in enumerate(by_autograd()):
        far = np.eye(weights.shape[-1])
        for block, own in enumerate(weights):
            far = (0.5 * own.mean(0) + 0.5 * np.eye(len(far))) @ far
            np.testing.assert_allclose(made.blocks[number][block][0], far[-1], atol=NEAR)
        assert made.whole(number).sum() == pytest.approx(1)


def test_closed_forms() -> None:
    """Rollout of the identity is the identity; even weights mix; no gradient leaves R as it is."""
    n, one = 5, torch.eye(5, dtype=torch.float64)
    assert torch.equal(rolled(one.expand(3, n, n), one), one)
    even = torch.full((2, n, n), 1 / n, dtype=torch.float64)
    twice = rolled(even, rolled(even, one))
    torch.testing.assert_close(twice, 0.25 * one + 0.75 * even[0])
    torch.testing.assert_close(twice.sum(-1), torch.ones(n, dtype=torch.float64))
    ones = torch.ones(2, n, 1, dtype=torch.float64)  # a gradient of 1 at each weight
    assert torch.equal(related(even, torch.zeros_like(ones), ones, one), one)
    torch.testing.assert_close(related(even, -ones, ones, one), one)
    torch.testing.assert_close(related(even, ones, ones, one), one + even[0])


@pytest.mark.parametrize("family", ["llama", "gemma 2"])
def test_what_heads_write_from_each_row_sums_to_what_they_add(family: str) -> None:
    """Gemma 2 has a norm behind the attention, and its final norm multiplies by 1 + w."""
    vlm: Any = tiny_model("sdpa") if family == "llama" else PaliGemma2Checks().load()
    batch = vlm.encode(samples())
    made = Written(vlm, batch, TOKENS)
    read_through(vlm, batch, [made])
    added = contributions(vlm, batch, TOKENS)
    by_name = dict(zip(added.names, (added.added[..., 0] - added.added[..., 1]), strict=True))
    for number in range(2):
        for block, own in enumerate(made.blocks[number]):
            for head, rows in enumerate(own):
                expected = float(by_name[f"llm.block.{block}.attn.heads[{head}]"][number])
                assert rows.sum() == pytest.approx(expected, abs=1e-6)
                assert abs(expected) > 1e-6


def test_one_patch_by_hand() -> None:
    """A_ij (v_j W_O) . u for a single answer, each factor looked up in the weights."""
    vlm: Any = tiny_model("sdpa")
    batch = vlm.encode(samples()[:1])
    made = Written(vlm, batch, [[5]])
    read_through(vlm, batch, [made])
    (layout,) = batch.layouts[Axis.LLM].samples
    patch = int(layout.positions(TokenKind.IMAGE)[7])
    text = vlm.module.get_submodule("model.language_model")
    row = vlm.trace(batch, ["llm.block.1"]).select("llm.block.1/last")[0].double()
    scale = text.norm.weight.double() / (row.square().mean() + text.norm.variance_epsilon).sqrt()
    unembedded = vlm.module.get_submodule("lm_head").weight.double()[5] * scale
    own = vlm.attention(batch, ["llm.block.1.attn"])["llm.block.1.attn"].of(layout)
    for head in range(4):
        columns = text.layers[1].self_attn.o_proj.weight.double()[:, 8 * head : 8 * head + 8]
        written = columns @ own.values[head, patch].double()
        expected = float(own.weights[head, -1, patch] * (written @ unembedded))
        assert made.blocks[0][1][head][patch] == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("name", ["attention", "rollout", "relevance", "value-weighted"])
def test_a_padded_batch_gives_what_single_samples_give(name: str) -> None:
    vlm = tiny_model("sdpa")
    together = METHODS[name](vlm, vlm.encode(samples()), TOKENS)
    for number, sample in enumerate(samples()):
        (alone,) = METHODS[name](vlm, vlm.encode([sample]), TOKENS[number : number + 1])
        assert len(alone.values) == 16
        assert np.ptp(alone.values) > 1e-6
        np.testing.assert_allclose(together[number].values, alone.values, atol=NEAR)


def test_weights_of_a_pass_without_a_padding_mask_are_told_apart() -> None:
    """What is compared above is not the same with and without the mask."""
    vlm = tiny_model("eager")
    batch = vlm.encode(samples())
    mask = batch.inputs["attention_mask"]
    seen = vlm.attention(batch, ["llm.block.0.attn"])["llm.block.0.attn"]
    batch.inputs["attention_mask"] = torch.ones_like(mask)  # type: ignore[index]
    blind = vlm.attention(batch, ["llm.block.0.attn"])["llm.block.0.attn"]
    layout = batch.layouts[Axis.LLM].samples[0]
    assert not torch.allclose(seen.of(layout).weights, blind.of(layout).weights, atol=1e-3)


def test_heads_that_give_something_else_are_refused() -> None:
    vlm = tiny_model("sdpa")
    batch = vlm.encode(samples()[:1])
    (layout,) = batch.layouts[Axis.LLM].samples
    (site,) = vlm.sites.resolve("llm.block.0.attn")
    own = vlm.attention(batch, [site])[site.name].of(layout)
    gated = Attention(own.weights, own.values * 2)
    for made in (Relevance(vlm, batch, [[5]]), Written(vlm, batch, [[5]])):
        with pytest.raises(CompositionError, match="not the sum of attention weights times"):
            made.see(site, 0, gated)


def test_a_sample_without_an_image_is_refused() -> None:
    vlm = tiny_model("sdpa")
    batch = vlm.encode([Sample("t", "What is this?")])
    for name, method in METHODS.items():
        if name in ("attention", "rollout", "relevance", "value-weighted"):
            with pytest.raises(CompositionError, match="Image rows are not among those"):
                method(vlm, batch, [[5]])
