"""The first Molmo: the conformance kit, layouts, paths, fused projections, a whole run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import vlmlens
from vlmlens.abc import Batch
from vlmlens.errors import DataError, ImageError, SiteNotFound, SiteShapeError
from vlmlens.hf import tower_layout
from vlmlens.samples import Sample
from vlmlens.sites import Axis
from vlmlens.testing._rounding import ROUNDING, close
from vlmlens.testing.adapter import distance
from vlmlens.testing.tiny import picture
from vlmlens.tokens import AxisLayout, TokenKind
from vlmlens_adapter_molmo.v1 import model as molmo_model
from vlmlens_adapter_molmo.v1.adapter import MolmoAdapter
from vlmlens_adapter_molmo.v1.checks import MolmoChecks, MolmoEChecks, MolmoOlmoChecks
from vlmlens_adapter_molmo.v1.images import MolmoImages
from vlmlens_adapter_molmo.v1.sequence import image_input_idx, image_sequence, raster_size

DATA = Path(__file__).parent / "data"
KITS = (MolmoChecks, MolmoOlmoChecks, MolmoEChecks)


class TestMolmo(MolmoChecks):
    pass


class TestMolmoOlmo(MolmoOlmoChecks):
    pass


class TestMolmoE(MolmoEChecks):
    pass


def model(kit: type[MolmoChecks] = MolmoChecks) -> MolmoAdapter:
    vlm = kit().vlm
    assert isinstance(vlm, MolmoAdapter)
    return vlm


def two() -> list[Sample]:
    """A picture of one crop, and one of several."""
    return [Sample("a", "Hm?", (picture(16, 16),)), Sample("b", "What is it?", (picture(64, 64),))]


# ---------------------------------------------------------------------- layouts


def test_the_whole_comes_first_then_one_grid_over_all_crops() -> None:
    vlm = model()
    batch = vlm.encode(two()[1:])
    grid = batch.layout(0).patches
    assert grid is not None
    assert list(dict.fromkeys(grid.view)) == ["global", "crops"]
    canvas = vlm.processor.image_processor.canvas(64, 64)
    assert (canvas.rows, canvas.cols) == (2, 2)
    assert (int(grid.rows[-1]), int(grid.cols[-1])) == raster_size(canvas) == (4, 4)
    tower = batch.layouts[Axis.VISION].samples[0]
    assert tower.patches is not None
    assert list(dict.fromkeys(tower.patches.view)) == ["global", *(f"crop {i}" for i in range(4))]
    assert np.flatnonzero(tower.kinds == TokenKind.SPECIAL).tolist() == [37 * i for i in range(5)]


def test_boxes_of_a_letterboxed_picture() -> None:
    """A picture twice as wide as high: the whole lies in the middle half of its crop."""
    grid = model().encode([Sample("w", "?", (picture(96, 48),))]).layout(0).patches
    assert grid is not None
    np.testing.assert_allclose(grid.box[0], (0, -0.5, 1 / 3, 1 / 6), atol=1e-6)
    np.testing.assert_allclose(grid.box[4], (1 / 3, 1 / 6, 2 / 3, 5 / 6), atol=1e-6)
    np.testing.assert_allclose(grid.box[8], (2 / 3, 5 / 6, 1, 1.5), atol=1e-6)


@pytest.mark.parametrize("kit", KITS)
def test_the_projectors_rows_are_what_the_sequence_gets(kit: type[MolmoChecks]) -> None:
    """In order, each is the difference between the first block's input and the embedding."""
    vlm = model(kit)
    batch = vlm.encode(two())
    seen: list[torch.Tensor] = []
    block = vlm.module.get_submodule("model.language_model.layers.0")
    handle = block.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    trace = vlm.trace(batch, ["projector", "llm.embed"])
    handle.remove()
    added = (seen[0] - trace["llm.embed"]).flatten(0, 1)
    rows = trace.select("projector/all")
    for i, own in enumerate(rows):
        layout = batch.layout(i)
        image = layout.rows[layout.kinds == TokenKind.IMAGE]
        assert distance(added[image], own) < ROUNDING
    elsewhere = np.setdiff1d(
        np.arange(len(added)),
        np.concatenate(
            [one.rows[one.kinds == TokenKind.IMAGE] for one in map(batch.layout, (0, 1))]
        ),
    )
    assert float(added[elsewhere].abs().max()) == 0


