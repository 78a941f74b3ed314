"""MiniCPM-V 2, V 2.6 and o 2.6 against numbers that their own remote code gave.

`data/v2`, `data/v2_6` and `data/o_2_6` hold tiny checkpoints with random weights in upstream's
layout and what openbmb's code computed with them, in float32 on a CPU: some numbers of every row of
each recorded tensor. `data/v2/tokenizer.model` was made of the golden's vocabulary.
"""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from transformers.activations import ACT2FN

from vlmlens.abc import Batch
from vlmlens.abc.adapter import LoadRequest, ModelAdapter
from vlmlens.samples import Sample
from vlmlens.testing._goldens import far, kept_of, read_thinned
from vlmlens.testing._rounding import close
from vlmlens_adapter_minicpm.adapter import MiniCpmAdapter
from vlmlens_adapter_minicpm.older import resampler, towers

DATA = Path(__file__).parent / "data"
GOLDENS = {"v2": 58, "v2_6": 33, "o_2_6": 33}
"""Recorded stages of each."""
RTOL, ATOL = 1e-4, 5e-5
"""The goldens' suggestion; a wrong epsilon, GELU or table moves the numbers by 1e-3 or more."""


def fresh(golden: str, **settings: Any) -> Any:
    chosen = {"device": "cpu", "dtype": "float32", **settings}
    return MiniCpmAdapter.load(LoadRequest(model=str(DATA / golden), **chosen))


@cache
def loaded(golden: str, attention: str | None = None) -> Any:
    return fresh(golden, attention=attention)


@cache
def prompt(golden: str) -> dict[str, Any]:
    return dict(json.loads((DATA / golden / "prompt.json").read_text(encoding="utf-8")))


@cache
def shown(golden: str) -> Image.Image:
    with Image.open(DATA / golden / "image.png") as image:
        return image.copy()


def encode(vlm: ModelAdapter, golden: str, *others: Sample) -> Batch:
    return vlm.encode([Sample("golden", prompt(golden)["question"], (shown(golden),)), *others])


@cache
def encoded(golden: str) -> Batch:
    return encode(loaded(golden), golden)


@cache
def expected(golden: str) -> dict[str, torch.Tensor]:
    folder = DATA / golden
    return read_thinned(folder / "expected.safetensors", folder / "expected_modules.safetensors")


@cache
def inputs(golden: str) -> dict[str, torch.Tensor]:
    return load_file(DATA / golden / "inputs.safetensors")


def stages(*, tensors: bool = False) -> list[tuple[str, str]]:
    """Every recorded stage of all goldens."""
    return [
        (golden, name)
        for golden in GOLDENS
        for name in sorted(expected(golden))
        if not (tensors and name == "greedy_ids")
    ]


# ---------------------------------------------------------------------- ours and theirs, as rows


def counts(batch: Batch) -> list[int]:
    """Patches of each slice."""
    return [int(count) for count in batch.inputs["target_sizes"].prod(1)]


def per_slice(stage: str) -> bool:
    """Whether a stage has a row per patch, filled up to the longest slice."""
    return stage.startswith(("vpm", "resampler.kv_proj", "resampler.ln_kv"))


def theirs(golden: str, stage: str) -> torch.Tensor:
    """A recorded stage as `[rows, width]`, without rows with which slices are filled up."""
    value, real = expected(golden)[stage], counts(encoded(golden))
    name, call, number = stage.partition("#")
    if name == "vpm.patch_embed.proj":
        value = value.permute(0, 2, 3, 1)
    if name == "resampler.attn":
        value = value.transpose(0, 1)
    if per_slice(stage) and not call:
        value = torch.cat([rows[:count] for rows, count in zip(value, real, strict=True)])
    if per_slice(stage) and call:
        assert value.flatten(0, -2).shape[0] == real[int(number)]
    return value.flatten(0, -2)


