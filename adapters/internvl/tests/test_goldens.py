"""InternVL 2.5 in its original layout against numbers that its own remote code gave.

`data/qwen2` and `data/internlm2` hold tiny checkpoints with random weights in the original layout
and what OpenGVLab's code (under transformers 4.46) computed with them, in float32 on a CPU. Some
numbers of every row of each recorded tensor are kept.
"""

from __future__ import annotations

import json
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from transformers import GotOcr2ImageProcessorPil

from vlmlens.abc import Batch
from vlmlens.abc.adapter import LoadRequest
from vlmlens.hf import best_canvas
from vlmlens.hf.weights import StoredTensor
from vlmlens.samples import Sample
from vlmlens.testing._goldens import far, read_thinned
from vlmlens_adapter_internvl import keys
from vlmlens_adapter_internvl.adapter import InternVLAdapter

DATA = Path(__file__).parent / "data"
GOLDENS = ("qwen2", "internlm2")
FULL_SIZE = GotOcr2ImageProcessorPil(
    size={"height": 448, "width": 448}, min_patches=1, max_patches=12
)
RTOL, ATOL = 1e-4, 5e-5
"""The goldens' suggestion; a wrong epsilon or GELU moves the numbers by 1e-3 or more."""


@cache
def loaded(golden: str) -> InternVLAdapter:
    return InternVLAdapter.load(
        LoadRequest(model=str(DATA / golden), device="cpu", dtype="float32")
    )


@cache
def prompt(golden: str) -> dict[str, Any]:
    text = (DATA / golden / "prompt.json").read_text(encoding="utf-8")
    return dict(json.loads(text))


@cache
def encoded(golden: str) -> Batch:
    image = Image.open(DATA / golden / "image.png")
    return loaded(golden).encode([Sample("golden", prompt(golden)["question"], (image,))])


@cache
def expected(golden: str) -> dict[str, torch.Tensor]:
    folder = DATA / golden
    return read_thinned(folder / "expected.safetensors", folder / "expected_modules.safetensors")


def stages() -> list[tuple[str, str]]:
    """Every recorded stage of both goldens."""
    return [(golden, name) for golden in GOLDENS for name in sorted(expected(golden))]


def found(vlm: InternVLAdapter, batch: Batch, stage: str) -> torch.Tensor:
    """Our value of a recorded stage."""
    if stage == "greedy_ids":
        return greedy(vlm, batch)
    if stage == "logits":
        logits = vlm.forward(batch, logits="all").logits
        assert logits is not None
        return logits
    if stage == "merged_inputs_embeds":
        return first_input(vlm, batch)
    if stage.endswith(("attn.qkv", "attention.wqkv")):
        return fused(vlm, batch, stage)
    return next(iter(vlm.trace(batch, [stage]).values()))


def greedy(vlm: InternVLAdapter, batch: Batch) -> torch.Tensor:
    with torch.inference_mode():
        ids = vlm.module.generate(**batch.inputs, max_new_tokens=6, do_sample=False, pad_token_id=0)  # type: ignore[operator]
    return ids[0, batch.inputs["input_ids"].shape[1] :]


def first_input(vlm: InternVLAdapter, batch: Batch) -> torch.Tensor:
    seen: list[torch.Tensor] = []

    def keep(module: Any, args: Any, kwargs: Any) -> None:
        del module
        seen.append(args[0] if args else kwargs["hidden_states"])

    block = vlm.module.get_submodule("model.language_model.layers.0")
    handle = block.register_forward_pre_hook(keep, with_kwargs=True)
    vlm.forward(batch)
    handle.remove()
    return seen[0]


def fused(vlm: InternVLAdapter, batch: Batch, stage: str) -> torch.Tensor:
    """What the original's fused projection gives, out of our three."""
    head, _, name = stage.rpartition(".")
    trace = vlm.trace(batch, [f"{head}.{letter}_proj" for letter in "qkv"])
    parts = list(trace.values())
    if name == "qkv":
        return torch.cat(parts, -1)
    groups = vlm.config.text_config.num_key_value_heads
    size = vlm.config.text_config.head_dim
    by_group = [part.unflatten(-1, (groups, -1, size)) for part in parts]
    return torch.cat(by_group, -2).flatten(-3)


def farthest(vlm: InternVLAdapter, batch: Batch, golden: str, stage: str) -> float:
    """How far beyond the tolerance a stage is, at worst; at most 1 is right."""
    return far(found(vlm, batch, stage), expected(golden)[stage], rtol=RTOL, atol=ATOL)


