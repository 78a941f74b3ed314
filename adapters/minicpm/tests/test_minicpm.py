"""MiniCPM-V: the conformance kit, merged patches, slices, chunks, positions, old paths."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from vlmlens.errors import SiteSilent
from vlmlens.hf import PlacedImage
from vlmlens.hf.recurrent import chunk_size
from vlmlens.samples import Sample
from vlmlens.sites import Axis
from vlmlens.testing.adapter import AdapterTests, distance
from vlmlens.testing.tiny import picture
from vlmlens.tokens import AxisLayout, PatchGrid
from vlmlens_adapter_minicpm.adapter import MiniCpmAdapter
from vlmlens_adapter_minicpm.checks import MiniCpm46Checks, MiniCpm47Checks, MiniCpmFineChecks


class TestMiniCpm46(MiniCpm46Checks):
    pass


class TestMiniCpm47(MiniCpm47Checks):
    pass


class TestMiniCpmFine(MiniCpmFineChecks):
    pass


def sliced() -> list[Sample]:
    """A picture of four slices, one of none, none."""
    return [
        Sample("a", "What is this?", (picture(64, 64),)),
        Sample("b", "And this?", (picture(24, 32, seed=1),)),
        Sample("c", "Hello"),
    ]


def test_the_tower_merges_patches_on_the_way() -> None:
    vlm = MiniCpm46Checks().vlm
    batch = vlm.encode(sliced()[:2])
    trace = vlm.trace(batch, ["vision.block.*", "projector"])
    rows = [sum(part.shape[0] for part in trace.select(f"{name}/image")) for name in trace]
    patches = int(batch.inputs["target_sizes"].prod(1).sum())
    assert rows == [patches, patches, patches // 4, patches // 16]


def test_overview_comes_first_then_slices() -> None:
    layout = MiniCpm46Checks().vlm.encode(sliced()).layout(0)
    assert layout.patches is not None
    assert list(dict.fromkeys(layout.patches.view)) == ["global", *(f"tile {i}" for i in range(4))]


def test_merged_rows_are_those_of_their_patches() -> None:
    """With blocks that pass their input on, a merged row depends on its own four patches only."""
    from vlmlens.testing._painting import painted_is_changed, still

    vlm = still(MiniCpm46Checks().load())
    plain = picture(64, 64)
    cell = (0.5, 0.25, 0.75, 0.5)
    painted = plain.copy()
    painted.paste((0, 255, 0), tuple(int(64 * edge) for edge in cell))
    found = []
    for image in (plain, painted):
        batch = vlm.encode([Sample("s", "?", (image,))])
        found.append(vlm.trace(batch, ["vision.block.2"]).select("vision.block.2/image")[0])
    layout = batch.layouts[Axis.VISION].at(len(found[0]))
    assert layout is not None
    grid = layout.samples[0].patches
    assert grid is not None
    changed = (found[0] - found[1]).norm(dim=1) > 1e-4
    assert not painted_is_changed(grid, cell, changed.nonzero()[:, 0].tolist())


class Transposed(MiniCpmAdapter):
    """Takes columns for rows."""

    def patch_grid(self, image: PlacedImage) -> PatchGrid:
        grid = super().patch_grid(image)
        assert grid is not None
        return replace(grid, box=grid.box[:, [1, 0, 3, 2]])


class OneResolution(MiniCpmAdapter):
    """Forgets that the tower merges patches."""

    def image_layouts(self, images: Any, grids: Any) -> Any:
        layouts = super().image_layouts(images, grids)
        return {axis: AxisLayout(one.total, one.samples) for axis, one in layouts.items()}


@pytest.mark.parametrize(
    ("adapter", "check"),
    [
        (Transposed, "layout_is_where_the_image_is"),
        (OneResolution, "sites_resolve_and_fire"),
    ],
)
def test_a_deliberate_mistake_is_caught(adapter: type[MiniCpmAdapter], check: str) -> None:
    kit: AdapterTests = type("Kit", (MiniCpm46Checks,), {"adapter": adapter})()
    assert kit.run_check(check).outcome == "failed"


def test_layers_of_the_merger_run_once_per_slice() -> None:
    vlm = MiniCpm46Checks().vlm
    with pytest.raises(SiteSilent, match="ran 5 times"):
        vlm.trace(vlm.encode(sliced()[:1]), ["projector.mlp.0.linear_2"])


def test_an_edit_of_the_projector_reaches_the_language_model() -> None:
    vlm = MiniCpm46Checks().vlm
    batch = vlm.encode(sliced()[:2])
    plain = vlm.trace(batch, ["projector"], logits="last")
    gone = vlm.trace(batch, ["projector"], logits="last", edits={"projector": torch.zeros_like})
    assert not gone["projector"].any()
    assert distance(plain.logits, gone.logits) > 1e-2


def test_padding_by_a_whole_chunk_changes_nothing() -> None:
    """So that generation may put whole chunks before a sample, where it must put something."""
    vlm = MiniCpm46Checks().vlm
    chunk = chunk_size(vlm.module)
    batch = vlm.encode(sliced()[:1])
    shape = batch.inputs["input_ids"].shape
    padded = {
        name: torch.nn.functional.pad(value, (chunk, 0)) if value.shape == shape else value
        for name, value in batch.inputs.items()
    }
    plain = vlm.forward(batch, logits="all").logits
    shifted = vlm.forward(replace(batch, inputs=padded), logits="all").logits
    assert plain is not None
    assert shifted is not None
    assert distance(plain, shifted[:, chunk:]) < 1e-5


def test_dropped_type_ids_are_an_error() -> None:
    vlm = MiniCpm47Checks().vlm
    batch = vlm.encode(sliced()[:1])
    inputs = {k: v for k, v in batch.inputs.items() if k != "mm_token_type_ids"}
    assert len(inputs) < len(batch.inputs)
    with pytest.raises(ValueError, match="mm_token_type_ids"):
        vlm.forward(replace(batch, inputs=inputs))


def test_an_earlier_image_does_not_shift_a_text() -> None:
    """4.7 keeps the positions of the last image in the model."""
    vlm = MiniCpm47Checks().load()
    text = vlm.encode(sliced()[2:])
    alone = vlm.generate(text, max_new_tokens=8)[0], vlm.forward(text, logits="last").logits
    vlm.generate(vlm.encode(sliced()[:1]), max_new_tokens=2)
    after = vlm.generate(text, max_new_tokens=8)[0], vlm.forward(text, logits="last").logits
    assert alone[0].token_ids == after[0].token_ids
    assert torch.equal(alone[1], after[1])  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("legacy", "now"),
    [
        ("llm.model.layers.1.mlp", "model.language_model.layers.1.mlp"),
        ("llm.lm_head", "lm_head"),
        ("vpm.encoder.layers.2.mlp.fc1", "model.vision_tower.encoder.layers.2.mlp.fc1"),
        ("vpm.post_layernorm", "model.vision_tower.post_layernorm"),
    ],
)
def test_legacy_paths(legacy: str, now: str) -> None:
    assert [site.path for site in MiniCpm46Checks().vlm.sites.resolve(legacy)] == [now]
