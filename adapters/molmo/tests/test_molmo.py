"""Molmo2: the conformance kit, its images with and without torchvision, dropped type ids.

`images.json` holds numbers of transformers' own image processor. To make it anew, with torchvision
installed: `python test_molmo.py`.
"""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from vlmlens.samples import Sample
from vlmlens.sites import Axis
from vlmlens.testing.adapter import distance
from vlmlens.testing.tiny import picture
from vlmlens_adapter_molmo.adapter import Molmo2Adapter, pooled_patches
from vlmlens_adapter_molmo.checks import Molmo2Checks, Molmo2OlmoChecks
from vlmlens_adapter_molmo.images import Molmo2Images, canvas_of

GOLDEN = Path(__file__).with_name("images.json")
SHAPES = ((64, 48), (40, 88), (64, 64), (7, 5), (17, 16), (200, 30), (30, 200), (700, 500))
SETTINGS: tuple[dict[str, Any], ...] = (
    {
        "max_crops": 4, "overlap_margins": [1, 1], "patch_size": 8,
        "size": {"height": 40, "width": 40},
    },
    {
        "overlap_margins": [1, 2], "patch_size": 8, "pooling_size": [2, 3],
        "size": {"height": 56, "width": 56},
    },
)  # fmt: skip
TORCHVISION = importlib.util.find_spec("torchvision") is not None


class TestMolmo2(Molmo2Checks):
    pass


class TestMolmo2Olmo(Molmo2OlmoChecks):
    pass


def processed(processor: Any, shape: tuple[int, int]) -> dict[str, torch.Tensor]:
    """Of two images, so that patch numbers go on from one to the next."""
    images = [picture(*shape), picture(30, 50, seed=1)]
    return dict(processor(images=images, return_tensors="pt"))


