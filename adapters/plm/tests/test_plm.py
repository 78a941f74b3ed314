"""PerceptionLM: the conformance kit, its images with and without torchvision, unequal tiles.

`images.json` holds numbers of transformers' own image processor. To make it anew, with torchvision
installed: `python test_plm.py`.
"""

from __future__ import annotations

import importlib.util
import itertools
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from vlmlens.abc.adapter import LoadRequest
from vlmlens.errors import MissingDependency
from vlmlens.samples import Sample
from vlmlens.sites import Axis
from vlmlens.testing._rounding import close
from vlmlens.testing.tiny import picture
from vlmlens.tokens import TokenKind
from vlmlens_adapter_plm.adapter import PlmAdapter
from vlmlens_adapter_plm.checks import TIMM, PlmChecks, PlmTimmChecks
from vlmlens_adapter_plm.images import PlmImages, tiling

GOLDEN = Path(__file__).with_name("images.json")
SHAPES = (
    (64, 48),
    (40, 88),
    (64, 64),
    (33, 31),
    (200, 30),
    (30, 200),
    (7, 5),
    (97, 96),
    (500, 301),
)
TORCHVISION = importlib.util.find_spec("torchvision") is not None


class TestPlm(PlmChecks):
    pass


@pytest.mark.skipif(not TIMM, reason="the PE tower needs timm and torchvision")
class TestPlmTimm(PlmTimmChecks):
    pass


def pixels(processor: Any, shape: tuple[int, int]) -> torch.Tensor:
    found = processor(images=[picture(*shape)], return_tensors="pt")["pixel_values"]
    assert isinstance(found, torch.Tensor)
    return found[0]


