"""Qwen-VL: what fails silently in this family, each with a mistake that has to be caught."""

from __future__ import annotations

import importlib.util
import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoConfig
from transformers.models.qwen2_5_vl import modeling_qwen2_5_vl

from vlmlens.abc.adapter import LoadRequest
from vlmlens.errors import SiteNotFound
from vlmlens.passes.batch import Batch
from vlmlens.samples import Sample
from vlmlens.sites import Axis
from vlmlens.testing._painting import changed_tokens, paint_cells, painted_is_changed, still
from vlmlens.testing._rounding import close
from vlmlens.testing.tiny import picture
from vlmlens.tokens import TokenKind
from vlmlens_adapter_qwen2vl import adapter as implementation
from vlmlens_adapter_qwen2vl.adapter import QwenVLAdapter, QwenVLOptions
from vlmlens_adapter_qwen2vl.checks import (
    CHECKS,
    Qwen2VLChecks,
    Qwen3VLChecks,
    Qwen3VLMoeChecks,
    Qwen25VLChecks,
    QwenVLChecks,
)
from vlmlens_adapter_qwen2vl.order import merged_rows, patch_rows

SHAPES = [(2, 2), (6, 8), (5, 11), (12, 7), (1, 9), (4, 4)]


def names(kits: Any) -> list[str]:
    return [kit.__name__ for kit in kits]


# ------------------------------------------------------------------ order of rows


@pytest.mark.parametrize(("rows", "cols"), SHAPES)
@pytest.mark.parametrize("window", [1, 2, 4])
def test_merged_rows_undo_the_windows(rows: int, cols: int, window: int) -> None:
    grid = torch.tensor([[1, 2 * rows, 2 * cols]])
    order, _ = modeling_qwen2_5_vl.get_vision_window_index(
        grid, spatial_merge_size=2, window_size=2 * 4 * window, patch_size=4
    )
    in_tower_order = np.arange(rows * cols)[order.numpy()]
    assert in_tower_order[merged_rows(rows, cols, window)].tolist() == list(range(rows * cols))


@pytest.mark.parametrize(("rows", "cols"), SHAPES)
def test_without_windows_merged_tokens_stand_in_raster_order(rows: int, cols: int) -> None:
    assert merged_rows(rows, cols, 0).tolist() == list(range(rows * cols))


@pytest.mark.parametrize(("rows", "cols"), SHAPES)
@pytest.mark.parametrize("window", [0, 2])
def test_patch_rows_undo_merge_order_and_windows(rows: int, cols: int, window: int) -> None:
    raster = np.arange(4 * rows * cols).reshape(2 * rows, 2 * cols)
    packed = raster.reshape(rows, 2, cols, 2).transpose(0, 2, 1, 3).reshape(-1, 4)
    in_tower_order = packed[np.argsort(merged_rows(rows, cols, window))].ravel()
    found = in_tower_order[patch_rows(2 * rows, 2 * cols, 2, window)]
    assert found.tolist() == raster.ravel().tolist()


@pytest.mark.parametrize("kit", CHECKS, ids=names(CHECKS))
def test_patches_left_in_merge_order_are_caught(
    kit: type[QwenVLChecks], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        implementation, "patch_rows", lambda rows, cols, merge, window: np.arange(rows * cols)
    )
    result = kit().run_check("layout_is_where_the_image_is")
    assert result.outcome == "failed"
    assert "vision axis" in result.detail


def test_rows_left_in_window_order_are_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        implementation, "merged_rows", lambda rows, cols, window: np.arange(rows * cols)
    )
    result = Qwen25VLChecks().run_check("layout_is_where_the_image_is")
    assert result.outcome == "failed"
    assert "projector axis" in result.detail


def test_the_tower_sees_a_finer_grid_than_the_language_model() -> None:
    layouts = Qwen2VLChecks().vlm.encode([Sample("a", "?", (picture(64, 48),))]).layouts
    shapes = {}
    for axis in (Axis.VISION, Axis.PROJECTOR, Axis.LLM):
        grid = layouts[axis].samples[0].patches
        assert grid is not None
        shapes[axis.value] = (int(grid.rows[0]), int(grid.cols[0]), len(grid))
    assert shapes == {"vision": (12, 16, 192), "projector": (6, 8, 48), "llm": (6, 8, 48)}


