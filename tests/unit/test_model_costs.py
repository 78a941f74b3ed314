"""What README says of the costs of models is computed, and the count is torch's own."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from scripts import model_costs
from torch.utils.flop_counter import FlopCounterMode

from vlmlens.hf import PlacedImage

pytest.importorskip("vlmlens_adapter_smolvlm")
pytest.importorskip("vlmlens_adapter_llava")
checks = pytest.importorskip("vlmlens_adapter_smolvlm.checks")


@pytest.mark.parametrize("kit", ["SmolVLMChecks", "SmolVLM2Checks", "WholeImageChecks"])
def test_operations_are_those_that_torch_counts(kit: str) -> None:
    made = getattr(checks, kit)()
    vlm: Any = made.load(attention="eager")
    batch = vlm.encode(made.samples[:1])
    with FlopCounterMode(display=False) as counted:
        vlm.forward(batch)
    tower, connector, text = (
        vlm.module.get_submodule(path) for path in model_costs.MODELS[0].parts
    )
    tiles, side = batch.inputs["pixel_values"].shape[1], made.tile // made.patch
    work = tiles * model_costs.block_work(tower, vlm.config.vision_config, side**2)
    work += model_costs.matrix_work(connector, tiles * (side // made.scale) ** 2)
    length = batch.inputs["input_ids"].shape[1]
    work += model_costs.block_work(text, vlm.config.text_config, length)
    assert counted.get_total_flops() == work


def test_the_shapes_are_those_of_the_named_models() -> None:
    """Their names say 256 M, 2.2 B and 7 B parameters."""
    found = [model_costs.cost(model, model.tiles) for model in model_costs.MODELS]
    small, middle, large = (each.parameters for each in found)
    assert 256e6 < small < 257e6
    assert 2.2e9 < middle < 2.3e9
    assert 7.0e9 < large < 7.1e9


@pytest.mark.parametrize("model", model_costs.MODELS[:2], ids=lambda model: model.name)
def test_tiles_and_tokens_are_those_of_the_adapter(model: model_costs.Model) -> None:
    """A photo of 4:3 in the published settings: tiles of the tower's size, four along a side."""
    transformers = pytest.importorskip("transformers")
    vlm: Any = model.skeleton()
    tile = vlm.config.vision_config.image_size
    images = transformers.Idefics3ImageProcessorPil(
        size={"longest_edge": 4 * tile}, max_image_size={"longest_edge": tile}
    )
    vlm.processor = type("Processor", (), {"image_processor": images})
    grid = vlm.patch_grid(PlacedImage(0, 0, 0, 3000, 4000, {}))
    assert len(grid) == model.tiles * model.tokens
    assert len(set(grid.view)) == model.tiles


def test_disk_is_the_width_of_each_column() -> None:
    """By hand: 12 vision blocks of 768, the projector and 30 language blocks of 576, two bytes."""
    assert model_costs.cost(model_costs.MODELS[0], 1).disk == 2 * 1000 * (12 * 768 + 31 * 576)


def test_readme_has_the_computed_table() -> None:
    assert model_costs.PAGE.read_text(encoding="utf-8") == model_costs.page()


def test_another_shape_costs_something_else() -> None:
    one, all_tiles = (model_costs.cost(model_costs.MODELS[0], tiles) for tiles in (1, 13))
    assert 10 < all_tiles.work / one.work < 13.1
    assert all_tiles.seconds(2e12) == pytest.approx(all_tiles.work / 2e9)
    assert torch.get_default_dtype() is torch.float32
