"""LLaVA-NeXT: the conformance kit, legacy paths, tiles and newline features."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest

from vlmlens.hf import PlacedImage
from vlmlens.samples import Sample
from vlmlens.sites import Axis
from vlmlens.testing._painting import still
from vlmlens.testing.tiny import picture
from vlmlens.tokens import PatchGrid, TokenKind
from vlmlens_adapter_llavanext.adapter import LlavaNextAdapter
from vlmlens_adapter_llavanext.checks import LlavaNextChecks

SHAPES = ((64, 48), (40, 88), (64, 64), (100, 30), (21, 90))


class TestLlavaNext(LlavaNextChecks):
    pass


@pytest.mark.parametrize(
    ("legacy", "now"),
    [
        ("language_model.model.layers.1.post_attention_layernorm",
         "model.language_model.layers.1.post_attention_layernorm"),
        ("language_model.lm_head", "lm_head"),
        ("vision_tower.vision_model.encoder.layers.2.mlp.fc1",
         "model.vision_tower.encoder.layers.2.mlp.fc1"),
        ("multi_modal_projector.linear_2", "model.multi_modal_projector.linear_2"),
    ],
)  # fmt: skip
def test_legacy_paths(legacy: str, now: str) -> None:
    assert [site.path for site in LlavaNextChecks().vlm.sites.resolve(legacy)] == [now]


def test_newline_features_are_special_tokens_with_the_image_tokens_id() -> None:
    vlm = LlavaNextChecks().vlm
    layout = vlm.encode([Sample("s", "Hm?", (picture(64, 48),))]).layout(0)
    assert layout.token_ids is not None
    assert layout.patches is not None
    placeholders = np.flatnonzero(layout.token_ids == vlm.image_token_id)  # type: ignore[attr-defined]
    kinds = layout.kinds[placeholders]
    assert (kinds[:16] == TokenKind.IMAGE).all()
    rows, cols = int(layout.patches.rows[-1]), int(layout.patches.cols[-1])
    assert (rows, cols) == (6, 8), "64 x 48 fills 64 x 48 of the canvas of 64 x 64"
    by_row = kinds[16:].reshape(rows, cols + 1)
    assert (by_row[:, :-1] == TokenKind.IMAGE).all()
    assert (by_row[:, -1] == TokenKind.SPECIAL).all()
    assert set(layout.patches.view) == {"global", "tiles"}


def test_newline_features_are_all_the_same_vector() -> None:
    """They stand where the layout says: there, the language model sees `image_newline`."""
    vlm: Any = still(LlavaNextChecks().load())
    for shape in SHAPES:
        batch = vlm.encode([Sample("s", "Hm?", (picture(*shape),))])
        layout = batch.layout(0)
        hidden = vlm.trace(batch, ["llm.block.0"])["llm.block.0"].flatten(0, 1)
        ours = (layout.token_ids == vlm.image_token_id) & (layout.kinds == TokenKind.SPECIAL)
        newline = vlm.module.model.image_newline
        same = (hidden[layout.rows] == newline).all(1).numpy()
        assert (same == ours).all(), shape


def test_the_sequence_shows_what_the_tiles_show() -> None:
    """A token of the sequence and a tile's patch with the same box are the same feature."""
    vlm = still(LlavaNextChecks().load())
    for shape in SHAPES:
        batch = vlm.encode([Sample("s", "Hm?", (picture(*shape),))])
        trace = vlm.trace(batch, ["projector", "llm.block.0"])
        features = {
            axis: _by_box(batch.layout(0, axis), trace[name].flatten(0, 1))
            for axis, name in ((Axis.PROJECTOR, "projector"), (Axis.LLM, "llm.block.0"))
        }
        missing = set(features[Axis.LLM]) - set(features[Axis.PROJECTOR])
        assert not missing, shape
        for box, feature in features[Axis.LLM].items():
            assert (feature == features[Axis.PROJECTOR][box]).all(), (shape, box)


def _by_box(layout: Any, flat: Any) -> dict[Any, Any]:
    rows = layout.rows[layout.kinds == TokenKind.IMAGE]
    views = ["global" if view == "global" else "tiles" for view in layout.patches.view]
    boxes = np.round(layout.patches.box.astype(float), 4).tolist()
    return {(view, *box): flat[row] for view, box, row in zip(views, boxes, rows, strict=True)}


def test_token_counts_of_many_shapes() -> None:
    vlm: Any = LlavaNextChecks().vlm
    draw = random.Random(0)
    for _ in range(300):
        width, height = draw.randint(1, 400), draw.randint(1, 400)
        image = PlacedImage(0, 0, 0, height, width, {})
        expected = vlm.processor._get_number_of_features(height, width, 32, 32) - 1
        assert len(vlm.patch_grid(image)) == expected, (width, height)


class _NoNewlines(LlavaNextAdapter):
    def patch_grid(self, image: PlacedImage) -> PatchGrid:
        grid = super().patch_grid(image)
        return grid.take(np.flatnonzero(~np.isnan(grid.box).any(1)))


class _TilesFirst(LlavaNextAdapter):
    def tile_grids(self, image: PlacedImage) -> list[PatchGrid]:
        first, *tiles = super().tile_grids(image)
        return [*tiles, first]


class _Unpadded(LlavaNextAdapter):
    def patch_grid(self, image: PlacedImage) -> PatchGrid:
        """Takes the canvas for the image."""
        grid = super().patch_grid(image)
        box = np.stack(
            [grid.col / grid.cols, grid.row / grid.rows,
             (grid.col + 1) / grid.cols, (grid.row + 1) / grid.rows], 1,
        )  # fmt: skip
        own = np.array([view == "tiles" for view in grid.view])
        grid.box[own] = np.roll(box, 3, axis=0)[own]
        return grid


@pytest.mark.parametrize("mistaken", [_NoNewlines, _TilesFirst, _Unpadded])
def test_mistakes_are_caught(mistaken: type[LlavaNextAdapter]) -> None:
    class Mistaken(LlavaNextChecks):
        @property
        def adapter(self) -> type[LlavaNextAdapter]:
            return mistaken

    outcome = Mistaken().run_check("layout_is_where_the_image_is")
    assert outcome.outcome == "failed"


def test_tiles_of_a_sample_follow_each_other() -> None:
    """64 x 48 becomes 1 + 4 tiles, 40 x 88 becomes 1 + 3, each of 16 patches and a CLS token."""
    vlm = LlavaNextChecks().vlm
    two = Sample("s", "Hm?", (picture(64, 48), picture(40, 88, seed=1)))
    batch = vlm.encode([two, Sample("t", "Hm?", (picture(64, 64),))])
    vision, projector = batch.layout(0, Axis.VISION), batch.layout(0, Axis.PROJECTOR)
    assert vision.rows.tolist() == list(range(17 * 9))
    assert (vision.kinds.reshape(9, 17)[:, 0] == TokenKind.SPECIAL).all()
    assert projector.rows.tolist() == list(range(16 * 9))
    assert projector.patches is not None
    views = list(zip(projector.patches.image.tolist(), projector.patches.view, strict=True))
    tiles = ["global", "tile 0", "tile 1", "tile 2", "tile 3"]
    expected = [(0, name) for name in tiles] + [(1, name) for name in tiles[:4]]
    assert list(dict.fromkeys(views)) == expected