def test_every_cell_of_the_raster_is_given_once() -> None:
    images = MolmoImages()
    for height, width in ((336, 336), (480, 640), (1000, 90), (50, 60)):
        canvas = images.canvas(height, width)
        index = image_input_idx(canvas)
        places = index[index >= 0].tolist()
        assert len(set(places)) == len(places)
        rows, cols = raster_size(canvas)
        assert len(places) == images.cells**2 + rows * cols
        assert max(places) == images.cells * (images.cells + 1) + 2 + rows * (cols + 1) - 1


def test_blank_crops_belong_to_no_sample() -> None:
    batch = model().encode(two())
    tower = batch.layouts[Axis.VISION]
    crops = batch.inputs["images"].shape[1]
    assert crops == 5
    assert [len(sample) // 37 for sample in tower.samples] == [2, 5]
    assert tower.total == 2 * crops * 37
    assert bool((batch.inputs["images"][0, 2:] == -1).all())
    assert int((batch.inputs["image_input_idx"][0, 2:] >= 0).sum()) == 0


class Transposed(MolmoAdapter):
    """Takes columns for rows."""

    def patch_grid(self, image: Any) -> Any:
        grid = super().patch_grid(image)
        assert grid is not None
        return replace(grid, box=grid.box[:, [1, 0, 3, 2]])


class Contiguous(MolmoAdapter):
    """Takes the crops of a batch to stand one after the other, without blanks."""

    def image_layouts(self, images: Any, grids: Any) -> Mapping[Axis, AxisLayout]:
        right = super().image_layouts(images, grids)
        vision = right[Axis.VISION]
        counts = [len(sample) // 37 for sample in vision.samples]
        known = [sample.patches for sample in vision.samples]
        wrong = tower_layout(counts, 36, known, special=1)
        return {**right, Axis.VISION: replace(wrong, total=vision.total)}


@pytest.mark.parametrize(
    ("adapter", "check", "why"),
    [
        (Transposed, "layout_is_where_the_image_is", "painting"),
        (Contiguous, "batch_equals_single", "away from alone"),
    ],
)
def test_a_deliberate_mistake_is_caught(adapter: type[MolmoAdapter], check: str, why: str) -> None:
    kit = type("Kit", (MolmoChecks,), {"adapter": adapter, "vlm": adapter_of(adapter)})()
    result = kit.run_check(check)
    assert result.outcome == "failed"
    assert why in result.detail


def adapter_of(adapter: type[MolmoAdapter]) -> MolmoAdapter:
    """The tiny model behind another adapter."""
    right = model()
    return adapter(right.module, right.request)


def test_places_that_do_not_count_padding_are_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    right = molmo_model._with_tokens
    monkeypatch.setattr(
        molmo_model, "_with_tokens", lambda e, tokens, index, mask: right(e, tokens, index, None)
    )
    result = MolmoChecks().run_check("batch_equals_single")
    assert result.outcome == "failed"
    assert "away from alone" in result.detail


# ---------------------------------------------------------------------- samples


def test_the_images_tokens_are_not_in_the_prompt() -> None:
    with pytest.raises(DataError, match="im_patch"):
        model().encode([Sample("s", "What is <im_patch>?", (picture(20, 20),))])


def test_a_line_is_no_image() -> None:
    with pytest.raises(ImageError, match="too narrow"):
        model().encode([Sample("s", "?", (Image.new("RGB", (1, 900)),))])


def test_one_image_each() -> None:
    with pytest.raises(DataError, match="exactly 1"):
        model().encode([Sample("s", "Hello")])


def test_the_sequence_begins_as_upstreams_does() -> None:
    vlm = model()
    canvas = vlm.processor.image_processor.canvas(16, 16)
    ids = vlm.encode(two()[:1]).inputs["input_ids"][0].tolist()
    image = image_sequence(canvas, vlm.processor.image_tokens)
    assert ids[1 : 1 + len(image)] == image
    assert vlm.decode(ids[:1]) == "<|endoftext|>"
    assert vlm.decode(ids[1 + len(image) :]) == " User: Hm? Assistant:"
    assert vlm.answer_ids("yes") == vlm.tokenizer(" yes")["input_ids"]


# ---------------------------------------------------------------------- paths and modules

LAYER = "model.language_model.layers.1"
PATHS = [
    (MolmoChecks, "transformer.wte", "model.language_model.embed_tokens"),
    (MolmoChecks, "transformer.blocks.1", LAYER),
    (MolmoChecks, "transformer.blocks.1.att_proj", f"{LAYER}.self_attn.att_proj"),
    (MolmoChecks, "transformer.blocks.1.attn_out", f"{LAYER}.self_attn.o_proj"),
    (MolmoChecks, "transformer.blocks.1.ff_proj", f"{LAYER}.mlp.ff_proj"),
    (MolmoChecks, "transformer.blocks.1.act", f"{LAYER}.mlp.act"),
    (MolmoChecks, "transformer.blocks.1.ff_out", f"{LAYER}.mlp.down_proj"),
    (MolmoChecks, "transformer.blocks.1.attn_norm", f"{LAYER}.input_layernorm"),
    (MolmoChecks, "transformer.blocks.1.ff_norm", f"{LAYER}.post_attention_layernorm"),
    (MolmoOlmoChecks, "transformer.blocks.1.attn_norm", f"{LAYER}.post_attention_layernorm"),
    (MolmoOlmoChecks, "transformer.blocks.1.ff_norm", f"{LAYER}.post_feedforward_layernorm"),
    (MolmoOlmoChecks, "transformer.blocks.1.q_norm", f"{LAYER}.self_attn.q_norm"),
    (MolmoEChecks, "transformer.blocks.1.attn.attn_norm", f"{LAYER}.input_layernorm"),
    (MolmoEChecks, "transformer.blocks.1.attn.att_proj", f"{LAYER}.self_attn.att_proj"),
    (MolmoEChecks, "transformer.blocks.1.attn", f"{LAYER}.self_attn"),
    (MolmoEChecks, "transformer.blocks.1.mlp", f"{LAYER}.mlp"),
    (MolmoEChecks, "transformer.blocks.1.mlp.gate", f"{LAYER}.mlp.gate"),
    (MolmoEChecks, "transformer.blocks.1.mlp.ff_norm", f"{LAYER}.post_attention_layernorm"),
    (MolmoChecks, "transformer.ln_f", "model.language_model.norm"),
    (MolmoChecks, "transformer.ff_out", "lm_head"),
    (MolmoChecks, "vision_backbone", "model.multi_modal_projector"),
    (
        MolmoChecks,
        "vision_backbone.image_pooling_2d.wq",
        "model.multi_modal_projector.image_pooling_2d.wq",
    ),
    (
        MolmoChecks,
        "vision_backbone.image_projector.act",
        "model.multi_modal_projector.image_projector.act",
    ),
    (MolmoChecks, "vision_backbone.image_vit.pre_ln", "model.vision_tower.pre_ln"),
    (
        MolmoChecks,
        "vision_backbone.image_vit.transformer.resblocks.3",
        "model.vision_tower.layers.3",
    ),
    (
        MolmoChecks,
        "vision_backbone.image_vit.transformer.resblocks.3.feed_forward.w2",
        "model.vision_tower.layers.3.mlp.fc2",
    ),
    (
        MolmoChecks,
        "vision_backbone.image_vit.transformer.resblocks.3.attention.wo",
        "model.vision_tower.layers.3.self_attn.wo",
    ),
]


@pytest.mark.parametrize(("kit", "legacy", "now"), PATHS)
def test_paths_of_upstream(kit: type[MolmoChecks], legacy: str, now: str) -> None:
    vlm, batch = model(kit), model(kit).encode(two()[1:])
    assert [site.path for site in vlm.sites.resolve(f"model.{legacy}")] == [now]
    assert vlm.trace(batch, [f"model.{legacy}"], logits="all")


def test_patterns_of_upstreams_paths() -> None:
    sites = model().sites.resolve("model.transformer.blocks.*.att_proj")
    assert [site.name for site in sites] == [f"llm.block.{i}.self_attn.att_proj" for i in range(3)]


@pytest.mark.parametrize(
    ("kit", "path"),
    [
        (MolmoEChecks, "model.transformer.blocks.0.mlp.experts.3"),
        (MolmoEChecks, "model.transformer.blocks.0.ff_proj"),
        (MolmoChecks, "model.transformer.blocks.0.q_norm"),
        (MolmoOlmoChecks, "llm.block.0.input_layernorm"),
    ],
)
def test_what_a_model_has_not_is_not_found(kit: type[MolmoChecks], path: str) -> None:
    with pytest.raises(SiteNotFound):
        model(kit).sites.resolve(path)


@pytest.mark.parametrize("kit", KITS)
def test_parts_of_the_fused_projection(kit: type[MolmoChecks]) -> None:
    vlm, batch = model(kit), model(kit).encode(two())
    attention = "llm.block.1.self_attn"
    names = [f"{attention}.{part}_proj" for part in ("q", "k", "v", "att")]
    trace = vlm.trace(batch, names)
    *parts, fused = (trace[name] for name in names)
    assert torch.equal(torch.cat(parts, -1), fused)


def test_parts_of_the_fused_feed_forward() -> None:
    vlm, batch = model(), model().encode(two())
    names = [f"llm.block.1.mlp.{part}" for part in ("up_proj", "gate_proj", "ff_proj", "act")]
    trace = vlm.trace(batch, names)
    up, gate, fused, inner = (trace[name] for name in names)
    assert torch.equal(torch.cat([up, gate], -1), fused)
    assert distance(torch.nn.functional.silu(gate) * up, inner) < ROUNDING


def effect(vlm: MolmoAdapter, batch: Batch, edits: Mapping[str, Any]) -> float:
    plain = vlm.trace(batch, ["llm.block.2"])
    return distance(
        plain["llm.block.2"], vlm.trace(batch, ["llm.block.2"], edits=edits)["llm.block.2"]
    )


def test_an_edit_of_a_fused_projection_reaches_the_model() -> None:
    vlm, batch = model(), model().encode(two())
    assert effect(vlm, batch, {"model.transformer.blocks.1.att_proj": lambda x: x * 0}) > 0.01
    assert effect(vlm, batch, {"model.transformer.blocks.1.ff_proj": lambda x: x * 0}) > 0.01
    assert effect(vlm, batch, {"model.transformer.blocks.1.att_proj": lambda x: x + 0}) == 0


def test_rows_of_the_pooled_windows_have_no_layout() -> None:
    """Each cell has four keys: what stands for them can be read, and not selected."""
    vlm, batch = model(), model().encode(two())
    trace = vlm.trace(batch, ["model.vision_backbone.image_pooling_2d.wk"])
    (name,) = trace
    assert trace[name].shape == (2 * 5 * 9, 4, 32)
    with pytest.raises(SiteShapeError):
        trace.select(f"{name}/image.mean")


@pytest.mark.parametrize("kit", KITS)
def test_attention_weights_are_given_with_eager_attention(kit: type[MolmoChecks]) -> None:
    vlm = kit().load(attention="eager")
    batch = vlm.encode(two())
    with torch.inference_mode():
        output = vlm.module(**batch.inputs, output_attentions=True)
    assert len(output.attentions) == 3
    real = batch.inputs["attention_mask"].bool()
    sums = output.attentions[1].sum(-1).transpose(1, 2)[real]
    close(sums, 1)
    trace = vlm.trace(batch, ["vision.block.1"])
    assert (
        distance(
            model(kit).trace(batch, ["vision.block.1"])["vision.block.1"], trace["vision.block.1"]
        )
        < ROUNDING
    )


# ---------------------------------------------------------------------- a whole run


def test_a_whole_run_on_a_golden(tmp_path: Path) -> None:
    for seed, label in enumerate(("red", "green")):
        (tmp_path / label).mkdir()
        for i in range(24):
            picture(40 + i, 48, seed=seed).save(tmp_path / label / f"{i:02d}.png")
    analyses: Sequence[str] = ("probe", "logit-lens", "blind-test")
    run = vlmlens.run(
        adapter="molmo", model=str(DATA / "molmo"), data=str(tmp_path), prompt="What is it?",
        device="cpu", out=str(tmp_path / "run"), analysis=list(analyses),
    )  # fmt: skip
    assert run.info["state"] == "finished"
    assert set(run.results) == set(analyses)
    assert {"vision.block.3/image.mean", "projector/image.mean"} <= set(run.activations)
    assert all(len(run.activations[name]) == 48 for name in run.activations)
