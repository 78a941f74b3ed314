"""Pixtral: the conformance kit in both layouts, legacy paths, and what can go wrong."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pytest

from vlmlens.hf import PlacedImage, tower_layout
from vlmlens.samples import Sample
from vlmlens.sites import Axis
from vlmlens.testing.tiny import picture
from vlmlens.tokens import AxisLayout, PatchGrid, TokenKind
from vlmlens_adapter_pixtral.adapter import PixtralAdapter
from vlmlens_adapter_pixtral.checks import ConsolidatedChecks, PixtralChecks


class TestPixtral(PixtralChecks):
    pass


class TestConsolidated(ConsolidatedChecks):
    pass


@pytest.mark.parametrize(
    ("legacy", "now"),
    [
        ("language_model.model.layers.1.post_attention_layernorm",
         "model.language_model.layers.1.post_attention_layernorm"),
        ("language_model.lm_head", "lm_head"),
        ("vision_tower.transformer.layers.2", "model.vision_tower.transformer.layers.2"),
        ("multi_modal_projector.linear_2", "model.multi_modal_projector.linear_2"),
        ("layers.1", "model.language_model.layers.1"),
        ("layers.1.attention", "model.language_model.layers.1.self_attn"),
        ("layers.1.attention.wq", "model.language_model.layers.1.self_attn.q_proj"),
        ("layers.1.attention.wo", "model.language_model.layers.1.self_attn.o_proj"),
        ("layers.0.attention_norm", "model.language_model.layers.0.input_layernorm"),
        ("layers.0.ffn_norm", "model.language_model.layers.0.post_attention_layernorm"),
        ("layers.0.feed_forward", "model.language_model.layers.0.mlp"),
        ("layers.0.feed_forward.w1", "model.language_model.layers.0.mlp.gate_proj"),
        ("layers.0.feed_forward.w2", "model.language_model.layers.0.mlp.down_proj"),
        ("layers.0.feed_forward.w3", "model.language_model.layers.0.mlp.up_proj"),
        ("tok_embeddings", "model.language_model.embed_tokens"),
        ("norm", "model.language_model.norm"),
        ("output", "lm_head"),
        ("vision_encoder.ln_pre", "model.vision_tower.ln_pre"),
        ("vision_encoder.patch_conv", "model.vision_tower.patch_conv"),
        ("vision_encoder.transformer.layers.2.ffn_norm",
         "model.vision_tower.transformer.layers.2.ffn_norm"),
        ("vision_encoder.transformer.layers.2.attention.wk",
         "model.vision_tower.transformer.layers.2.attention.k_proj"),
        ("vision_encoder.transformer.layers.2.feed_forward.w3",
         "model.vision_tower.transformer.layers.2.feed_forward.up_proj"),
        ("vision_language_adapter", "model.multi_modal_projector"),
        ("vision_language_adapter.w_in", "model.multi_modal_projector.linear_1"),
        ("vision_language_adapter.gelu", "model.multi_modal_projector.act"),
        ("vision_language_adapter.w_out", "model.multi_modal_projector.linear_2"),
    ],
)  # fmt: skip
def test_legacy_paths(legacy: str, now: str) -> None:
    assert [site.path for site in PixtralChecks().vlm.sites.resolve(legacy)] == [now]


def test_legacy_patterns() -> None:
    found = PixtralChecks().vlm.sites.resolve("layers.*.attention.wq")
    assert [site.name for site in found] == [f"llm.block.{i}.self_attn.q_proj" for i in (0, 1)]


def test_breaks_between_rows_are_special_tokens() -> None:
    vlm: Any = PixtralChecks().vlm
    layout = vlm.encode([Sample("s", "Hm?", (picture(40, 64),))]).layout(0)
    special = {
        name: vlm.tokenizer.convert_tokens_to_ids(name) for name in ("[IMG_BREAK]", "[IMG_END]")
    }
    breaks = np.isin(layout.token_ids, list(special.values()))
    assert breaks.sum() == 8
    assert (layout.kinds[breaks] == TokenKind.SPECIAL).all()
    assert layout.token_ids[breaks].tolist()[-1] == special["[IMG_END]"]
    assert len(layout.patches) == 8 * 5


def test_answers_follow_the_instruction_without_a_space() -> None:
    for checks in (PixtralChecks, ConsolidatedChecks):
        vlm = checks().vlm
        assert vlm.decode(vlm.answer_ids("yes")) == "yes"


def test_vision_rows_of_unequal_images_are_packed() -> None:
    vlm = PixtralChecks().vlm
    two = Sample("two", "Hm?", (picture(64, 48), picture(40, 64)))
    none = Sample("none", "Hm?")
    batch = vlm.encode([two, none, Sample("one", "Hm?", (picture(16, 24),))])
    axis = batch.layouts[Axis.VISION]
    assert [layout.rows.tolist() for layout in axis.samples] == [
        list(range(48 + 40)), [], list(range(88, 88 + 6)),
    ]  # fmt: skip
    assert axis.total == 94


@pytest.mark.skipif(
    importlib.util.find_spec("torchvision") is not None, reason="torchvision is installed"
)
def test_the_processor_needs_no_torchvision_and_leaves_no_stand_in() -> None:
    vlm: Any = PixtralChecks().vlm
    assert type(vlm.processor.image_processor).__name__ == "PixtralImageProcessorPil"
    assert vlm.describe()["image_backend"] == "pil"
    assert "transformers.models.pixtral.image_processing_pixtral" not in sys.modules


class _DoubledBos(PixtralAdapter):
    def process(self, prompts: Sequence[str], images: Sequence[Sequence[Any]]) -> dict[str, Any]:
        content = [
            [*({"type": "image"} for _ in group), {"type": "text", "text": prompt}]
            for prompt, group in zip(prompts, images, strict=True)
        ]
        texts = [
            self.processor.apply_chat_template([{"role": "user", "content": part}])
            for part in content
        ]
        flat = [image for group in images for image in group] or None
        encoded = self.processor(
            text=texts, images=flat, return_tensors="pt", padding=True, padding_side="left"
        )
        return dict(encoded)


class _Stacked(PixtralAdapter):
    def image_layouts(
        self, images: Sequence[Sequence[PlacedImage]], grids: Sequence[PatchGrid | None]
    ) -> Mapping[Axis, AxisLayout]:
        """Every image as tall and wide as the largest."""
        counts = [len(group) for group in images]
        patches = max(len(self.patch_grid(image)) for group in images for image in group)
        stacked = tower_layout(counts, patches, grids)
        return {Axis.VISION: stacked, Axis.PROJECTOR: stacked}


class _Backwards(PixtralAdapter):
    def image_layouts(
        self, images: Sequence[Sequence[PlacedImage]], grids: Sequence[PatchGrid | None]
    ) -> Mapping[Axis, AxisLayout]:
        """Samples taken from the last to the first."""
        right = super().image_layouts(images, grids)[Axis.VISION]
        layouts, first = [], right.total
        for layout in right.samples:
            first -= len(layout)
            layouts.append(type(layout)(np.arange(len(layout)) + first, layout.kinds))
        wrong = AxisLayout(right.total, layouts)
        return {Axis.VISION: wrong, Axis.PROJECTOR: wrong}


class _Columns(PixtralAdapter):
    def patch_grid(self, image: PlacedImage) -> PatchGrid:
        """Column by column."""
        grid = super().patch_grid(image)
        return grid.take(np.lexsort((grid.row, grid.col)))


@pytest.mark.parametrize(
    ("mistaken", "check"),
    [
        (_DoubledBos, "no_doubled_specials"),
        (_Stacked, "sites_resolve_and_fire"),
        (_Backwards, "batch_equals_single"),
        (_Columns, "layout_is_where_the_image_is"),
    ],
)
def test_mistakes_are_caught(mistaken: type[PixtralAdapter], check: str) -> None:
    class Mistaken(PixtralChecks):
        @property
        def adapter(self) -> type[PixtralAdapter]:
            return mistaken

    result = Mistaken().run_check(check)
    assert result.outcome == "failed"
    assert result.detail.startswith("CheckFailed")
