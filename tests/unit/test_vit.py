"""Vision backbones by themselves: their rows, their pixels, and what is refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers as t

from vlmlens.abc.adapter import LoadRequest
from vlmlens.errors import CheckpointError, CheckpointNotFound, CompositionError, DataError
from vlmlens.extraction.extraction import _shared
from vlmlens.samples import Sample
from vlmlens.sites import Axis
from vlmlens.testing.tiny import picture, save, small_vision
from vlmlens.tokens import TokenKind
from vlmlens_plugins.demo.adapter import CHECKPOINT, DemoAdapter
from vlmlens_plugins.hf import vit_checks
from vlmlens_plugins.hf._pixels import DINOv3Images
from vlmlens_plugins.hf.vit import VisionAdapter

BLOCKS = [f"vision.block.{i}" for i in range(4)]


def opened(folder: Path, **settings: Any) -> VisionAdapter:
    return VisionAdapter.load(LoadRequest(model=str(folder), device="cpu", **settings))


def tiny(suite: type[vit_checks.TowerChecks]) -> VisionAdapter:
    found = suite().vlm
    assert isinstance(found, VisionAdapter)
    return found


def seen(*sizes: tuple[int, int]) -> list[Sample]:
    return [Sample(str(i), "", (picture(*size, seed=i),)) for i, size in enumerate(sizes)]


@pytest.fixture(scope="module")
def demo_tower(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The vision tower of the demo model, as a checkpoint of its own."""
    folder = tmp_path_factory.mktemp("tower")
    whole = t.AutoModelForImageTextToText.from_pretrained(CHECKPOINT, dtype=torch.float32)
    whole.model.vision_tower.save_pretrained(folder)
    said = json.loads((CHECKPOINT / "processor_config.json").read_text())["image_processor"]
    (folder / "preprocessor_config.json").write_text(json.dumps(said))
    return folder


def test_a_tower_alone_gives_what_it_gives_inside_its_model(demo_tower: Path) -> None:
    alone = opened(demo_tower)
    whole = DemoAdapter.load(LoadRequest(device="cpu", dtype="float32"))
    samples = [Sample(s.id, "What?", s.images) for s in seen((64, 48), (40, 88))]
    one = alone.trace(alone.encode(samples), ["vision.embed", *BLOCKS])
    other = whole.trace(whole.encode(samples), ["vision.embed", *BLOCKS])
    for name in one:
        torch.testing.assert_close(one[name], other[name], rtol=0, atol=1e-6)
    mine = alone.encode(samples).layouts[Axis.VISION].samples
    theirs = whole.encode(samples).layouts[Axis.VISION].samples
    for a, b in zip(mine, theirs, strict=True):
        assert a.kinds.tolist() == b.kinds.tolist()
        assert a.patches is not None
        assert b.patches is not None
        np.testing.assert_array_equal(a.patches.box, b.patches.box)
    assert set(BLOCKS) <= set(whole.sites.canonical)


@pytest.mark.parametrize(
    ("suite", "special"),
    [
        (vit_checks.ViTChecks, 1),
        (vit_checks.DeiTChecks, 2),
        (vit_checks.RegistersChecks, 5),
        (vit_checks.SigLIPTowerChecks, 0),
    ],
)
def test_pooled_rows_are_patches_alone(suite: Any, special: int) -> None:
    vlm = tiny(suite)
    batch = vlm.encode(seen((64, 48), (40, 88)))
    trace = vlm.trace(batch, ["vision.block.1"])
    rows = trace["vision.block.1"]
    kinds = batch.layout(0, Axis.VISION).kinds
    assert (kinds[:special] == TokenKind.SPECIAL).all()
    assert (kinds[special:] == TokenKind.IMAGE).all()
    pooled = trace.select("vision.block.1/image.mean")
    torch.testing.assert_close(pooled, rows[:, special:].mean(1))
    if special:
        assert (pooled - rows.mean(1)).abs().max() > 1e-3


def test_mae_leaves_out_no_patch() -> None:
    vlm = tiny(vit_checks.MAEChecks)
    batch = vlm.encode(seen((64, 48), (40, 88)))
    given: Any = vlm.module.get_submodule("embeddings")
    with torch.inference_mode():
        patches = given.patch_embeddings(batch.inputs["pixel_values"])
        by_hand = patches + given.position_embeddings[:, 1:]
    embed = vlm.trace(batch, ["vision.embed"])["vision.embed"]
    torch.testing.assert_close(embed[:, 1:], by_hand)
    trained = t.ViTMAEConfig().mask_ratio
    assert trained > 0, "the control: transformers' default leaves patches out"


@pytest.mark.parametrize(("width", "height"), [(120, 60), (60, 120), (64, 64)])
def test_a_region_is_found_through_resize_and_crop(width: int, height: int) -> None:
    vlm = tiny(vit_checks.DINOv2Checks)
    box = [width * 0.5, height * 0.25, width * 0.7, height * 0.45]
    sample = Sample(
        "a", "", (picture(width, height),), attributes={"regions": json.dumps({"it": box})}
    )
    layout = vlm.encode([sample]).layout(0, Axis.VISION)
    scale, crop = 36 / min(width, height), 32
    left, top = (round(width * scale) - crop) // 2, (round(height * scale) - crop) // 2
    x0, y0, x1, y1 = (edge * scale for edge in box)
    wanted = [
        1 + row * 4 + col
        for row in range(4)
        for col in range(4)
        if x0 < left + col * 8 + 8 and x1 > left + col * 8
        if y0 < top + row * 8 + 8 and y1 > top + row * 8
    ]
    from vlmlens.tokens import Selector

    assert Selector.parse("image.region(it)").positions(layout).tolist() == wanted


