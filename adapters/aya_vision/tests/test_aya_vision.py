"""Aya Vision: the conformance kit, its tiles, its logits, and the paths that its users know."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch

from vlmlens.abc import ModelAdapter
from vlmlens.errors import SiteNotFound
from vlmlens.hf import PlacedImage, best_canvas, tiled_patches
from vlmlens.samples import Sample
from vlmlens.sites import Axis
from vlmlens.testing.tiny import picture
from vlmlens.tokens import PatchGrid, TokenKind
from vlmlens_adapter_aya_vision.adapter import AyaVisionAdapter
from vlmlens_adapter_aya_vision.checks import AyaVisionChecks


class TestAyaVision(AyaVisionChecks):
    pass


class OverviewFirst(AyaVisionAdapter):
    """Puts the whole image before its tiles."""

    def _tiles(self, image: PlacedImage, side: int) -> PatchGrid:
        canvas = best_canvas(self.processor.image_processor, image.height, image.width)
        return tiled_patches(image.image, side, canvas, overview="first")


class TurnedCanvas(AyaVisionAdapter):
    """Takes the canvas' rows for its columns."""

    def _tiles(self, image: PlacedImage, side: int) -> PatchGrid:
        columns, rows = best_canvas(self.processor.image_processor, image.height, image.width)
        return tiled_patches(image.image, side, (rows, columns), overview="last")


class CohereScale(AyaVisionAdapter):
    """Scales logits as Cohere 2's own class does."""

    def scale_logits(self, logits: torch.Tensor) -> torch.Tensor:
        scale: float = self.config.get_text_config().logit_scale
        return logits * scale


class FormatsFirst(AyaVisionAdapter):
    """Formats the chat to text and gives that to the processor, which begins it once more."""

    def process(self, prompts: Sequence[str], images: Sequence[Sequence[Any]]) -> dict[str, Any]:
        texts = [
            self.processor.apply_chat_template(
                [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": p}]}],
                add_generation_prompt=True,
            )
            for p in prompts
        ]
        return dict(self.processor(text=texts, images=images, return_tensors="pt"))


@pytest.mark.parametrize(
    ("mistake", "check"),
    [
        (OverviewFirst, "layout_is_where_the_image_is"),
        (TurnedCanvas, "layout_is_where_the_image_is"),
        (CohereScale, "lens_identity"),
        (FormatsFirst, "no_doubled_specials"),
    ],
)
def test_a_deliberate_mistake_is_caught(mistake: type[ModelAdapter], check: str) -> None:
    kit = type(f"Kit{mistake.__name__}", (AyaVisionChecks,), {"adapter": mistake})
    result = kit().run_check(check)
    assert result.outcome == "failed", result


@pytest.mark.parametrize(
    ("size", "views"),
    [
        ((16, 16), ["global"]),
        ((96, 32), ["tile 0", "tile 1", "tile 2", "global"]),
        ((32, 64), ["tile 0", "tile 1", "global"]),
    ],
)
def test_the_overview_is_last_and_alone_where_one_tile_is_enough(
    size: tuple[int, int], views: list[str]
) -> None:
    vlm = AyaVisionChecks().vlm
    batch = vlm.encode([Sample("a", "?", (picture(*size),))])
    assert batch.inputs["pixel_values"].shape[0] == len(views)
    for axis, side in ((Axis.VISION, 4), (Axis.PROJECTOR, 2), (Axis.LLM, 2)):
        grid = batch.layout(0, axis).patches
        assert grid is not None
        assert list(grid.view) == [view for view in views for _ in range(side**2)]
        assert set(grid.rows.tolist()) == {side}


def test_boxes_of_tiles_cover_the_image_once() -> None:
    grid = tiled_patches(0, 2, (3, 2), overview="last")
    tiles, whole = grid.box[:24], grid.box[24:]
    for boxes in (tiles, whole):
        area = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
        assert float(area.sum()) == pytest.approx(1)
        assert len(np.unique(boxes, axis=0)) == len(boxes)
    assert grid.box[4:5].tolist() == [pytest.approx([1 / 3, 0, 1 / 2, 1 / 4])]


def test_the_projector_gives_a_grid_per_tile() -> None:
    tests = AyaVisionChecks()
    batch = tests.vlm.encode(tests.samples)
    trace = tests.vlm.trace(batch, ["projector"])
    assert trace["projector"].shape[1:3] == (2, 2)
    own = trace.select("projector/all")
    counts = [int((batch.layout(i).kinds == TokenKind.IMAGE).sum()) for i in range(len(batch))]
    assert [len(rows) for rows in own] == counts


def test_marks_of_tiles_and_turns_are_no_text() -> None:
    vlm: Any = AyaVisionChecks().vlm
    layout = vlm.encode([Sample("a", "What?", (picture(64, 32),))]).layout(0)
    text = vlm.decode(layout.token_ids[layout.kinds == TokenKind.TEXT].tolist())
    assert text == "What?"
    assert vlm.decode(vlm.answer_ids("red")) == "red"


def test_the_head_is_the_embedding() -> None:
    module: Any = AyaVisionChecks().vlm.module
    assert module.lm_head.weight is module.model.language_model.embed_tokens.weight


@pytest.mark.parametrize(
    ("legacy", "now"),
    [
        ("language_model.model.layers.3.input_layernorm",
         "model.language_model.layers.3.input_layernorm"),
        ("language_model.lm_head", "lm_head"),
        ("multi_modal_projector.layernorm", "model.multi_modal_projector.layernorm"),
        ("vision_tower.vision_model.encoder.layers.2.self_attn.q_proj",
         "model.vision_tower.encoder.layers.2.self_attn.q_proj"),
    ],
)  # fmt: skip
def test_legacy_paths(legacy: str, now: str) -> None:
    assert [site.path for site in AyaVisionChecks().vlm.sites.resolve(legacy)] == [now]


def test_a_parallel_block_has_one_norm() -> None:
    with pytest.raises(SiteNotFound, match="No site of this model"):
        AyaVisionChecks().vlm.sites.resolve("llm.block.1.post_attention_layernorm")
