"""InternVL: the conformance kit, its tiles, and the paths that its users know."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from vlmlens.abc.adapter import LoadRequest
from vlmlens.errors import SiteNotFound
from vlmlens.hf import PlacedImage, best_canvas, tiled_patches
from vlmlens.samples import Sample
from vlmlens.sites import Axis
from vlmlens.testing._painting import changed_tokens, paint_cells, painted_is_changed, still
from vlmlens.testing.tiny import picture
from vlmlens.tokens import PatchGrid, TokenKind
from vlmlens_adapter_internvl.adapter import InternVLAdapter
from vlmlens_adapter_internvl.checks import (
    InternVL35Checks,
    InternVLChecks,
    OriginalInternLM2Checks,
    OriginalQwen2Checks,
)


class TestInternVL3(InternVLChecks):
    pass


class TestInternVL35(InternVL35Checks):
    pass


class TestOriginalQwen2(OriginalQwen2Checks):
    pass


class TestOriginalInternLM2(OriginalInternLM2Checks):
    pass


class OverviewFirst(InternVLAdapter):
    """Believes that the overview comes before the tiles."""

    def patch_grid(self, image: PlacedImage) -> PatchGrid:
        made = self.processor.image_processor
        canvas = best_canvas(made, image.height, image.width)
        return tiled_patches(image.image, 2, canvas, overview="first")


@pytest.mark.parametrize("kit", [InternVLChecks, OriginalQwen2Checks])
def test_an_overview_in_the_wrong_place_is_caught(kit: type[InternVLChecks]) -> None:
    wrong = type("Wrong", (kit,), {"adapter": OverviewFirst})
    result = wrong().run_check("layout_is_where_the_image_is")
    assert result.outcome == "failed", result


@pytest.mark.parametrize("kit", [InternVLChecks, OriginalInternLM2Checks])
def test_tiles_and_the_overview(kit: type[InternVLChecks]) -> None:
    vlm = kit().vlm
    wide, small = Sample("w", "?", (picture(64, 32),)), Sample("s", "?", (picture(20, 20),))
    both = Sample("b", "?", (picture(64, 32), picture(20, 20)))
    batch = vlm.encode([wide, small, both, Sample("n", "no image")])

    grid = batch.layout(0).patches
    assert grid is not None
    assert grid.view == ("tile 0",) * 4 + ("tile 1",) * 4 + ("global",) * 4
    np.testing.assert_allclose(grid.box[0], [0, 0, 0.25, 0.5])
    np.testing.assert_allclose(grid.box[7], [0.75, 0.5, 1, 1])
    np.testing.assert_allclose(grid.box[8], [0, 0, 0.5, 0.5])
    alone = batch.layout(1).patches
    assert alone is not None
    assert alone.view == ("global",) * 4
    two = batch.layout(2).patches
    assert two is not None
    assert two.image.tolist() == [0] * 12 + [1] * 4
    assert batch.layout(3).patches is None

    assert batch.inputs["pixel_values"].shape == (8, 3, 32, 32)
    tower = batch.layouts[Axis.VISION]
    assert tower.total == 8 * 17
    assert [len(sample) for sample in tower.samples] == [51, 17, 68, 0]
    assert tower.samples[0].positions(TokenKind.SPECIAL).tolist() == [0, 17, 34]
    assert batch.layouts[Axis.PROJECTOR].total == 8 * 4


def test_the_towers_patches_are_where_the_image_is() -> None:
    kit = OriginalQwen2Checks()
    vlm = still(kit.load())
    plain = picture(64, 48)
    grid, cells = paint_cells(vlm, plain, Axis.VISION)
    assert len(grid) % 16 == 0
    painted = [image for _, image in cells]
    found = changed_tokens(vlm, plain, painted, "vision.block.0", Axis.VISION)
    for (cell, _), changed in zip(cells, found, strict=True):
        assert not painted_is_changed(grid, cell, changed)


@pytest.mark.parametrize("kit", [InternVLChecks, OriginalQwen2Checks])
def test_the_processor_cuts_as_we_count(kit: type[InternVLChecks]) -> None:
    made = kit().vlm.processor.image_processor
    settings = {"crop_to_patches": True}
    for height in range(20, 400, 37):
        for width in range(20, 400, 23):
            columns, rows = best_canvas(made, height, width)
            tiles = columns * rows
            said = made.get_number_of_image_patches(height, width, settings)
            assert said == (tiles + 1 if tiles > 1 else 1), (height, width)


VISION, LLM = "model.vision_tower.encoder.layer", "model.language_model.layers"
COMMON = [
    ("vision_model.embeddings", "model.vision_tower.embeddings"),
    (
        "vision_model.embeddings.patch_embedding",
        "model.vision_tower.embeddings.patch_embeddings.projection",
    ),
    ("vision_model.encoder.layers.2", f"{VISION}.2"),
    ("vision_model.encoder.layers.2.norm1", f"{VISION}.2.layernorm_before"),
    ("vision_model.encoder.layers.2.norm2", f"{VISION}.2.layernorm_after"),
    ("vision_model.encoder.layers.1.attn", f"{VISION}.1.attention"),
    ("vision_model.encoder.layers.1.attn.proj", f"{VISION}.1.attention.projection_layer"),
    ("vision_model.encoder.layers.0.mlp.act", f"{VISION}.0.mlp.activation_fn"),
    ("vision_model.encoder.layers.0.mlp.fc1", f"{VISION}.0.mlp.fc1"),
    ("mlp1", "model.multi_modal_projector"),
    ("mlp1.0", "model.multi_modal_projector.layer_norm"),
    ("mlp1.1", "model.multi_modal_projector.linear_1"),
    ("mlp1.2", "model.multi_modal_projector.act"),
    ("mlp1.3", "model.multi_modal_projector.linear_2"),
    ("language_model.model.layers.1", f"{LLM}.1"),
    ("language_model.model.norm", "model.language_model.norm"),
    ("language_model.output", "lm_head"),
]
QWEN2 = [
    ("language_model.lm_head", "lm_head"),
    ("language_model.model.embed_tokens", "model.language_model.embed_tokens"),
    ("language_model.model.layers.1.self_attn.q_proj", f"{LLM}.1.self_attn.q_proj"),
]
INTERNLM2 = [
    ("language_model.model.tok_embeddings", "model.language_model.embed_tokens"),
    ("language_model.model.layers.1.attention_norm", f"{LLM}.1.input_layernorm"),
    ("language_model.model.layers.1.ffn_norm", f"{LLM}.1.post_attention_layernorm"),
    ("language_model.model.layers.1.attention", f"{LLM}.1.self_attn"),
    ("language_model.model.layers.1.attention.wo", f"{LLM}.1.self_attn.o_proj"),
    ("language_model.model.layers.1.feed_forward", f"{LLM}.1.mlp"),
    ("language_model.model.layers.1.feed_forward.w1", f"{LLM}.1.mlp.gate_proj"),
    ("language_model.model.layers.1.feed_forward.w3", f"{LLM}.1.mlp.up_proj"),
    ("language_model.model.layers.1.feed_forward.w2", f"{LLM}.1.mlp.down_proj"),
]


@pytest.mark.parametrize(("legacy", "now"), COMMON + QWEN2)
def test_legacy_paths_qwen2(legacy: str, now: str) -> None:
    assert [site.path for site in OriginalQwen2Checks().vlm.sites.resolve(legacy)] == [now]


@pytest.mark.parametrize(("legacy", "now"), COMMON + INTERNLM2)
def test_legacy_paths_internlm2(legacy: str, now: str) -> None:
    assert [site.path for site in OriginalInternLM2Checks().vlm.sites.resolve(legacy)] == [now]


def test_legacy_patterns_and_fused_modules() -> None:
    sites = OriginalInternLM2Checks().vlm.sites
    found = sites.resolve("language_model.model.layers.*.attention_norm")
    assert [site.name for site in found] == [f"llm.block.{i}.input_layernorm" for i in range(2)]
    for fused in ("vision_model.encoder.layers.0.attn.qkv",
                  "language_model.model.layers.0.attention.wqkv"):  # fmt: skip
        with pytest.raises(SiteNotFound, match="matches"):
            sites.resolve(fused)


def test_a_skeleton_needs_the_config_alone(tmp_path: Path) -> None:
    kit = OriginalInternLM2Checks()
    (tmp_path / "config.json").write_bytes((kit.checkpoint / "config.json").read_bytes())
    skeleton = InternVLAdapter.skeleton(LoadRequest(model=str(tmp_path), device="cpu"))
    assert skeleton.sites.modules == kit.vlm.sites.modules
    assert {p.device.type for p in skeleton.module.parameters()} == {"meta"}
