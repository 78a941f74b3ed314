"""Attention of every head, read with sdpa and with eager attention."""

from __future__ import annotations

import pytest
import torch

from vlmlens.errors import SiteSilent
from vlmlens.passes.attending import attention_of
from vlmlens.samples import Sample
from vlmlens.sites import Axis
from vlmlens.testing.model import tiny_model
from vlmlens.testing.tiny import picture

SITES = ["llm.block.*.attn", "vision.block.*.attn"]
NEAR = 1e-5


def samples() -> list[Sample]:
    return [
        Sample("a", "What is this?", (picture(32, 32, seed=1),)),
        Sample("b", "Name the colour of it, please:", (picture(32, 32, seed=2),)),
    ]


def test_weights_of_sdpa_are_those_that_transformers_gives_with_eager_attention() -> None:
    vlm, eager = tiny_model(), tiny_model("eager")
    found = vlm.attention(vlm.encode(samples()), SITES)
    batch = eager.encode(samples())
    own = eager.module(**batch.inputs, output_attentions=True).attentions
    for number, weights in enumerate(own):
        for layout in batch.layouts[Axis.LLM].samples:
            read = found[f"llm.block.{number}.attn"].of(layout).weights
            rows = layout.rows % weights.shape[-1]
            sample = int(layout.rows[0]) // weights.shape[-1]
            expected = weights[sample][:, rows][:, :, rows]
            torch.testing.assert_close(read, expected, atol=NEAR, rtol=0)


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_weights_times_values_are_what_heads_give(attention: str) -> None:
    vlm = tiny_model(attention)
    batch = vlm.encode(samples())
    found = vlm.attention(batch, SITES)
    trace = vlm.trace(batch, [f"{name}.heads" for name in found])
    for name, read in found.items():
        axis = vlm.sites.resolve(name)[0].axis
        for i, layout in enumerate(batch.layouts[axis].samples):
            own = read.of(layout)
            heads = (own.weights @ own.values).transpose(0, 1).flatten(1)
            torch.testing.assert_close(
                heads, trace.select(f"{name}.heads/all")[i], atol=NEAR, rtol=0
            )
            wrong = (own.weights.roll(1, 0) @ own.values).transpose(0, 1).flatten(1)
            assert not torch.allclose(wrong, heads, atol=1e-3)


def test_the_pass_stays_as_it_is() -> None:
    vlm = tiny_model()
    batch = vlm.encode(samples())
    before = vlm.forward(batch, logits="last").logits
    vlm.attention(batch, SITES)
    after = vlm.forward(batch, logits="last").logits
    assert before is not None
    assert after is not None
    assert torch.equal(before, after)


def test_a_module_that_is_no_attention_is_refused() -> None:
    vlm = tiny_model()
    with pytest.raises(SiteSilent, match="how many heads"):
        attention_of(vlm, vlm.encode(samples()), ["llm.block.0.mlp"])