def test_modules_before_the_window_order_are_no_sites_of_qwen25() -> None:
    """Their rows are in another order than the layouts of the vision axis say."""
    sites = Qwen25VLChecks().vlm.sites
    with pytest.raises(SiteNotFound):
        sites.resolve("model.visual.patch_embed")
    assert sites.resolve("model.visual.blocks.0.norm1")


@pytest.mark.parametrize("kit", [Qwen2VLChecks, Qwen3VLChecks])
def test_patch_embeddings_stand_in_raster_order_elsewhere(kit: type[QwenVLChecks]) -> None:
    vlm, plain = kit().vlm, picture(40, 88)
    grid, cells = paint_cells(vlm, plain, Axis.VISION)
    painted = [image for _, image in cells]
    found = changed_tokens(vlm, plain, painted, "model.visual.patch_embed", Axis.VISION)
    for (cell, _), changed in zip(cells, found, strict=True):
        assert not painted_is_changed(grid, cell, changed)


# ------------------------------------------------------------------ mm_token_type_ids


def without_types(batch: Batch) -> Batch:
    kept = {name: value for name, value in batch.inputs.items() if name != "mm_token_type_ids"}
    return replace(batch, inputs=kept)


@pytest.mark.parametrize("kit", CHECKS, ids=names(CHECKS))
def test_token_types_are_passed_and_answers_are_text(kit: type[QwenVLChecks]) -> None:
    case = kit()
    for answers in (None, ["yes", "perhaps", "n"]):
        batch = case.vlm.encode(case.samples, answers=answers)
        types = batch.inputs["mm_token_type_ids"].flatten().numpy()
        for i in range(len(batch)):
            layout = batch.layout(i)
            assert (types[layout.rows] == (layout.kinds == TokenKind.IMAGE)).all()
        assert types.shape == (batch.layouts[Axis.LLM].total,)


def test_qwen25_is_silently_wrong_without_token_types() -> None:
    case = Qwen25VLChecks()
    batch = case.vlm.encode(case.samples)
    right = case.vlm.forward(batch, logits="last").logits
    wrong = case.vlm.forward(without_types(batch), logits="last").logits
    assert right is not None
    assert wrong is not None
    assert (right - wrong).abs().max() > 0.1


@pytest.mark.parametrize("kit", [Qwen2VLChecks, Qwen3VLChecks, Qwen3VLMoeChecks])
def test_the_others_refuse_to_run_without_token_types(kit: type[QwenVLChecks]) -> None:
    case = kit()
    with pytest.raises(ValueError, match="mm_token_type_ids"):
        case.vlm.forward(without_types(case.vlm.encode(case.samples)), logits="last")


@pytest.mark.parametrize("kit", CHECKS, ids=names(CHECKS))
def test_positions_of_an_earlier_image_do_not_linger(kit: type[QwenVLChecks]) -> None:
    """The model keeps the position offsets of the last batch between passes."""
    case = kit()
    text = case.vlm.encode([Sample("t", "Hello, who are you?")])
    before = case.vlm.forward(text, logits="last").logits
    case.vlm.generate(case.vlm.encode(case.samples), max_new_tokens=2)
    after = case.vlm.forward(text, logits="last").logits
    assert before is not None
    assert after is not None
    assert torch.equal(before, after)


# ------------------------------------------------------------------ size of images


def tokens(vlm: QwenVLAdapter, width: int, height: int) -> int:
    layout = vlm.encode([Sample("a", "?", (picture(width, height),))]).layout(0)
    return len(layout.positions(TokenKind.IMAGE))


def loaded(kit: QwenVLChecks, **options: int) -> QwenVLAdapter:
    request = LoadRequest(
        str(kit.checkpoint), device="cpu", dtype="float32", options=QwenVLOptions(**options)
    )
    return QwenVLAdapter.load(request)


@pytest.mark.parametrize(("width", "height"), [(200, 150), (300, 60), (9, 6), (37, 53)])
@pytest.mark.parametrize("kit", [Qwen25VLChecks, Qwen3VLChecks])
def test_scaled_images_are_placed_right(kit: type[QwenVLChecks], width: int, height: int) -> None:
    """Sides that are no multiple of a token, areas above the largest and below the smallest."""
    vlm = still(loaded(kit(), min_pixels=32 * 32, max_pixels=48 * 48))
    assert 16 <= tokens(vlm, width, height) <= 36
    plain = picture(width, height)
    for axis, site in ((Axis.LLM, "llm.block.0"), (Axis.PROJECTOR, "projector")):
        grid, cells = paint_cells(vlm, plain, axis)
        found = changed_tokens(vlm, plain, [image for _, image in cells], site, axis)
        for (cell, _), changed in zip(cells, found, strict=True):
            assert [i for i in changed if _near(grid.box[i], cell)]
            assert min(width, height) < 8 or not painted_is_changed(grid, cell, changed)


