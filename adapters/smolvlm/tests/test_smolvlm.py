"""SmolVLM: the conformance kit, its options, its marks of tiles, and what it refuses."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from vlmlens.abc.adapter import LoadRequest
from vlmlens.errors import CheckpointError, MissingDependency
from vlmlens.hf import PlacedImage
from vlmlens.samples import Sample
from vlmlens.sites import Axis
from vlmlens.testing.tiny import picture
from vlmlens.tokens import PatchGrid, TokenKind
from vlmlens_adapter_smolvlm import number_words
from vlmlens_adapter_smolvlm.adapter import SmolVLMAdapter, SmolVLMOptions
from vlmlens_adapter_smolvlm.checks import SmolVLM2Checks, SmolVLMChecks, WholeImageChecks


class TestSmolVLM(SmolVLMChecks):
    pass


class TestSmolVLM2(SmolVLM2Checks):
    pass


class TestWholeImage(WholeImageChecks):
    pass


class _GlobalFirst(SmolVLMAdapter):
    """Puts the global view before the tiles."""

    def patch_grid(self, image: PlacedImage) -> PatchGrid:
        grid = super().patch_grid(image)
        views = [name == "global" for name in grid.view]
        order = sorted(range(len(grid)), key=lambda i: not views[i])
        return grid.take(order)  # type: ignore[arg-type]


class _Turned(SmolVLMAdapter):
    """Takes columns for rows."""

    def patch_grid(self, image: PlacedImage) -> PatchGrid:
        grid = super().patch_grid(image)
        grid.box[:] = grid.box[:, [1, 0, 3, 2]]
        return grid


@pytest.mark.parametrize("mistaken", [_GlobalFirst, _Turned])
def test_mistakes_are_caught(mistaken: type[SmolVLMAdapter]) -> None:
    kit = type(f"Kit{mistaken.__name__}", (SmolVLMChecks,), {"adapter": mistaken})
    assert kit().run_check("layout_is_where_the_image_is").outcome == "failed"


def _text(vlm: Any, sample: Sample) -> str:
    layout = vlm.encode([sample]).layout(0)
    return str(vlm.decode(layout.token_ids[layout.kinds == TokenKind.TEXT].tolist()))


@pytest.mark.parametrize("kit", [SmolVLMChecks, SmolVLM2Checks, WholeImageChecks])
def test_marks_of_tiles_are_no_text(kit: type[SmolVLMChecks]) -> None:
    """They are one token each, or spelled; line breaks of the user stay text."""
    two = (picture(64, 48), picture(40, 88, seed=1))
    said = _text(kit().vlm, Sample("a", "Why\n<image>is <image>\n it?", two))
    assert said == "User: Why\nis \n it?\nAssistant:"
    assert _text(kit().vlm, Sample("b", "What?", two[:1])) == "User:What?\nAssistant:"


def test_without_this_the_marks_would_be_text(monkeypatch: pytest.MonkeyPatch) -> None:
    vlm, sample = SmolVLM2Checks().vlm, Sample("b", "What?", (picture(64, 48),))
    monkeypatch.setattr("vlmlens_adapter_smolvlm.adapter.without_marks", lambda layout, *_: layout)
    assert "<row_2_col_1>" in _text(vlm, sample)


def test_tiles_of_a_sample_follow_each_other() -> None:
    """64 x 48 becomes 2 x 2 tiles, 40 x 88 becomes 2 x 1; and one global view each."""
    vlm = SmolVLMChecks().vlm
    none, two = Sample("t", "Hm?"), Sample("s", "Hm?", (picture(64, 48), picture(40, 88, seed=1)))
    batch = vlm.encode([none, two, Sample("u", "Hm?", (picture(9, 9),))])
    assert batch.inputs["pixel_values"].shape[:2] == (3, 8)
    for axis, each in ((Axis.VISION, 16), (Axis.PROJECTOR, 4)):
        layouts = batch.layouts[axis].samples
        assert [len(layout) for layout in layouts] == [0, 8 * each, 5 * each]
        assert layouts[1].rows.tolist() == list(range(8 * each))
        grid = layouts[1].patches
        assert grid is not None
        tiles = ["tile 0", "tile 1", "tile 2", "tile 3", "global"]
        expected = [(0, name) for name in tiles] + [(1, name) for name in (*tiles[:2], "global")]
        assert list(dict.fromkeys(zip(grid.image.tolist(), grid.view, strict=True))) == expected


@pytest.mark.parametrize(
    ("options", "tiles"),
    [
        (SmolVLMOptions(), 5),
        (SmolVLMOptions(tiles=False), 1),
        (SmolVLMOptions(longest_edge=32), 1),
        (SmolVLMOptions(longest_edge=96), 10),
    ],
)
def test_options_say_how_many_tiles(options: SmolVLMOptions, tiles: int) -> None:
    kit = SmolVLMChecks()
    vlm = SmolVLMAdapter.skeleton(LoadRequest(model=str(kit.checkpoint), options=options))
    batch = vlm.encode([Sample("a", "Hm?", (picture(64, 48),))])
    assert batch.inputs["pixel_values"].shape[1] == tiles
    assert len(batch.layout(0).positions(TokenKind.IMAGE)) == 4 * tiles


def test_tiles_may_be_asked_for_where_the_checkpoint_has_none() -> None:
    vlm = WholeImageChecks().load(options=SmolVLMOptions(tiles=True))
    batch = vlm.encode([Sample("a", "Hm?", (picture(64, 48),))])
    assert vlm.trace(batch, ["projector"])["projector"].shape[0] == 5


def test_a_processor_that_does_not_fit_the_model_is_refused(tmp_path: Path) -> None:
    folder = shutil.copytree(SmolVLMChecks().checkpoint, tmp_path / "copy")
    said = {"processor_class": "Idefics3Processor", "image_seq_len": 9}
    (folder / "processor_config.json").write_text(json.dumps(said))
    vlm = SmolVLMAdapter.skeleton(LoadRequest(model=str(folder)))
    with pytest.raises(
        CheckpointError, match="writes 9 image tokens for a tile; the model makes 4"
    ):
        vlm.encode([Sample("a", "Hm?")])


@pytest.mark.skipif(
    importlib.util.find_spec("num2words") is not None, reason="the package is installed"
)
def test_the_missing_package_is_lent_and_taken_back() -> None:
    from transformers.models.smolvlm import processing_smolvlm as module

    with number_words.number_words_lent():
        assert module.num2words(16) == "sixteen"
    assert module.num2words is None
    SmolVLM2Checks().load().encode([Sample("a", "Hm?")])
    assert module.num2words is None


def test_number_words_are_those_of_num2words() -> None:
    """The digest is of what num2words 0.5.14 writes for 0 to 999, one per line."""
    written = "\n".join(map(number_words.number_word, range(1000)))
    digest = hashlib.sha256(written.encode()).hexdigest()
    assert digest == "44b8794eade041b524b24719f83ec2503eb59cc551963f7f17cc5b38e7d0ab61"
    with pytest.raises(MissingDependency, match="1000 frames"):
        number_words.number_word(1000)


@pytest.mark.parametrize(
    ("path", "now"),
    [
        ("vision_model.encoder.layers.1", "model.vision_model.encoder.layers.1"),
        ("text_model.layers.0.mlp", "model.text_model.layers.0.mlp"),
        ("connector.modality_projection", "model.connector.modality_projection"),
    ],
)
def test_paths_of_the_inner_model_are_understood(path: str, now: str) -> None:
    assert [site.path for site in SmolVLMChecks().vlm.sites.resolve(path)] == [now]