def ours(vlm: Any, batch: Batch, stage: str) -> Any:
    """Our value of a stage, likewise."""
    if stage in {"logits", "greedy_first_logits"}:
        logits = vlm.forward(batch, logits="all").logits
        return logits.flatten(0, 1) if stage == "logits" else logits[:, -1]
    if stage == "merged_inputs_embeds":
        return first_input(vlm, batch).flatten(0, 1)
    name, call, number = stage.partition("#")
    last = max(int(site.index) for site in vlm.sites.resolve("vision.block.*"))
    path = f"vpm.blocks.{last}" if name == "vpm.blocks" else name
    found = activation(vlm, batch, path)
    if name == "resampler.ln_q":
        return found
    if per_slice(stage):
        slices = [rows[:count] for rows, count in zip(found, counts(batch), strict=True)]
    else:
        slices = list(found)
    return slices[int(number)] if call else torch.cat(slices)


def activation(vlm: ModelAdapter, batch: Batch, path: str) -> torch.Tensor:
    return next(iter(vlm.trace(batch, [path], logits="all").values()))


def first_input(vlm: Any, batch: Batch) -> torch.Tensor:
    seen: list[torch.Tensor] = []

    def keep(module: Any, args: Any, kwargs: Any) -> None:
        del module
        seen.append(args[0] if args else kwargs["hidden_states"])

    block = vlm.module.get_submodule("llm.model.layers.0")
    handle = block.register_forward_pre_hook(keep, with_kwargs=True)
    vlm.forward(batch)
    handle.remove()
    return seen[0]


def farthest(vlm: Any, golden: str, stage: str, batch: Batch | None = None) -> float:
    """How far beyond the tolerance a stage is, at worst; at most 1 is right."""
    found = ours(vlm, batch or encoded(golden), stage)
    return far(found, theirs(golden, stage), rtol=RTOL, atol=ATOL)


def greedy(vlm: Any, batch: Batch, sample: int = 0, **settings: Any) -> list[int]:
    with torch.inference_mode():
        ids = vlm.module.generate(
            **batch.inputs, max_new_tokens=6, do_sample=False, pad_token_id=0, **settings
        )
    new: list[int] = ids[sample, batch.inputs["input_ids"].shape[1] :].tolist()
    return new


# ---------------------------------------------------------------------- stages


def test_the_goldens_are_whole() -> None:
    assert {golden: len(expected(golden)) for golden in GOLDENS} == GOLDENS


@pytest.mark.parametrize("attention", [None, "eager"])
@pytest.mark.parametrize(("golden", "stage"), stages(tensors=True))
def test_every_recorded_stage_is_reached(golden: str, stage: str, attention: str) -> None:
    assert farthest(loaded(golden, attention), golden, stage) <= 1


@pytest.mark.parametrize("golden", GOLDENS)
@pytest.mark.parametrize("use_cache", [True, False])
def test_the_same_tokens_are_written(golden: str, use_cache: bool) -> None:
    wanted = expected(golden)["greedy_ids"].tolist()
    assert greedy(loaded(golden), encoded(golden), use_cache=use_cache) == wanted
    if use_cache:
        (written,) = loaded(golden).generate(encoded(golden), max_new_tokens=6)
        ends = loaded(golden).module.generation_config.eos_token_id
        until = next((i + 1 for i, n in enumerate(wanted) if n in ends), len(wanted))
        assert list(written.token_ids) == wanted[:until]


@pytest.mark.parametrize("golden", GOLDENS)
def test_a_padded_batch_gives_the_same(golden: str) -> None:
    """Beside a longer prompt with another picture, and one without."""
    vlm = loaded(golden)
    longer = Sample("long", "What is this? " * 9, (Image.new("RGB", (30, 61), (9, 99, 200)),))
    batch = encode(vlm, golden, longer, Sample("text", "Hello"))
    assert not batch.inputs["attention_mask"][0].all()
    logits = vlm.forward(batch, logits="all").logits
    rows = logits.flatten(0, 1)[batch.layout(0).rows.tolist()]
    assert far(rows, expected(golden)["logits"][0], rtol=RTOL, atol=ATOL) <= 1
    assert greedy(vlm, batch) == expected(golden)["greedy_ids"].tolist()


# ---------------------------------------------------------------------- prompts and pixels


