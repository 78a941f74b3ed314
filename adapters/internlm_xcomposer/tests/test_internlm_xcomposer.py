"""InternLM-XComposer 2.5: the conformance kit, where tokens lie, prompts, sites, answers."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import pytest
import torch

from vlmlens.abc.adapter import LoadRequest
from vlmlens.errors import DataError, SelectorError, SiteSilent
from vlmlens.hf import PlacedImage
from vlmlens.samples import Sample
from vlmlens.sites import Axis
from vlmlens.testing._painting import changed_tokens, paint_cells, painted_is_changed, still
from vlmlens.testing._rounding import close
from vlmlens.testing.tiny import picture
from vlmlens.tokens import PatchGrid, TokenKind
from vlmlens_adapter_internlm_xcomposer import adapter as adapters
from vlmlens_adapter_internlm_xcomposer.adapter import XComposerAdapter
from vlmlens_adapter_internlm_xcomposer.checks import XComposerChecks, XComposerWriteChecks
from vlmlens_adapter_internlm_xcomposer.regions import image_rows, sequence_grid, tower_grid
from vlmlens_adapter_internlm_xcomposer.tiling import canvas


class TestXComposer(XComposerChecks):
    pass


class TestXComposerWrite(XComposerWriteChecks):
    pass


@cache
def loaded() -> XComposerAdapter:
    vlm = XComposerChecks().vlm
    assert isinstance(vlm, XComposerAdapter)
    return vlm


def test_the_kits_samples_lie_on_both_sides_of_where_scaling_begins() -> None:
    kit = XComposerChecks()
    lengths = [len(layout) for layout in kit.vlm.encode(kit.samples).layouts[Axis.LLM].samples]
    assert min(lengths) < loaded().config.max_position_embeddings < max(lengths)


# ---------------------------------------------------------------------- where tokens lie


class TilesFirst(XComposerAdapter):
    """Believes that the tiles come before the whole."""

    def patch_grid(self, image: PlacedImage) -> PatchGrid:
        grid = super().patch_grid(image)
        tiles = [i for i, view in enumerate(grid.view) if view == "tiles"]
        whole = [i for i, view in enumerate(grid.view) if view == "global"]
        return grid.take(np.array(tiles + whole))


class Squeezed(XComposerAdapter):
    """Believes that the image fills its canvas."""

    def patch_grid(self, image: PlacedImage) -> PatchGrid:
        grid = super().patch_grid(image)
        grid.box[:] /= np.nanmax(grid.box, axis=0)[[2, 3, 2, 3]]
        return grid


@pytest.mark.parametrize("wrong", [TilesFirst, Squeezed])
def test_a_wrong_grid_is_caught(wrong: type[XComposerAdapter]) -> None:
    kit = type("Wrong", (XComposerChecks,), {"adapter": wrong})()
    assert kit.run_check("layout_is_where_the_image_is").outcome == "failed"


def test_the_tokens_of_an_image_and_its_padding() -> None:
    """64 x 48 pixels on 3 x 3 tiles of 28: resized to 84 x 63, padded to 84 x 84."""
    grid = sequence_grid(5, canvas(64, 48, 28, 24), 2)
    assert len(grid) == 2 * 3 + 1 + 6 * 7
    ends = np.flatnonzero(np.isnan(grid.box).any(1))
    assert ends.tolist() == [2, 5, 6, *range(13, 49, 7)]
    assert set(grid.image.tolist()) == {5}
    np.testing.assert_allclose(grid.box[0], [0, 0, 0.5, 42 / 63], atol=1e-6)
    np.testing.assert_allclose(grid.box[4], [0.5, 42 / 63, 1, 84 / 63], atol=1e-6)
    np.testing.assert_allclose(grid.box[7], [0, 0, 1 / 6, 14 / 63], atol=1e-6)
    np.testing.assert_allclose(grid.box[47], [5 / 6, 70 / 63, 1, 84 / 63], atol=1e-6)
    assert grid.view[:3] == ("global",) * 3
    assert grid.view[7:] == ("tiles",) * 42


def test_an_upright_image_is_padded_at_its_right() -> None:
    grid = sequence_grid(0, canvas(48, 64, 28, 24), 2)
    assert float(np.nanmax(grid.box[:, 2])) == pytest.approx(84 / 63)
    assert float(np.nanmax(grid.box[:, 3])) == pytest.approx(1)


def test_the_tower_sees_tile_after_tile() -> None:
    grid = tower_grid(0, canvas(64, 20, 28, 24), 4)
    assert grid.view == ("global",) * 16 + tuple(f"tile {i}" for i in range(3) for _ in range(16))
    np.testing.assert_allclose(grid.box[32], [1 / 3, 0, 1 / 3 + 1 / 12, 7 / 26], atol=1e-6)


def test_the_towers_patches_are_where_the_image_is() -> None:
    vlm = still(XComposerChecks().load())
    plain = picture(64, 48)
    grid, cells = paint_cells(vlm, plain, Axis.VISION)
    assert len(grid) == 10 * 16
    painted = [image for _, image in cells]
    found = changed_tokens(vlm, plain, painted, "vision.block.0", Axis.VISION)
    for (cell, _), changed in zip(cells, found, strict=True):
        assert not painted_is_changed(grid, cell, changed)


def test_layouts_of_a_mixed_batch() -> None:
    vlm = loaded()
    one = Sample("one", "What?", (picture(64, 48),))
    two = Sample("two", "Which?", (picture(64, 48), picture(20, 20)))
    batch = vlm.encode([one, Sample("none", "Hello"), two])
    assert batch.inputs["image_grids"].tolist() == [[3, 3], [2, 2], [1, 1]]
    assert batch.inputs["pixel_values"].shape == (10 + 5 + 2, 3, 28, 28)

    tower = batch.layouts[Axis.VISION]
    assert tower.total == 17 * 17
    assert [len(sample) for sample in tower.samples] == [170, 0, 119]
    tokens = batch.layouts[Axis.PROJECTOR]
    assert [len(sample) for sample in tokens.samples] == [49, 0, 27 + 13]
    assert tokens.total == 89
    for i in (0, 2):
        row, sequence = tokens.samples[i], batch.layout(i)
        assert row.patches is not None
        assert sequence.patches is not None
        np.testing.assert_array_equal(row.patches.box, sequence.patches.box)
        assert len(row.positions(TokenKind.IMAGE)) == len(sequence.positions(TokenKind.IMAGE))
    assert batch.layout(1).patches is None
    patches = batch.layout(2).patches
    assert patches is not None
    assert sorted(set(patches.image.tolist())) == [0, 1]


def test_modules_that_see_image_tokens_only_have_their_rows() -> None:
    vlm = loaded()
    one = Sample("one", "What?", (picture(64, 48),))
    other = Sample("other", "Name it:", (picture(40, 88, seed=1),))
    paths = ["vit", "vision_proj.0", "model.layers.1.attention.wqkv.Plora_A",
             "llm.block.0.feed_forward.w2.Plora_B"]  # fmt: skip
    together = vlm.trace(vlm.encode([one, other]), paths)
    for i, sample in enumerate((one, other)):
        single = vlm.trace(vlm.encode([sample]), paths)
        for site in together:
            for selector in ("all", "image", "special"):
                batched, alone = (t.select(f"{site}/{selector}") for t in (together, single))
                assert isinstance(batched, list)
                close(batched[i], alone[0])
    name = "llm.block.1.attention.wqkv.Plora_A"
    assert together[name].shape == (49 + 47, 6)
    whole = vlm.trace(vlm.encode([one]), ["llm.block.1.attention_norm", name])
    normed = whole.select("llm.block.1.attention_norm/image")
    down = vlm.module.get_submodule("model.layers.1.attention.wqkv.Plora_A")
    seen = whole.select(f"{name}/image")
    close(seen[0], down(normed[0]))


def test_image_branches_are_silent_without_an_image() -> None:
    vlm = loaded()
    name = "model.layers.0.attention.wqkv.Plora_A"
    with pytest.raises(SiteSilent, match="did not run"):
        vlm.trace(vlm.encode([Sample("n", "Hello")]), [name])
    mixed = vlm.encode([Sample("n", "Hello"), Sample("o", "What?", (picture(20, 20),))])
    trace = vlm.trace(mixed, [name])
    with pytest.raises(SelectorError, match="keeps no token"):
        trace.select("llm.block.0.attention.wqkv.Plora_A/all")


def test_rows_without_images_are_none() -> None:
    layout = image_rows([None, None])
    assert layout.total == 0
    assert [len(sample) for sample in layout.samples] == [0, 0]


# ---------------------------------------------------------------------- sites


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("model.layers.1", "llm.block.1"),
        ("model.layers.0.attention", "llm.block.0.attention"),
        ("model.layers.0.attention.wqkv", "llm.block.0.attention.wqkv"),
        ("model.layers.0.feed_forward.w2.lora_web_A", "llm.block.0.feed_forward.w2.lora_web_A"),
        ("vit.vision_tower.vision_model.encoder.layers.1", "vision.block.1"),
        ("vit.vision_tower.vision_model.pre_layrnorm",) * 2,
        ("vision_proj", "projector"),
        ("vision_proj.2", "projector.2"),
        ("vit", "vit"),
        ("model.norm", "llm.norm"),
        ("output", "llm.head"),
        ("model.tok_embeddings", "llm.embed"),
        ("llm.block.1.mlp", "llm.block.1.feed_forward"),
        ("llm.block.1.mlp.w1", "llm.block.1.feed_forward.w1"),
    ],
)
def test_paths_of_upstreams_code(path: str, name: str) -> None:
    assert [site.name for site in loaded().sites.resolve(path)] == [name]


# ---------------------------------------------------------------------- prompts


def shown(prompt: str, images: int) -> str:
    """The prompt as the model gets it, the tokens of an image told as one, its end trimmed."""
    pictures = tuple(picture(20, 20, seed=i) for i in range(images))
    ids = loaded().encode([Sample("q", prompt, pictures)]).inputs["input_ids"][0].tolist()
    return loaded().decode(ids).replace("<ImageHere>" * 13, "#")


TURN = "[UNUSED_TOKEN_146]user\n{}[UNUSED_TOKEN_145]\n[UNUSED_TOKEN_146]assistant"


def test_where_images_stand_in_the_prompt() -> None:
    assert shown("Hello", 0) == "<s>" + TURN.format("Hello")
    assert shown("What?", 1) == "<s>#" + TURN.format("What?")
    assert shown("<ImageHere>; What?", 1) == "<s>" + TURN.format("#; What?")
    assert shown("Which?", 2) == "<s>" + TURN.format("Image1 #; Image2 #; Which?")
    assert shown("<ImageHere><ImageHere>", 2) == "<s>" + TURN.format("##")


@pytest.mark.parametrize(
    ("prompt", "images"), [("<ImageHere>?", 2), ("<ImageHere> <ImageHere>", 1)]
)
def test_places_and_images_differ_in_number(prompt: str, images: int) -> None:
    with pytest.raises(DataError, match=f"<ImageHere>, the sample {images} image"):
        shown(prompt, images)


def test_without_an_image_its_place_is_left_out() -> None:
    assert shown("<ImageHere>What?", 0) == shown("What?", 0)


def test_a_sequence_that_is_too_long_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loaded().config, "longest", 40)
    with pytest.raises(DataError, match="reads 40"):
        shown("What do you see in this picture?", 1)


def test_an_image_that_is_too_narrow_is_refused() -> None:
    with pytest.raises(DataError, match="too narrow"):
        canvas(20000, 1, 560, 24)


def test_bytes_are_read_as_text() -> None:
    """Letters that no piece has are cut into bytes, and come back as letters."""
    vlm, text = loaded(), "Grüße, 你好!"
    ids = vlm.answer_ids(text)
    assert len(ids) > len(text)
    assert vlm.decode(ids) == text
    assert vlm.written(torch.tensor([ids]))[0].text == text


# ---------------------------------------------------------------------- answers


def test_an_answer_scores_as_the_model_would_write_it() -> None:
    """In one pass as step by step with a cache, although each step scales positions anew."""
    vlm = loaded()
    sample, answer = Sample("s", "What is this?", (picture(64, 48),)), "a large thing, yes yes"
    prompt = vlm.encode([sample])
    length, trained = prompt.inputs["input_ids"].shape[1], vlm.config.max_position_embeddings
    ids = vlm.answer_ids(answer)
    assert length < trained < length + len(ids)
    steps = [vlm.module(**prompt.inputs, use_cache=True)]
    for number in ids[:-1]:
        cache = steps[-1].past_key_values
        step = torch.tensor([[number]])
        steps.append(vlm.module(step, past_key_values=cache, use_cache=True))
    written = torch.stack([step.logits[0, -1] for step in steps])

    batch = vlm.encode([sample, Sample("t", "Hm?")], answers=[answer, "no"])
    once = vlm.forward(batch, logits="all").logits
    assert once is not None
    close(once[0, -len(ids) - 1 : -1], written)

    plain = {k: v for k, v in batch.inputs.items() if k != "prompt_lengths"}
    wrong = vlm.module(**plain).logits[0, -len(ids) - 1 : -1]
    assert float((wrong - written).abs().max()) > 0.01


def test_positions_without_features_are_an_error() -> None:
    vlm = loaded()
    batch = vlm.encode([Sample("s", "What?", (picture(20, 20),))])
    ids = batch.inputs["input_ids"].clone()
    ids[ids == vlm.image_token_id] = torch.tensor([5] + [vlm.image_token_id] * 12)
    with pytest.raises(ValueError, match="12 image positions, 13 image features"):
        vlm.module(**{**batch.inputs, "input_ids": ids})


def test_the_mode_is_an_option_and_is_told() -> None:
    request: dict[str, Any] = {"model": str(XComposerChecks().checkpoint), "device": "cpu"}
    told = []
    for mode in ("base", "web", "write"):
        options = adapters.XComposerOptions.model_validate({"infer_mode": mode})
        vlm = XComposerAdapter.load(LoadRequest(**request, options=options))
        told.append(vlm.describe()["infer_mode"])
    assert told == ["base", "web", "write"]
    with pytest.raises(ValueError, match="infer_mode"):
        adapters.XComposerOptions.model_validate({"infer_mode": "dpo"})