def _near(box: Any, cell: Any) -> bool:
    inside_x = box[0] < cell[2] and box[2] > cell[0]
    return bool(inside_x and box[1] < cell[3] and box[3] > cell[1])


def test_options_bound_the_number_of_tokens_and_are_described() -> None:
    case = Qwen2VLChecks()
    assert tokens(loaded(case), 64, 64) == 64
    small = loaded(case, max_pixels=32 * 32)
    assert tokens(small, 64, 64) == 16
    assert small.describe()["max_pixels"] == 32 * 32
    assert small.describe()["min_pixels"] == case.vlm.describe()["min_pixels"] == 64
    assert tokens(loaded(case, min_pixels=64 * 64), 16, 16) == 64


def test_the_older_layout_of_a_processor_loads(tmp_path: Path) -> None:
    """As Qwen2-VL and Qwen2.5-VL are on the hub: `min_pixels`, no processor_config.json."""
    case = Qwen25VLChecks()
    shutil.copytree(case.checkpoint, tmp_path, dirs_exist_ok=True)
    (tmp_path / "processor_config.json").unlink()
    older = {
        "min_pixels": 64, "max_pixels": 1024, "patch_size": 4, "temporal_patch_size": 2,
        "merge_size": 2, "image_processor_type": "Qwen2VLImageProcessor",
        "processor_class": "Qwen2_5_VLProcessor",
    }  # fmt: skip
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(older))
    vlm = QwenVLAdapter.load(LoadRequest(str(tmp_path), device="cpu", dtype="float32"))
    assert tokens(vlm, 64, 64) == 16
    assert "mm_token_type_ids" in vlm.encode(case.samples).inputs


@pytest.mark.skipif(
    importlib.util.find_spec("torchvision") is not None, reason="torchvision is installed"
)
@pytest.mark.parametrize("kit", CHECKS, ids=names(CHECKS))
def test_without_torchvision_pillow_makes_the_pixels(kit: type[QwenVLChecks]) -> None:
    assert kit().vlm.describe()["image_backend"] == "pil"


# ------------------------------------------------------------------ deepstack, experts


@pytest.mark.parametrize("kit", [Qwen3VLChecks, Qwen3VLMoeChecks])
def test_deepstack_is_what_lies_between_the_blocks(kit: type[QwenVLChecks]) -> None:
    case = kit()
    batch = case.vlm.encode(case.samples)
    entering: list[torch.Tensor] = []
    blocks = [case.vlm.module.get_submodule(f"model.language_model.layers.{i}") for i in (1, 2)]
    handles = [
        block.register_forward_pre_hook(lambda _, args: entering.append(args[0].clone()))
        for block in blocks
    ]
    trace = case.vlm.trace(batch, ["llm.block.0", "llm.block.1", "vision.deepstack.*"])
    for handle in handles:
        handle.remove()
    for i, given in enumerate(entering):
        features = trace.select(f"vision.deepstack.{i}/image")
        for n, added in enumerate(features):
            layout = batch.layout(n)
            left = trace[f"llm.block.{i}"].flatten(0, 1)[layout.rows]
            came = given.flatten(0, 1)[layout.rows]
            image = torch.from_numpy(layout.kinds == TokenKind.IMAGE)
            close(came[image], left[image] + added)
            assert torch.equal(came[~image], left[~image])
            assert (came[image] - left[image]).abs().max() > 0.1


def test_qwen2_has_no_deepstack() -> None:
    assert not [n for n in Qwen2VLChecks().vlm.sites.canonical if "deepstack" in n]


def test_the_router_and_the_experts_are_there_and_matter() -> None:
    case = Qwen3VLMoeChecks()
    batch = case.vlm.encode(case.samples)
    trace = case.vlm.trace(
        batch, ["llm.block.1.mlp.gate", "llm.block.1.mlp.experts"], logits="last"
    )
    routed = trace.select("llm.block.1.mlp.gate/last")
    assert isinstance(routed, torch.Tensor)
    assert routed.shape == (3, 4)
    silent = case.vlm.trace(
        batch, [], logits="last", edits={"llm.block.1.mlp.experts": lambda found: found * 0}
    )
    assert trace.logits is not None
    assert silent.logits is not None
    assert (trace.logits - silent.logits).abs().max() > 0.1