def test_the_goldens_are_whole() -> None:
    assert len(expected("qwen2")) == 30
    assert len(expected("internlm2")) == 28


@pytest.mark.parametrize(("golden", "stage"), stages())
def test_every_recorded_stage_is_reached(golden: str, stage: str) -> None:
    if stage == "greedy_ids":
        assert greedy(loaded(golden), encoded(golden)).tolist() == expected(golden)[stage].tolist()
    else:
        assert farthest(loaded(golden), encoded(golden), golden, stage) <= 1


@pytest.mark.parametrize("golden", GOLDENS)
def test_prompt_ids_and_pixels_are_exact(golden: str) -> None:
    batch, wanted = encoded(golden), prompt(golden)
    inputs = load_file(DATA / golden / "inputs.safetensors")
    ids = batch.inputs["input_ids"]
    assert loaded(golden).decode(ids[0].tolist()) == wanted["final_prompt_string"]
    assert ids[0].tolist() == wanted["input_ids"]
    assert torch.equal(ids, inputs["input_ids"])
    assert torch.equal(batch.inputs["attention_mask"], inputs["attention_mask"])
    assert batch.inputs["pixel_values"].dtype == torch.float32
    assert torch.equal(batch.inputs["pixel_values"], inputs["pixel_values"])


@pytest.mark.parametrize("golden", GOLDENS)
def test_ids_and_counts_are_those_of_the_golden(golden: str) -> None:
    vlm, wanted = loaded(golden), prompt(golden)
    assert vlm.image_token_id == vlm.config.image_token_id == wanted["img_context_token_id"]
    assert vlm.module.generation_config.eos_token_id == wanted["eos_token_id"]  # type: ignore[union-attr]
    assert vlm.processor.tokens_per_tile == wanted["num_image_token_per_tile"]
    for token, number in wanted["special_token_ids"].items():
        assert vlm.tokenizer.convert_tokens_to_ids(token) == number
        assert number in vlm.special_ids | {vlm.image_token_id}
    tiles = encoded(golden).inputs["pixel_values"].shape[0]
    assert tiles == wanted["n_tiles_including_thumbnail"]


def test_tiles_of_real_sizes() -> None:
    rows = json.loads((DATA / "tiling_fullsize.json").read_text(encoding="utf-8"))["rows"]
    assert len(rows) > 10
    for row in rows:
        canvas = best_canvas(FULL_SIZE, row["height"], row["width"])
        assert list(canvas) == row["grid_cols_rows"], row
        tiles = canvas[0] * canvas[1]
        assert row["n_tiles"] == tiles
        assert row["n_tiles_with_thumbnail"] == (tiles + 1 if tiles > 1 else 1)


def test_the_tie_rule_of_tiles_matters() -> None:
    rows = json.loads((DATA / "tiling_fullsize.json").read_text(encoding="utf-8"))["rows"]
    huge = [best_canvas(FULL_SIZE, r["height"] * 99, r["width"] * 99) for r in rows]
    assert [list(canvas) for canvas in huge] != [row["grid_cols_rows"] for row in rows]


def test_an_ungrouped_split_of_internlm2_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows in the order all queries, all keys, all values are another model."""

    def plain(tensor: StoredTensor, config: Any) -> tuple[StoredTensor, ...]:
        rows, wide = tensor.shape[0], config.num_key_value_heads * config.head_dim
        cuts = (0, rows - 2 * wide, rows - wide, rows)
        return tuple(tensor.rows(a, b) for a, b in pairwise(cuts))

    monkeypatch.setattr(keys, "_ungrouped", plain)
    wrong = InternVLAdapter.load(LoadRequest(model=str(DATA / "internlm2"), device="cpu"))
    batch = encoded("internlm2")
    assert farthest(wrong, batch, "internlm2", "vision_model.encoder.layers.2") <= 1
    assert farthest(wrong, batch, "internlm2", "language_model.model.layers.0") > 20


@pytest.mark.parametrize("stage", ["vision_model.encoder.layers.0", "mlp1.0"])
def test_a_wrong_epsilon_is_caught(stage: str) -> None:
    vlm = InternVLAdapter.load(LoadRequest(model=str(DATA / "qwen2"), device="cpu"))
    for module in vlm.module.modules():
        if isinstance(module, torch.nn.LayerNorm):
            module.eps = 1e-2
    assert farthest(vlm, encoded("qwen2"), "qwen2", stage) > 20