def measured(processor: Any) -> dict[str, list[float]]:
    """Per shape: the number of views, and pixel values spread over all of them."""
    rows = {}
    for shape in SHAPES:
        values = pixels(processor, shape)
        some = values.flatten()[:: max(1, values.numel() // 24)]
        rows[f"{shape[0]} x {shape[1]}"] = [len(values), *(round(float(v), 4) for v in some)]
    return rows


def settings() -> dict[str, Any]:
    return {"tile_size": 32, "max_num_tiles": 6, "resample": 3}


def test_pixels_are_those_that_transformers_makes() -> None:
    expected = json.loads(GOLDEN.read_text())
    found = measured(PlmImages(**settings()))
    assert list(found) == list(expected)
    for shape, row in expected.items():
        assert found[shape][0] == row[0], shape
        np.testing.assert_allclose(found[shape][1:], row[1:], atol=2.5 * 2 / 255, err_msg=shape)


@pytest.mark.skipif(not TORCHVISION, reason="transformers' own processor needs torchvision")
def test_pixels_and_tilings_equal_those_of_torchvision() -> None:
    from transformers import PerceptionLMImageProcessor

    theirs, ours = PerceptionLMImageProcessor(**settings()), PlmImages(**settings())
    for shape in SHAPES:
        assert torch.equal(pixels(theirs, shape), pixels(ours, shape)), shape
    for most in (36, 4):
        theirs.max_num_tiles = most
        for width, height in itertools.product(range(10, 3000, 97), range(10, 3000, 89)):
            size = {"img_width": width, "img_height": height, "tile_size": 448}
            wanted = theirs._fit_image_to_canvas(**size)
            wanted = wanted or theirs._find_closest_aspect_ratio(**size)
            assert tiling(width, height, tile=448, most=most) == wanted, size


@pytest.mark.parametrize(
    ("size", "most", "grid"),
    [
        ((448, 448), 36, (6, 6)),
        ((800, 400), 36, (8, 4)),
        ((5000, 1000), 36, (12, 3)),
        ((90, 3000), 36, (1, 34)),
        ((2900, 1000), 4, (2, 1)),
        ((1000, 2900), 4, (1, 2)),
        ((3000, 1000), 4, (3, 1)),
    ],
)
def test_tilings(size: tuple[int, int], most: int, grid: tuple[int, int]) -> None:
    """As transformers tiles images of these sizes."""
    assert tiling(*size, tile=448, most=most) == grid


def unequal() -> list[Sample]:
    return [
        Sample("a", "What is this?", (picture(64, 48),)),
        Sample("b", "And these two?", (picture(90, 20, seed=1), picture(32, 32, seed=2))),
        Sample("c", "Hello"),
    ]


def test_unequal_tile_counts_go_into_one_batch() -> None:
    vlm = PlmChecks().vlm
    batch = vlm.encode(unequal())
    views = [one.patches for one in batch.layouts[Axis.VISION].samples]
    counts = [0 if grid is None else len(grid) // 16 for grid in views]
    assert len(set(counts)) == 3
    assert batch.inputs["pixel_values"].shape[:2] == (1, sum(counts))
    assert views[0] is not None
    assert views[0].view[0] == "global", "the thumbnail comes first"


def test_the_processor_itself_cannot_stack_them() -> None:
    images = [picture(64, 48), picture(90, 20)]
    with pytest.raises((ValueError, RuntimeError)):
        PlmImages(**settings())(images=images, return_tensors="pt")


def test_swapped_tiles_are_caught() -> None:
    class LastFirst(PlmAdapter):
        def process(self, prompts: Sequence[str], images: Any) -> dict[str, Any]:
            inputs = super().process(prompts, images)
            if "pixel_values" in inputs:
                inputs["pixel_values"] = inputs["pixel_values"].roll(-1, 1)
            return inputs

    kit = type("Kit", (PlmChecks,), {"adapter": LastFirst})()
    assert kit.run_check("layout_is_where_the_image_is").outcome == "failed"


def test_layers_before_pooling_have_their_own_order() -> None:
    """The projector's linear layers put patches before tiles; pooling them gives `projector`."""
    vlm = PlmChecks().vlm
    batch = vlm.encode(unequal()[:2])
    trace = vlm.trace(batch, ["projector", "projector.linear_2"])
    before, after = trace.select("projector.linear_2/image"), trace.select("projector/image")
    for fine, pooled in zip(before, after, strict=True):
        tiles = fine.reshape(-1, 2, 2, 2, 2, fine.shape[-1]).mean((2, 4))
        close(tiles.reshape(pooled.shape), pooled, scale=float(fine.abs().max()))


def test_a_missing_tower_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    PlmChecks().build(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    config["vision_config"] = {"model_type": "timm_wrapper", "architecture": "vit_pe_core_large"}
    (tmp_path / "config.json").write_text(json.dumps(config))
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    for make in (PlmAdapter.load, PlmAdapter.skeleton):
        with pytest.raises(MissingDependency) as found:
            make(LoadRequest(model=str(tmp_path), device="cpu"))
        assert "pip install timm torchvision" in str(found.value.hint)


@pytest.mark.parametrize(
    "path",
    [
        "model.language_model.layers.1.post_attention_layernorm",
        "model.multi_modal_projector.linear_2",
        "lm_head",
    ],
)
def test_paths_of_vlm_lens_are_still_there(path: str) -> None:
    assert [site.path for site in PlmChecks().vlm.sites.resolve(path)] == [path]


def test_the_backend_is_told() -> None:
    said = PlmChecks().vlm.describe()
    assert said["image_backend"] == ("torchvision" if TORCHVISION else "torch")


def test_kinds_of_the_tower() -> None:
    layout = PlmChecks().vlm.encode(unequal()[:1]).layouts[Axis.VISION].samples[0]
    assert set(layout.kinds.tolist()) == {TokenKind.IMAGE}, "SigLIP has no CLS token"


if __name__ == "__main__":
    from transformers import PerceptionLMImageProcessor

    GOLDEN.write_text(json.dumps(measured(PerceptionLMImageProcessor(**settings())), indent=1))