@pytest.mark.parametrize("golden", GOLDENS)
def test_prompt_and_ids_are_exact(golden: str) -> None:
    vlm, batch, wanted = loaded(golden), encoded(golden), prompt(golden)
    text = wanted.get("final_prompt_string") or wanted["prompt_string"]
    assert vlm.processor._prompt(wanted["question"], [shown(golden)]) == text
    ids = batch.inputs["input_ids"]
    assert ids[0].tolist() == (wanted.get("input_ids") or wanted["input_ids_slow"])
    assert torch.equal(ids, inputs(golden)["input_ids"])
    for name, number in wanted["special_token_ids"].items():
        assert vlm.tokenizer.convert_tokens_to_ids(name) == number
        assert number in vlm.special_ids
    if golden != "v2":
        assert torch.equal(batch.inputs["attention_mask"], inputs(golden)["attention_mask"])


@pytest.mark.parametrize("golden", GOLDENS)
def test_images_stand_where_upstream_puts_them(golden: str) -> None:
    types = encoded(golden).inputs["mm_token_type_ids"][0]
    wanted = torch.zeros_like(types)
    for first, last in inputs(golden)["image_bound"].tolist():
        wanted[first:last] = 1
    assert torch.equal(types, wanted)


@pytest.mark.parametrize("golden", GOLDENS)
def test_pixels_are_exact(golden: str) -> None:
    batch, found = encoded(golden), inputs(golden)
    sizes = batch.inputs["target_sizes"].tolist()
    names = sorted((name for name in found if name.startswith("pixel")), key=lambda n: n.split("."))
    assert len(names) == len(sizes) > 2
    side = loaded(golden).config.vision_config.patch_size
    for name, rows, (height, width) in zip(names, batch.inputs["pixel_values"], sizes, strict=True):
        own, empty = rows[: height * width], rows[height * width :]
        patches = own.view(height, width, 3, side, side)
        strip = golden != "v2"
        image = (
            patches.flatten(0, 1).permute(1, 2, 0, 3)
            if strip
            else patches.permute(2, 0, 3, 1, 4).flatten(1, 2)
        )
        close(image.flatten(2), found[name], steps=8)
        assert not empty.any()
    if golden != "v2":
        assert sizes == found["tgt_sizes"].tolist()


# ---------------------------------------------------------------------- mistakes that must be seen


def caught(vlm: Any, golden: str, stage: str, *, before: str) -> None:
    """A stage is far off, and what comes before it is not."""
    batch = encode(vlm, golden)
    assert farthest(vlm, golden, before, batch) <= 1
    assert farthest(vlm, golden, stage, batch) > 20


@pytest.mark.parametrize("golden", GOLDENS)
@pytest.mark.parametrize(
    ("site", "epsilon", "before"),
    [
        ("vision.block.0", 1e-2, ("vpm.patch_embed#0", "vpm.embeddings")),
        ("resampler", 1e-2, ("vpm.norm#0", "vpm")),
    ],
)
def test_a_wrong_epsilon(golden: str, site: str, epsilon: float, before: tuple[str, str]) -> None:
    vlm = fresh(golden)
    (place,) = vlm.sites.resolve(site)
    for module in vlm.module.get_submodule(place.path).modules():
        if isinstance(module, torch.nn.LayerNorm):
            module.eps = epsilon
    stage = place.path if golden != "v2" else f"{place.path}#1"
    caught(vlm, golden, stage, before=before[golden != "v2"])


@pytest.mark.parametrize(("golden", "wrong"), [("v2", "gelu_pytorch_tanh"), ("v2_6", "gelu")])
def test_the_other_gelu(golden: str, wrong: str) -> None:
    """Both approximate each other to 1e-4 or so: what they change is small, and seen."""
    vlm = fresh(golden)
    right = "vpm.blocks.0.mlp.fc1#1" if golden == "v2" else "vpm.encoder.layers.0.mlp.fc1"
    block = vlm.module.get_submodule(vlm.sites.resolve("vision.block.0")[0].path)
    block.mlp.activation_fn = ACT2FN[wrong]
    assert farthest(vlm, golden, right) <= 1
    assert farthest(vlm, golden, right.replace(".fc1", "")) > 2