# ------------------------------------------------------------------ paths


@pytest.fixture(scope="module")
def deep(tmp_path_factory: pytest.TempPathFactory) -> QwenVLAdapter:
    """A skeleton as deep as Qwen2-VL-2B."""
    config = AutoConfig.from_pretrained(Qwen2VLChecks().checkpoint)
    config.text_config.num_hidden_layers = 28
    config.text_config.layer_types = ["full_attention"] * 28
    config.vision_config.depth = 32
    folder = tmp_path_factory.mktemp("deep")
    config.save_pretrained(folder)
    return QwenVLAdapter.skeleton(LoadRequest(str(folder)))


@pytest.mark.parametrize(
    ("legacy", "now", "name"),
    [
        ("visual.blocks.31.norm2", "model.visual.blocks.31.norm2", "vision.block.31.norm2"),
        ("visual.blocks.0.attn.qkv", "model.visual.blocks.0.attn.qkv", "vision.block.0.attn.qkv"),
        ("visual.patch_embed", "model.visual.patch_embed", "model.visual.patch_embed"),
        ("visual.merger", "model.visual.merger", "projector"),
        ("visual.merger.ln_q", "model.visual.merger.ln_q", "vision.norm"),
        ("visual.merger.mlp.2", "model.visual.merger.mlp.2", "projector.mlp.2"),
        ("model.layers.14.post_attention_layernorm",
         "model.language_model.layers.14.post_attention_layernorm",
         "llm.block.14.post_attention_layernorm"),
        ("model.layers.27", "model.language_model.layers.27", "llm.block.27"),
        ("model.norm", "model.language_model.norm", "llm.norm"),
        ("model.embed_tokens", "model.language_model.embed_tokens", "llm.embed"),
        ("model.rotary_emb", "model.language_model.rotary_emb",
         "model.language_model.rotary_emb"),
        ("lm_head", "lm_head", "llm.head"),
        ("model.visual.merger.mlp.2", "model.visual.merger.mlp.2", "projector.mlp.2"),
    ],
)  # fmt: skip
def test_legacy_paths(deep: QwenVLAdapter, legacy: str, now: str, name: str) -> None:
    assert [(site.path, site.name) for site in deep.sites.resolve(legacy)] == [(now, name)]


def test_legacy_patterns(deep: QwenVLAdapter) -> None:
    assert len(deep.sites.resolve("model.layers.*.mlp")) == 28
    assert len(deep.sites.resolve("visual.blocks.*")) == 32


def test_paths_whose_module_is_gone_are_not_found(deep: QwenVLAdapter) -> None:
    with pytest.raises(SiteNotFound):
        deep.sites.resolve("model.layers.3.self_attn.rotary_emb")


def test_qwen3_names_its_merger_otherwise() -> None:
    sites = Qwen3VLChecks().vlm.sites
    assert [s.name for s in sites.resolve("visual.merger.linear_fc2")] == ["projector.linear_fc2"]
    with pytest.raises(SiteNotFound):
        sites.resolve("visual.merger.mlp.2")


@pytest.mark.parametrize(
    ("kit", "path"),
    [
        (Qwen2VLChecks, "visual.merger.mlp.2"),
        (Qwen25VLChecks, "visual.merger.mlp.0"),
        (Qwen25VLChecks, "visual.merger.ln_q"),
        (Qwen25VLChecks, "visual.blocks.2.norm2"),
        (Qwen3VLChecks, "visual.merger.norm"),
        (Qwen3VLChecks, "visual.deepstack_merger_list.0.norm"),
        (Qwen3VLMoeChecks, "visual.deepstack_merger_list.1.linear_fc1"),
    ],
)
def test_modules_inside_the_merger_have_the_rows_of_their_axis(
    kit: type[QwenVLChecks], path: str
) -> None:
    vlm = kit().vlm
    (site,) = vlm.sites.resolve(path)
    trace = vlm.trace(vlm.encode(kit().samples), [site])
    assert len(trace.select(f"{site.name}/image")) == 3