def test_dinov3_pixels_are_those_of_a_plain_resize() -> None:
    image = picture(100, 70)
    made = DINOv3Images(size={"height": 48, "width": 32})(images=[image], return_tensors="pt")
    plain = np.asarray(image.resize((32, 48), 2), np.float32) / 255
    mean, std = np.array(t.image_utils.IMAGENET_DEFAULT_MEAN), t.image_utils.IMAGENET_DEFAULT_STD
    wanted = ((plain - mean) / np.array(std)).transpose(2, 0, 1)
    far = np.abs(made["pixel_values"][0].numpy() - wanted).max()
    assert far < 1.6 / 255 / min(std), "Pillow rounds to whole numbers, twice"


def resized(folder: Path, config: str, **preprocessor: Any) -> VisionAdapter:
    made = getattr(t, config)(**small_vision())
    save(folder, t.AutoModel.from_config(made), preprocessor_config=preprocessor)
    return opened(folder)


def test_positions_are_interpolated_to_the_size_of_the_processor(tmp_path: Path) -> None:
    size = {"height": 48, "width": 40}
    vlm = resized(tmp_path, "ViTConfig", image_processor_type="ViTImageProcessor", size=size)
    batch = vlm.encode(seen((64, 48), (40, 88)))
    trace = vlm.trace(batch, ["vision.block.0"])
    assert trace["vision.block.0"].shape[1] == 1 + 6 * 5
    with torch.inference_mode():
        plain = vlm.module(batch.inputs["pixel_values"], interpolate_pos_encoding=True)
    norm = vlm.trace(batch, ["vision.norm"])["vision.norm"]
    torch.testing.assert_close(norm, plain.last_hidden_state)
    grid = batch.layout(0, Axis.VISION).patches
    assert grid is not None
    assert (grid.rows[0], grid.cols[0]) == (6, 5)


def test_sizes_that_do_not_fit_together_are_refused(tmp_path: Path) -> None:
    vlm = resized(
        tmp_path, "Dinov2Config", image_processor_type="BitImageProcessor",
        size={"shortest_edge": 32}, do_center_crop=False,
    )  # fmt: skip
    with pytest.raises(DataError, match="several sizes") as caught:
        vlm.encode(seen((64, 48), (40, 88)))
    assert "--batch-size 1" in caught.value.hint
    single = vlm.encode(seen((64, 48)))
    grid = single.layout(0, Axis.VISION).patches
    assert grid is not None
    assert (grid.rows[0], grid.cols[0]) == (4, 5)
    assert vlm.trace(single, ["vision.norm"])["vision.norm"].shape[1] == 21


def test_an_unknown_crop_gives_no_places(tmp_path: Path) -> None:
    vlm = resized(
        tmp_path, "Dinov2Config", image_processor_type="ConvNextImageProcessor",
        size={"shortest_edge": 32},
    )  # fmt: skip
    assert vlm.encode(seen((64, 48))).layout(0, Axis.VISION).patches is None


def test_samples_on_one_image_are_computed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    vlm = tiny(vit_checks.ViTChecks)
    image = picture(64, 48)
    groups = [[Sample(f"a{i}", f"{i}?", (image,)) for i in range(3)], seen((40, 88))]
    batch = vlm.encode_shared(groups)
    assert set(_shared(batch)) == {"images"}
    assert len(batch.inputs["pixel_values"]) == 2
    assert len(batch) == 4
    rows = [layout.rows.tolist() for layout in batch.layouts[Axis.VISION].samples]
    assert rows[0] == rows[2] != rows[3]


def test_prompts_are_not_read_and_answers_refused() -> None:
    vlm = tiny(vit_checks.ViTChecks)
    asked = Sample("a", "What is it?", (picture(64, 48),))
    assert "does not read" in vlm.read_prompt(asked).note
    assert not vlm.read_prompt(seen((64, 48))[0]).note
    for attempt in (
        lambda: vlm.encode([asked], answers=["red"]),
        lambda: vlm.forward(vlm.encode([asked]), logits="last"),
        lambda: vlm.generate(vlm.encode([asked]), max_new_tokens=1),
        lambda: vlm.choice_scores([asked]),
    ):
        with pytest.raises(CompositionError, match="reads images only"):
            attempt()
    assert vlm.choice_scores([]) == [], "it is not taken for a model that writes"
    with pytest.raises(DataError, match="has no image"):
        vlm.encode([Sample("none", "What?")])


def stages() -> Any:
    settings: dict[str, Any] = {"patch_size": 4, "embed_dim": 16, "depths": [1, 2]}
    return t.SwinConfig(image_size=32, num_heads=[2, 4], window_size=4, **settings)


@pytest.mark.parametrize(
    ("make", "why"),
    [
        (stages, "in stages"),
        (t.DINOv3ConvNextConfig, "in stages"),
        (t.GPT2Config, "reads text"),
        (t.LlavaConfig, "reads images and text"),
    ],
)
def test_other_models_are_refused(make: Callable[[], Any], why: str, tmp_path: Path) -> None:
    make().save_pretrained(tmp_path)
    with pytest.raises(CheckpointError, match=why):
        _ = VisionAdapter.skeleton(LoadRequest(model=str(tmp_path))).sites


def test_a_checkpoint_without_an_image_processor_is_refused(tmp_path: Path) -> None:
    t.ViTConfig(**small_vision()).save_pretrained(tmp_path)
    vlm = VisionAdapter.skeleton(LoadRequest(model=str(tmp_path)))
    with pytest.raises(CheckpointNotFound, match=r"has no preprocessor_config\.json"):
        vlm.encode(seen((64, 48)))