def measured(make: Any) -> dict[str, dict[str, Any]]:
    """Per setting and shape: grids, crops, and numbers spread over the large tensors."""
    found = {}
    for i, settings in enumerate(SETTINGS):
        for shape in SHAPES:
            values = processed(make(**settings), shape)
            row: dict[str, Any] = {
                name: values[name].tolist() for name in ("image_grids", "image_num_crops")
            }
            for name in ("image_token_pooling", "pixel_values"):
                flat = values[name].double().flatten()
                row[name] = [round(float(v), 4) for v in flat[:: max(1, len(flat) // 16)]]
            found[f"{i}: {shape[0]} x {shape[1]}"] = row
    return found


def test_images_are_processed_as_transformers_does() -> None:
    expected, found = json.loads(GOLDEN.read_text()), measured(Molmo2Images)
    assert list(found) == list(expected)
    for case, row in expected.items():
        for name in ("image_grids", "image_num_crops", "image_token_pooling"):
            assert found[case][name] == row[name], (case, name)
        np.testing.assert_allclose(
            found[case]["pixel_values"], row["pixel_values"], atol=2.5 * 2 / 255, err_msg=case
        )


@pytest.mark.skipif(not TORCHVISION, reason="transformers' own processor needs torchvision")
def test_images_equal_those_of_torchvision() -> None:
    from transformers import Molmo2ImageProcessor

    for settings in (*SETTINGS, {}):
        theirs, ours = Molmo2ImageProcessor(**settings), Molmo2Images(**settings)
        for shape in SHAPES:
            wanted, found = processed(theirs, shape), processed(ours, shape)
            assert set(wanted) == set(found)
            for name, value in wanted.items():
                assert torch.equal(value.to(found[name].dtype), found[name]), (shape, name)


def test_a_canvas_numbers_every_patch_once() -> None:
    canvas = canvas_of(Molmo2Images(**SETTINGS[0]), 48, 64)
    numbers = canvas.patches()
    assert (canvas.rows, canvas.cols) == (2, 2)
    assert numbers.shape == (8, 8)
    assert len(set(numbers.ravel().tolist())) == 64
    assert numbers.max() < 4 * 25


def test_odd_patch_counts_leave_narrow_tokens_at_the_edge() -> None:
    grid = pooled_patches(0, 5, 4, (2, 2), "global")
    assert (int(grid.rows[0]), int(grid.cols[0])) == (3, 2)
    np.testing.assert_allclose(grid.box[0], (0, 0, 0.5, 0.4), atol=1e-6)
    np.testing.assert_allclose(grid.box[-1], (0.5, 0.8, 1, 1), atol=1e-6)


def test_the_small_view_comes_first_and_the_crops_are_one_grid() -> None:
    batch = Molmo2Checks().vlm.encode([Sample("s", "?", (picture(64, 48),))])
    grid = batch.layout(0).patches
    assert grid is not None
    assert list(dict.fromkeys(grid.view)) == ["global", "crops"]
    low_rows, low_cols, rows, cols = batch.inputs["image_grids"][0].tolist()
    assert grid.view.count("global") == low_rows * low_cols
    assert (int(grid.rows[-1]), int(grid.cols[-1])) == (rows, cols)
    tower = batch.layouts[Axis.VISION].samples[0].patches
    assert tower is not None
    assert list(dict.fromkeys(tower.view)) == ["global", *(f"crop {i}" for i in range(4))]


class Transposed(Molmo2Adapter):
    """Takes columns for rows."""

    def patch_grid(self, image: Any) -> Any:
        grid = super().patch_grid(image)
        return replace(grid, box=grid.box[:, [1, 0, 3, 2]])


class NoTypes(Molmo2Adapter):
    """Drops `mm_token_type_ids` when samples come together."""

    def process(self, prompts: Sequence[str], images: Any) -> dict[str, Any]:
        inputs = super().process(prompts, images)
        if len(prompts) > 1:
            del inputs["mm_token_type_ids"]
        return inputs


@pytest.mark.parametrize(
    ("adapter", "check"),
    [(Transposed, "layout_is_where_the_image_is"), (NoTypes, "batch_equals_single")],
)
def test_a_deliberate_mistake_is_caught(adapter: type[Molmo2Adapter], check: str) -> None:
    kit = type("Kit", (Molmo2Checks,), {"adapter": adapter})()
    assert kit.run_check(check).outcome == "failed"


def test_dropped_type_ids_fail_silently_and_are_never_dropped() -> None:
    """Without them image tokens see only what is before them, and no error says so."""
    vlm = Molmo2Checks().vlm
    batch = vlm.encode([Sample("s", "What is this?", (picture(64, 48),))], answers=["yes"])
    types = batch.inputs["mm_token_type_ids"]
    assert types.shape == batch.inputs["input_ids"].shape
    assert int(types.sum()) > 0
    assert int(types[0, -1]) == 0, "an answer is text"
    kept = vlm.forward(batch, logits="last").logits
    inputs = {name: value for name, value in batch.inputs.items() if name != "mm_token_type_ids"}
    dropped = vlm.forward(replace(batch, inputs=inputs), logits="last").logits
    assert distance(kept, dropped) > 0.05


@pytest.mark.parametrize(
    ("legacy", "now"),
    [
        ("model.transformer.blocks.1.mlp", "model.language_model.layers.1.mlp"),
        ("model.transformer.ln_f", "model.language_model.norm"),
        ("model.transformer.wte", "model.language_model.embed_tokens"),
        (
            "model.vision_backbone.image_vit.transformer.resblocks.2",
            "model.vision_tower.layers.2",
        ),
        (
            "model.vision_backbone.image_projector",
            "model.multi_modal_projector.image_projector",
        ),
    ],
)
def test_paths_of_the_checkpoint_layout(legacy: str, now: str) -> None:
    assert [site.path for site in Molmo2Checks().vlm.sites.resolve(legacy)] == [now]


def test_the_backend_is_told() -> None:
    said = Molmo2Checks().vlm.describe()
    assert said["image_backend"] == ("torchvision" if TORCHVISION else "torch")


if __name__ == "__main__":
    from transformers import Molmo2ImageProcessor

    GOLDEN.write_text(json.dumps(measured(Molmo2ImageProcessor), indent=1))
