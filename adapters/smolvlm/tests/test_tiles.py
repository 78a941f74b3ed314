"""Where the patches of SmolVLM lie, held against pixels that say where they come from."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from PIL import Image

from vlmlens.hf import PlacedImage
from vlmlens_adapter_smolvlm.checks import SmolVLM2Checks
from vlmlens_adapter_smolvlm.tiles import canvas, patches

SIZES = ((640, 480), (333, 800), (512, 512), (90, 61), (1400, 210))
"""(width, height)"""


def _processor(tile: int, edge: int, **settings: Any) -> Any:
    return transformers.Idefics3ImageProcessorPil(
        size={"longest_edge": edge}, max_image_size={"longest_edge": tile}, **settings
    )


def _places(width: int, height: int) -> Image.Image:
    """A picture whose red says how far to the right a pixel is, and whose green how far down."""
    x, y = np.meshgrid((np.arange(width) + 0.5) / width, (np.arange(height) + 0.5) / height)
    return Image.fromarray((np.stack([x, y, 0 * x], -1) * 255).round().astype(np.uint8))


def _read(processor: Any, image: Image.Image, patch: int) -> np.ndarray:
    """The middle of each patch as its pixels say: `[tiles, side, side, 2]`."""
    pixels = processor([[image]], return_tensors="np")["pixel_values"][0]
    side = pixels.shape[-1] // patch
    shown = (pixels[:, :2, : side * patch, : side * patch] + 1) / 2
    return shown.reshape(len(shown), 2, side, patch, side, patch).mean((3, 5)).transpose(0, 2, 3, 1)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(("tile", "patch", "edge"), [(64, 8, 256), (54, 10, 216), (48, 8, 48)])
def test_patches_lie_where_their_pixels_come_from(
    size: tuple[int, int], tile: int, patch: int, edge: int
) -> None:
    """Of 54 pixels, five patches of 10 leave four out: shares of 1/5 would be found wrong."""
    processor, (width, height) = _processor(tile, edge), size
    read = _read(processor, _places(width, height), patch)
    grid = patches(0, canvas(processor, height, width), tile, patch)
    middles = ((grid.box[:, :2] + grid.box[:, 2:]) / 2).reshape(read.shape)
    assert np.abs(read - middles).max() < 0.01
    assert np.abs(read - middles[:, ::-1]).max() > 0.1
    assert set(grid.view) >= {"global"}
    assert (grid.view[0] == "tile 0") == (len(read) > 1)


def test_shares_of_a_tile_without_its_rest_would_be_found_wrong() -> None:
    processor = _processor(54, 54)
    read = _read(processor, _places(100, 100), 10)
    wrong = patches(0, (1, 1), 50, 10)
    middles = ((wrong.box[:, :2] + wrong.box[:, 2:]) / 2).reshape(read.shape)
    assert np.abs(read - middles).max() > 0.05


@pytest.mark.parametrize("merged", [2, 4])
def test_tokens_lie_where_the_connector_takes_them_from(merged: int) -> None:
    """transformers' own pixel shuffle moves the middles of patches; a token is their mean."""
    tile, patch = 64, 4
    processor = _processor(tile, 256)
    size = canvas(processor, 480, 640)
    fine, coarse = (patches(0, size, tile, patch, merged=m) for m in (1, merged))
    side = tile // patch
    middles = torch.from_numpy((fine.box[:, :2] + fine.box[:, 2:]) / 2).reshape(-1, side**2, 2)
    vlm: Any = SmolVLM2Checks().vlm
    moved = vlm.module.model.connector.pixel_shuffle(middles, merged)
    means = moved.reshape(*moved.shape[:2], merged**2, 2).mean(2).reshape(-1, 2)
    wanted = (coarse.box[:, :2] + coarse.box[:, 2:]) / 2
    assert np.abs(means.numpy() - wanted).max() < 1e-6


@pytest.mark.parametrize(
    ("tile", "edge", "settings"),
    [
        (8, 32, {}),
        (9, 30, {}),
        (8, 4100, {"do_resize": False}),
        (8, 32, {"do_image_splitting": False}),
    ],
)
def test_the_canvas_is_that_of_the_processor(
    tile: int, edge: int, settings: dict[str, bool]
) -> None:
    processor, draw = _processor(tile, edge, **settings), random.Random(0)
    for _ in range(120):
        width, height = draw.randint(1, 70), draw.randint(1, 70)
        image = np.zeros((height, width, 3), np.uint8)
        found = processor([[Image.fromarray(image)]], return_row_col_info=True, return_tensors="np")
        cut = (found["rows"][0][0], found["cols"][0][0])
        wanted = (1, 1) if cut == (0, 0) else cut
        assert canvas(processor, height, width) == wanted, (width, height)
        tiles = found["pixel_values"].shape[1]
        assert tiles == (1 if cut == (0, 0) else cut[0] * cut[1] + 1)


@pytest.mark.parametrize(("size", "tiles"), [((4000, 3000), (3, 4)), ((1000, 2000), (4, 2))])
def test_the_canvas_of_the_real_settings(size: tuple[int, int], tiles: tuple[int, int]) -> None:
    """SmolVLM 256M and 500M: tiles of 512 pixels of at most 2048; 2.2B: of 384 of at most 1536."""
    for tile in (512, 384):
        assert canvas(_processor(tile, 4 * tile), size[1], size[0]) == tiles


def test_very_large_images_are_limited_as_in_transformers() -> None:
    processor = _processor(364, 5000)
    assert canvas(processor, 10, 5000) == (1, 12)  # 4096 pixels


def test_a_sample_of_two_images_numbers_them() -> None:
    vlm: Any = SmolVLM2Checks().vlm
    grids = [vlm.patch_grid(PlacedImage(0, i, i, 48, 64, {})) for i in (0, 1)]
    assert [set(grid.image.tolist()) for grid in grids] == [{0}, {1}]