@pytest.mark.parametrize("change", [{"antialias": False}, {"mode": "bilinear"}])
def test_positions_resampled_otherwise(
    change: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = torch.nn.functional.interpolate

    def other(*args: Any, **settings: Any) -> torch.Tensor:
        return plain(*args, **{**settings, **change})

    monkeypatch.setattr(towers, "interpolate", other)
    caught(fresh("v2"), "v2", "vpm.blocks.0#0", before="vpm.patch_embed#0")


def test_positions_of_the_other_axis(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows taken for columns, in the table that the resampler adds to its keys."""
    plain = resampler.sine_table

    def turned(rows: int, columns: int, width: int) -> Any:
        table: Any = plain(columns, rows, width).unflatten(0, (columns, rows))
        return table.transpose(0, 1).flatten(0, 1)

    monkeypatch.setattr(resampler, "sine_table", turned)
    caught(fresh("v2"), "v2", "resampler#0", before="vpm.norm#0")
    caught(fresh("v2_6"), "v2_6", "resampler", before="vpm")


def test_patches_that_are_numbered_instead_of_placed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(towers, "buckets", lambda patches, side: tuple(range(patches)))
    vlm = fresh("v2_6")
    assert farthest(vlm, "v2_6", "vpm.embeddings") > 20
    monkeypatch.undo()
    assert farthest(vlm, "v2_6", "vpm.embeddings") <= 1


@pytest.mark.parametrize("golden", GOLDENS)
@pytest.mark.parametrize("module", [towers, resampler])
def test_rows_with_which_slices_are_filled_up(
    golden: str, module: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody may attend to them."""

    def all_real(sizes: Any, length: int) -> torch.Tensor:
        return torch.ones(len(sizes), length, dtype=torch.bool)

    monkeypatch.setattr(module, "real_rows", all_real)
    vlm = fresh(golden)
    batch = encode(vlm, golden)
    shorter = min(range(len(counts(batch))), key=lambda k: counts(batch)[k])
    tower = f"vpm.norm#{shorter}" if golden == "v2" else "vpm"
    stage = f"resampler#{shorter}" if golden == "v2" else "resampler"
    if module is towers:
        assert farthest(vlm, golden, tower) > 20
    else:
        caught(vlm, golden, stage, before=tower)


def test_queries_without_their_positions() -> None:
    vlm = fresh("v2")
    vlm.module.resampler.pos_embed.zero_()
    caught(vlm, "v2", "resampler#0", before="resampler.ln_kv#0")


@pytest.mark.parametrize(
    ("name", "stage", "before"),
    [
        ("scale_emb", "merged_inputs_embeds", "resampler#0"),
        ("residual_multiplier", "llm.model.layers.0", "merged_inputs_embeds"),
        ("divisor", "logits", "llm.model.norm"),
    ],
)
def test_a_scale_that_is_left_out(name: str, stage: str, before: str) -> None:
    vlm = fresh("v2")
    for part in (vlm.config, vlm.module.llm, *vlm.module.llm.model.layers):
        if hasattr(part, name):
            setattr(part, name, 1.0)
    caught(vlm, "v2", stage, before=before)


def test_scaled_image_tokens() -> None:
    """Granite's own multiplier would scale the tokens of images too."""
    vlm = fresh("v2")
    vlm.module.llm.model.embedding_multiplier = 12.0
    vlm.config.scale_emb = 1.0
    batch = encode(vlm, "v2")
    image = batch.inputs["mm_token_type_ids"][0] == 1
    hidden = activation(vlm, batch, "llm.model.layers.0")[0]
    wanted = expected("v2")["llm.model.layers.0"][0]
    assert far(hidden[image], wanted[image], atol=ATOL) > 20


def test_bfloat16_after_loading_from_disk() -> None:
    """Rotary tables and positions are made anew, not kept from the meta device."""
    for golden in GOLDENS:
        half = fresh(golden, dtype="bfloat16")
        found = half.forward(encode(half, golden), logits="all").logits
        assert half.dtype == "bfloat16"
        assert found.dtype == torch.float32
        found, wanted = kept_of(found, expected(golden)["logits"])
        assert float((found - wanted).norm() / wanted.norm()) < 0.05
