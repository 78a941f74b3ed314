"""Janus: the conformance kit, its norm that runs twice, its padding, its silent modules."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from PIL import Image

from vlmlens.errors import SiteShapeError, SiteSilent
from vlmlens.hf import PlacedImage, RasterAdapter
from vlmlens.samples import Sample
from vlmlens.sites import Axis, Site
from vlmlens.testing._painting import changed_tokens, still
from vlmlens.testing.tiny import picture
from vlmlens_adapter_janus.adapter import JanusAdapter
from vlmlens_adapter_janus.checks import JanusChecks

NORM = "model.vision_model.post_layernorm"


class TestJanus(JanusChecks):
    pass


class Squashes(JanusAdapter):
    """Believes that the image fills the square."""

    geometry = RasterAdapter.geometry


def test_ignored_padding_is_caught() -> None:
    kit = type("KitSquashes", (JanusChecks,), {"adapter": Squashes})
    result = kit().run_check("layout_is_where_the_image_is")
    assert result.outcome == "failed", result


def test_outer_cells_lie_outside_the_image() -> None:
    tests = JanusChecks()
    vlm = still(tests.load())
    wide, other = picture(64, 32), picture(64, 32, seed=2).rotate(180)
    grid = vlm.encode([Sample("w", "?", (wide,))]).layout(0).patches
    assert grid is not None
    outside = {i for i in range(len(grid)) if grid.box[i, 3] <= 0 or grid.box[i, 1] >= 1}
    assert outside == {*range(4), *range(12, 16)}
    for site, axis in (("vision.block.0", Axis.VISION), ("llm.block.0", Axis.LLM)):
        (changed,) = changed_tokens(vlm, wide, [other], site, axis)
        assert set(changed) == set(range(16)) - outside


@pytest.mark.parametrize("size", [(64, 48), (40, 88), (200, 4), (7, 333), (33, 33)])
def test_the_geometry_is_the_processors(size: tuple[int, int]) -> None:
    vlm: Any = JanusChecks().vlm
    width, height = size
    geometry = vlm.geometry(PlacedImage(0, 0, 0, height, width, {}))
    processor = vlm.processor.image_processor
    resized = processor(picture(*size), do_pad=False)["pixel_values"][0]
    assert (geometry.height, geometry.width) == tuple(resized.shape[-2:])
    white = Image.new("RGB", size, "white")
    padded = processor(white, do_normalize=False)["pixel_values"][0]
    rows, columns = np.nonzero(np.asarray(padded).min(0) > 0.99)
    assert (-geometry.top, -geometry.left) == (rows[0], columns[0])


def test_the_norm_is_its_first_call() -> None:
    tests = JanusChecks()
    batch = tests.vlm.encode(tests.samples)
    [site] = tests.vlm.sites.resolve(NORM)
    assert (site.name, site.call) == ("vision.norm", 0)
    trace = tests.vlm.trace(batch, ["vision.block.-1", "vision.norm", "vision.norm#1"])
    norm = tests.vlm.module.get_submodule(NORM)
    patches = norm(trace["vision.block.1"])
    assert trace["vision.norm"].equal(patches)
    assert trace["vision.norm#1"].equal(norm(patches[:, 0]))
    assert len(trace.select("vision.norm/image.mean")) == len(tests.samples)
    with pytest.raises(SiteShapeError):
        trace.select("vision.norm#1/image.mean")


def test_the_norm_without_a_call_is_refused() -> None:
    tests = JanusChecks()
    batch = tests.vlm.encode(tests.samples[:1])
    with pytest.raises(SiteSilent, match="ran 2 times"):
        tests.vlm.trace(batch, [Site("norm", NORM, Axis.VISION)])


@pytest.mark.parametrize("path", ["model.generation_head", "model.vqmodel.encoder.conv_in"])
def test_what_draws_images_is_silent(path: str) -> None:
    tests = JanusChecks()
    with pytest.raises(SiteSilent, match="did not run"):
        tests.vlm.trace(tests.vlm.encode(tests.samples[:1]), [path])


@pytest.mark.parametrize(
    ("known", "name"),
    [
        ("model.language_model.layers.1.post_attention_layernorm",
         "llm.block.1.post_attention_layernorm"),
        ("model.vision_model.encoder.layers.0.self_attn.projection_layer",
         "vision.block.0.self_attn.projection_layer"),
        ("model.aligner.hidden_layers.0", "projector.hidden_layers.0"),
        ("model.language_model.norm", "llm.norm"),
        ("lm_head", "llm.head"),
    ],
)  # fmt: skip
def test_paths_of_old_logs_are_still_true(known: str, name: str) -> None:
    [site] = JanusChecks().vlm.sites.resolve(known)
    assert (site.name, site.path) == (name, known)
