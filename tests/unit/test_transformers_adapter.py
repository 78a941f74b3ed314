"""The base for transformers models, on the demo model: encode, batch, load, read out."""

from __future__ import annotations

import importlib.util
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw

import vlmlens
from vlmlens.abc import LoadRequest
from vlmlens.errors import (
    CheckpointError,
    CheckpointGated,
    CheckpointNotFound,
    DataError,
    ImageError,
    MissingDependency,
    SpecError,
)
from vlmlens.hf import PlacedImage
from vlmlens.hf.checkpoints import explained
from vlmlens.hf.load_options import pick_device, pick_dtype
from vlmlens.samples import Sample
from vlmlens.sites import Axis
from vlmlens.testing._rounding import STEPS, close, is_close
from vlmlens.tokens import TokenKind
from vlmlens_plugins.demo.adapter import CHECKPOINT, DemoAdapter

# ---------------------------------------------------------------------- encode


def test_layout_of_a_sample(vlm: Any, scenes: list[Sample]) -> None:
    batch = vlm.encode([scenes[0], scenes[3]])
    layout = batch.layout(0)
    ids = batch.inputs["input_ids"].flatten()[layout.rows].tolist()
    assert ids == layout.token_ids.tolist()
    assert len(layout.positions(TokenKind.IMAGE)) == 64
    text = vlm.decode(layout.token_ids[layout.kinds == TokenKind.TEXT])
    assert scenes[0].prompt in text
    assert text.endswith("ASSISTANT:")
    special = layout.token_ids[layout.kinds == TokenKind.SPECIAL].tolist()
    assert special == [vlm.tokenizer.bos_token_id], "exactly one BOS"
    assert batch.layouts[Axis.LLM].total == batch.inputs["input_ids"].numel()


def test_batching_changes_nothing(vlm: Any, scenes: list[Sample]) -> None:
    """Padding included: the prompts differ in length. Ignoring the mask moves the numbers."""
    samples = [scenes[0], scenes[3], Sample("none", "Hello?"), scenes[9]]
    batch = vlm.encode(samples)
    assert not batch.inputs["attention_mask"].all()
    together = vlm.forward(batch, logits="last").logits
    for i, sample in enumerate(samples):
        single = vlm.forward(vlm.encode([sample]), logits="last").logits[0]
        close(together[i], single)
    blind = {**batch.inputs, "attention_mask": torch.ones_like(batch.inputs["attention_mask"])}
    with torch.inference_mode():
        wrong = vlm.module(**blind, logits_to_keep=1).logits[:, -1]
    assert (wrong - together).abs().max() > 1e-2, "the mask matters, so the test means something"


def test_logits_of_all_positions_end_in_the_last(vlm: Any, scenes: list[Sample]) -> None:
    batch = vlm.encode(scenes[:3])
    everything = vlm.forward(batch, logits="all").logits
    last = vlm.forward(batch, logits="last").logits
    close(everything[:, -1], last)
    assert vlm.forward(batch).logits is None


@pytest.mark.parametrize("answer", ["red", "striped", "a green thing"])
def test_answers_stand_where_the_model_writes_them(
    vlm: Any, scenes: list[Sample], answer: str
) -> None:
    """Scoring an appended answer equals scoring it token by token after the prompt."""
    ids = vlm.answer_ids(answer)
    assert vlm.decode(ids) == f" {answer}"
    samples = [scenes[0], scenes[3]]
    batch = vlm.encode(samples, answers=[answer, "no"])
    layout = batch.layout(0)
    where = layout.positions(TokenKind.ANSWER)
    assert layout.token_ids[where].tolist() == ids
    assert where.tolist() == list(range(len(layout) - len(ids), len(layout)))
    plain = vlm.forward(vlm.encode(samples), logits="last").logits[0]
    logits = vlm.forward(batch, logits="all").logits.flatten(0, 1)
    before = logits[int(layout.rows[where[0] - 1])]
    close(before, plain)


