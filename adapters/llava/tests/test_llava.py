"""LLaVA: the conformance kit, and the paths that its users know."""

from __future__ import annotations

import pytest

from vlmlens_adapter_llava.checks import LlavaChecks


class TestLlava(LlavaChecks):
    pass


@pytest.mark.parametrize(
    ("legacy", "now"),
    [
        ("language_model.model.layers.1.post_attention_layernorm",
         "model.language_model.layers.1.post_attention_layernorm"),
        ("language_model.lm_head", "lm_head"),
        ("vision_tower.vision_model.encoder.layers.2.mlp.fc1",
         "model.vision_tower.encoder.layers.2.mlp.fc1"),
        ("multi_modal_projector.linear_2", "model.multi_modal_projector.linear_2"),
    ],
)  # fmt: skip
def test_legacy_paths(legacy: str, now: str) -> None:
    assert [site.path for site in LlavaChecks().vlm.sites.resolve(legacy)] == [now]