def test_ids_of_answers_are_the_callers_own_and_follow_the_template(
    vlm: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = vlm.answer_ids("red")
    ids.append(0)
    assert vlm.answer_ids("red") == ids[:-1], "they are kept, but not the list that was given"
    ending = f"{vlm.processor.chat_template}\n\t"
    monkeypatch.setattr(vlm.processor, "chat_template", ending)
    assert vlm.decode(vlm.answer_ids("red")) == "red", "white space stands before it already"


def test_generate_gives_text_only(vlm: Any, scenes: list[Sample]) -> None:
    texts = [one.text for one in vlm.generate(vlm.encode(scenes[:5]), max_new_tokens=3)]
    assert len(texts) == 5
    assert all("<" not in text for text in texts)
    assert texts[0].strip() in scenes[0].choices


def test_autocast_computes_products_in_another_type(vlm: Any, scenes: list[Sample]) -> None:
    cast = vlmlens.load("demo", dtype="float32", autocast="bfloat16")
    assert cast.describe()["autocast"] == "bfloat16"
    assert {parameter.dtype for parameter in cast.module.parameters()} == {torch.float32}
    batch = vlm.encode(scenes[:3])
    right = vlm.trace(batch, ["llm.block.2", "llm.block.2.mlp"], logits="last")
    found = cast.trace(batch, ["llm.block.2", "llm.block.2.mlp"], logits="last")
    assert found["llm.block.2.mlp"].dtype == torch.bfloat16
    far = (found["llm.block.2"] - right["llm.block.2"]).abs().max()
    assert 1e-5 < far / right["llm.block.2"].abs().max() < 0.05
    with pytest.raises(SpecError, match="float16 is not computed"):
        vlmlens.load("demo", autocast="float16", device="cpu")


def test_no_samples_and_unreadable_images(vlm: Any, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no sample"):
        vlm.encode([])
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"no image")
    with pytest.raises(ImageError, match=r"Sample 'x': .*broken\.png"):
        vlm.encode([Sample("x", "?", (str(broken),))])


@pytest.mark.parametrize("size", [(64, 64), (128, 128), (180, 96), (90, 200)])
def test_patch_boxes_point_at_the_right_pixels(vlm: Any, size: tuple[int, int]) -> None:
    """Painting one box of the image moves the embedding of that patch more than any other."""
    width, height = size
    plain = Image.new("RGB", size, (128, 128, 128))
    grid = vlm.patch_grid(PlacedImage(0, 0, 0, height, width, {}))
    assert len(grid) == 64
    for patch in (0, 7, 27, 63):
        left, top, right, bottom = grid.box[patch] * np.array([width, height, width, height])
        painted = plain.copy()
        ImageDraw.Draw(painted).rectangle(
            [left + 1, top + 1, max(right - 2, left + 1), max(bottom - 2, top + 1)],
            fill=(250, 0, 0),
        )
        batch = vlm.encode([Sample("a", "?", (plain,)), Sample("b", "?", (painted,))])
        trace = vlm.trace(batch, ["vision.embed"])
        a, b = trace.select("vision.embed/image")
        assert int((a - b).norm(dim=1).argmax()) == patch
        assert grid.row[patch] * 8 + grid.col[patch] == patch


# ---------------------------------------------------------------------- load


def test_skeleton_has_the_loaded_tree_and_no_weights(vlm: Any) -> None:
    skeleton = DemoAdapter.skeleton(LoadRequest())
    assert skeleton.sites.modules == vlm.sites.modules
    assert dict(skeleton.sites.canonical) == dict(vlm.sites.canonical)
    assert all(p.device.type == "meta" for p in skeleton.module.parameters())
    assert skeleton.dtype == vlm.dtype == "float32"
    assert skeleton.widths() == vlm.widths()


def test_widths_are_those_of_the_activations(vlm: Any, scenes: list[Sample]) -> None:
    widths = vlm.widths()
    sites = vlm.sites.resolve_all(["vision.*.*", "projector", "llm.*.*", "llm.block.1.mlp.*"])
    known = [site for site in sites if site.path in widths]
    trace = vlm.trace(vlm.encode(scenes[:1]), known)
    assert len(known) > 10
    for site in known:
        assert trace[site.name].shape[-1] == widths[site.path], site.name


def test_readout_is_the_models_own(vlm: Any, scenes: list[Sample]) -> None:
    readout = vlm.readout()
    batch = vlm.encode(scenes[:6])
    trace = vlm.trace(batch, [readout.site], logits="last")
    hidden = trace.select(f"{readout.site}/last")
    close(readout(hidden), trace.logits)
    assert not is_close(readout(hidden, norm=False), trace.logits, steps=100 * STEPS)


def test_bfloat16_is_kept_as_computed(scenes: list[Sample]) -> None:
    from vlmlens.abc import Options
    from vlmlens_plugins.extract.activations import ActivationExtractor

    half = vlmlens.load("demo", device="cpu", dtype="bfloat16")
    assert half.dtype == "bfloat16"
    assert DemoAdapter.skeleton(LoadRequest(dtype="bfloat16")).dtype == "bfloat16"
    batch = half.encode(scenes[:2])
    values = ActivationExtractor(half, ["llm.block.1/all"], Options()).extract(batch)
    stored = values["llm.block.1/all"]
    raw = half.trace(batch, ["llm.block.1"]).select("llm.block.1/all")
    assert stored.dtype == "bfloat16"
    assert raw[0].dtype == torch.bfloat16
    assert np.array_equal(stored.per_sample()[0], raw[0].float().numpy())


def test_what_cannot_be_loaded_says_why(tmp_path: Path) -> None:
    with pytest.raises(CheckpointNotFound, match="does not exist"):
        vlmlens.load("demo", str(tmp_path / "nowhere"))
    with pytest.raises(CheckpointNotFound, match="no checkpoint that loads") as caught:
        vlmlens.load("demo", str(tmp_path))
    assert "config.json" in caught.value.hint
    with pytest.raises(CheckpointNotFound, match="some-org/some-model") as caught:
        vlmlens.load("demo", "some-org/some-model")
    assert "HF_HUB_OFFLINE" in caught.value.hint
    gated = OSError("You are trying to access a gated repo.\nMake sure ...")
    with pytest.raises(CheckpointGated) as refused, explained("org/secret"):
        raise gated
    assert "https://huggingface.co/org/secret" in refused.value.hint


def test_devices_and_dtypes() -> None:
    cpu = torch.device("cpu")
    assert pick_device("cpu") == cpu
    with pytest.raises(SpecError, match="'nonsense'"):
        pick_device("nonsense")
    half = type("Config", (), {"dtype": torch.float16})()
    assert pick_dtype("auto", half, cpu) == torch.float32
    assert pick_dtype("auto", half, torch.device("cuda")) == torch.float16
    assert pick_dtype("auto", object(), cpu) == "auto"
    assert pick_dtype("bfloat16", half, cpu) == torch.bfloat16
    with pytest.raises(SpecError, match="not computed on a CPU"):
        pick_dtype("float16", half, cpu)


def test_a_family_without_a_default_needs_a_model() -> None:
    family = type("Family", (DemoAdapter,), {"default_model": None})
    with pytest.raises(SpecError, match="No checkpoint was named"):
        family.skeleton(LoadRequest())


def test_the_digest_sees_changed_weights(tmp_path: Path, vlm: Any) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(CHECKPOINT, copy)
    same = vlmlens.load("demo", str(copy)).describe()
    assert same["digest"] == vlm.describe()["digest"]
    weights = bytearray((copy / "model.safetensors").read_bytes())
    weights[-1] ^= 1
    (copy / "model.safetensors").write_bytes(weights)
    assert vlmlens.load("demo", str(copy)).describe()["digest"] != same["digest"]
    assert json.dumps(same), "what describes a model is JSON"


def test_large_files_are_sampled_from_end_to_end(tmp_path: Path, monkeypatch: Any) -> None:
    from vlmlens.hf import checkpoints

    monkeypatch.setattr(checkpoints, "_WHOLE_FILE", 100)
    monkeypatch.setattr(checkpoints, "_SLICE", 10)
    path = tmp_path / "model.safetensors"
    digests = set()
    for position in (0, 1999):
        content = bytearray(2000)
        content[position] = 1
        path.write_bytes(content)
        digests.add(checkpoints._folder_digest(tmp_path))
    assert len(digests) == 2


def test_missing_weights_are_an_error_that_lists_them(tmp_path: Path) -> None:
    """transformers alone would draw them at random and go on."""
    from safetensors.torch import load_file, save_file

    copy = tmp_path / "copy"
    shutil.copytree(CHECKPOINT, copy)
    weights = load_file(copy / "model.safetensors")
    lost = next(name for name in weights if "layers.3.mlp.down_proj" in name)
    del weights[lost]
    save_file(weights, copy / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(CheckpointError, match=r"lacks 1 weights .*layers\.3\.mlp\.down_proj"):
        vlmlens.load("demo", str(copy))


@pytest.mark.parametrize("bits", ["4bit", "8bit"])
def test_quantized_loading(bits: str) -> None:
    """Where bitsandbytes is installed it is used, else the error says what to install."""
    if importlib.util.find_spec("bitsandbytes") is None:
        for make in (DemoAdapter.load, DemoAdapter.skeleton):
            with pytest.raises(MissingDependency, match="bitsandbytes") as caught:
                make(LoadRequest(device="cpu", quantization=bits))
            assert "vlmlens[quantization]" in caught.value.hint
        return
    quantized = vlmlens.load("demo", device="cpu", quantization=bits)
    assert quantized.module.is_quantized
    assert quantized.describe()["quantization"] == bits


def test_device_map_and_attention_are_passed_on(vlm: Any, scenes: list[Sample]) -> None:
    pytest.importorskip("accelerate")
    spread = vlmlens.load("demo", device_map="auto", attention="eager")
    assert spread.describe()["attention"] == "eager"
    eager = spread.forward(spread.encode(scenes[:2]), logits="last").logits.cpu()
    sdpa = vlm.forward(vlm.encode(scenes[:2]), logits="last").logits
    close(eager, sdpa)
