"""The first Molmo against numbers that its own remote code gave.

`data/molmo` (like 7B-D), `molmo_o` (7B-O) and `molmoe` hold tiny checkpoints with random weights in
upstream's layout, and what upstream's code computed with them, in float32 on a CPU. Of each
recorded tensor some numbers are kept, of every row and of every column.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from vlmlens.abc import Batch
from vlmlens.abc.adapter import LoadRequest
from vlmlens.samples import Sample
from vlmlens.testing._goldens import far, read_thinned
from vlmlens_adapter_molmo.v1 import model as molmo_model
from vlmlens_adapter_molmo.v1.adapter import MolmoAdapter
from vlmlens_adapter_molmo.v1.images import MolmoImages
from vlmlens_adapter_molmo.v1.sequence import ImageTokens, image_input_idx, image_sequence

DATA = Path(__file__).parent / "data"
CASES = ("molmo", "molmo_o", "molmoe")
RTOL, ATOL = 1e-4, 5e-5
"""The goldens' suggestion; a wrong epsilon or GELU moves the numbers by 1e-3 or more."""
PIXELS = 3e-5
"""Upstream resizes with tensorflow, we with torch."""


@cache
def loaded(case: str, attention: str = "sdpa") -> MolmoAdapter:
    request = LoadRequest(
        model=str(DATA / case), device="cpu", dtype="float32", attention=attention
    )
    return MolmoAdapter.load(request)


@cache
def prompt(case: str) -> dict[str, Any]:
    return dict(json.loads((DATA / case / "prompt.json").read_text(encoding="utf-8")))


@cache
def samples(case: str) -> list[Sample]:
    said, folder = prompt(case), DATA / case
    one = Sample("one", said["text"], (Image.open(folder / "image.png"),))
    return [one, Sample("two", said["text2"], (Image.open(folder / "image2.png"),))]


@cache
def encoded(case: str) -> Batch:
    return loaded(case).encode(samples(case)[:1])


@cache
def golden(case: str) -> dict[str, torch.Tensor]:
    """Tensors by name: `input/...`, `single/...`, `batch/...`."""
    return read_thinned(DATA / case / "golden.safetensors")


def names(case: str, part: str) -> list[str]:
    return sorted(name.removeprefix(part) for name in golden(case) if name.startswith(part))


def stages() -> list[tuple[str, str]]:
    return [(case, stage) for case in CASES for stage in names(case, "single/")]


def found(vlm: MolmoAdapter, batch: Batch, stage: str) -> torch.Tensor:
    """Our value of a recorded stage."""
    if stage in ("greedy_ids", "greedy_step_logits"):
        return greedy(vlm, batch)[stage]
    if stage == "logits":
        logits = vlm.forward(batch, logits="all").logits
        assert logits is not None
        return logits
    if stage == "merged_inputs_embeds":
        return first_input(vlm, batch)
    return next(iter(vlm.trace(batch, [stage]).values()))


def greedy(vlm: MolmoAdapter, batch: Batch) -> dict[str, torch.Tensor]:
    """Six tokens, and the logits of the steps that have read them."""
    generate: Any = vlm.module.generate
    settings = {"do_sample": False, "pad_token_id": 0, "max_new_tokens": 7}
    with torch.inference_mode():
        output = generate(
            **batch.inputs, **settings, output_logits=True, return_dict_in_generate=True
        )
    ids = output.sequences[0, batch.inputs["input_ids"].shape[1] :]
    return {"greedy_ids": ids[:6], "greedy_step_logits": torch.stack(output.logits[1:], 1)}


def first_input(vlm: MolmoAdapter, batch: Batch) -> torch.Tensor:
    seen: list[torch.Tensor] = []

    def keep(module: Any, args: Any) -> None:
        del module
        seen.append(args[0])

    block = vlm.module.get_submodule("model.language_model.layers.0")
    handle = block.register_forward_pre_hook(keep)
    vlm.forward(batch)
    handle.remove()
    return seen[0]


def farthest(ours: torch.Tensor, case: str, name: str) -> float:
    """How far beyond the tolerance a recorded tensor is, at worst; at most 1 is right."""
    return far(ours, golden(case)[name], rtol=RTOL, atol=ATOL)


# ---------------------------------------------------------------------- stages


def test_the_goldens_are_whole() -> None:
    assert [len(names(case, "single/")) for case in CASES] == [35, 35, 39]
    assert [names(case, "batch/") for case in CASES] == [
        ["logits", f"model.transformer.blocks.{last}", "model.vision_backbone.image_projector"]
        for last in (2, 1, 2)
    ]


@pytest.mark.parametrize("case", CASES)
def test_every_row_and_every_column_is_held(case: str) -> None:
    for name, tensor in golden(case).items():
        known = ~tensor.reshape(-1, tensor.shape[-1]).isnan()
        assert bool(known.any(0).all()), name
        assert bool(known.any(1).all()), name


@pytest.mark.parametrize(("case", "stage"), stages())
def test_every_recorded_stage_is_reached(case: str, stage: str) -> None:
    ours = found(loaded(case), encoded(case), stage)
    if stage == "greedy_ids":
        assert ours.tolist() == golden(case)[f"single/{stage}"].tolist()
    else:
        assert farthest(ours, case, f"single/{stage}") <= 1


@pytest.mark.parametrize("case", CASES)
def test_eager_attention_reaches_every_stage_too(case: str) -> None:
    vlm = loaded(case, "eager")
    for stage in names(case, "single/"):
        ours = found(vlm, encoded(case), stage).double()
        assert farthest(ours, case, f"single/{stage}") <= 1, stage


@pytest.mark.parametrize("case", CASES)
def test_a_batch_padded_on_the_left_is_upstreams_padded_on_the_right(case: str) -> None:
    vlm, batch = loaded(case), loaded(case).encode(samples(case))
    real = batch.inputs["attention_mask"].bool()
    assert not bool(real.all())
    for stage in names(case, "batch/"):
        ours = found(vlm, batch, stage)
        rows = ours if "projector" in stage else ours[real]
        assert farthest(rows, case, f"batch/{stage}") <= 1, stage


@pytest.mark.parametrize("case", CASES)
def test_upstreams_own_padding_is_understood(case: str) -> None:
    """Ids of -1 on the right, and no mask."""
    vlm, batch = loaded(case), loaded(case).encode(samples(case))
    ids, mask = batch.inputs["input_ids"], batch.inputs["attention_mask"].bool()
    rows = [row[keep] for row, keep in zip(ids, mask, strict=True)]
    right = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=-1)
    inputs = {**batch.inputs, "input_ids": right}
    del inputs["attention_mask"]
    with torch.inference_mode():
        logits = vlm.module(**inputs).logits
    assert farthest(logits[right >= 0], case, "batch/logits") <= 1


# ---------------------------------------------------------------------- preprocessing


@pytest.mark.parametrize("case", CASES)
def test_ids_places_and_masks_are_exact(case: str) -> None:
    inputs, wanted = encoded(case).inputs, golden(case)
    for name in ("input_ids", "image_input_idx", "image_masks"):
        assert torch.equal(inputs[name], wanted[f"input/{name}"]), name
    assert far(inputs["images"], wanted["input/images"], atol=PIXELS) <= 1


@pytest.mark.parametrize("case", CASES)
def test_the_prompt_and_its_tokens(case: str) -> None:
    vlm, said = loaded(case), prompt(case)
    text = vlm.prompt_text(samples(case)[0])
    assert text == "<|image|>" + said["prompt_string_tokenized"]
    ids = encoded(case).inputs["input_ids"][0].tolist()
    assert ids[-len(said["token_ids_prompt"]) :] == said["token_ids_prompt"]
    assert ids[0] == said["bos_used"]
    for token, number in said["special_token_ids"].items():
        assert vlm.tokenizer.convert_tokens_to_ids(token) == number
        assert number in vlm.special_ids | {vlm.image_token_id}
    assert encoded(case).inputs["images"].shape[1] == said["n_crops_including_global"]


FULL = ImageTokens(start=152064, end=152065, patch=152066, column=152067)


def digest(numbers: Any) -> str:
    array = torch.as_tensor(numbers, dtype=torch.int64).contiguous().numpy()
    return hashlib.sha256(array.tobytes()).hexdigest()


def test_layouts_of_real_sizes() -> None:
    said = json.loads((DATA / "molmo" / "layout_fullsize.json").read_text(encoding="utf-8"))
    assert len(said["rows"]) == 26
    for row in said["rows"]:
        canvas = MolmoImages().canvas(row["height"], row["width"])
        ids, index = image_sequence(canvas, FULL), image_input_idx(canvas)
        assert [canvas.rows, canvas.cols] == row["tiling_rows_cols"], row
        assert len(ids) == row["n_image_tokens"], row
        assert digest(ids) == row["sha256_tokens_int64"], row
        assert digest(index) == row["sha256_image_input_idx_before_bos_int64"], row
        assert int((index >= 0).sum()) == ids.count(FULL.patch) == row["n_inserted"], row


def test_masks_of_real_sizes() -> None:
    said = json.loads((DATA / "molmo" / "layout_fullsize.json").read_text(encoding="utf-8"))
    for row in said["rows"][:8]:
        image = Image.new("RGB", (row["width"], row["height"]))
        crops, masks = MolmoImages()(image)
        assert len(crops) == row["n_crops_total"]
        assert masks.sum(1).tolist() == pytest.approx(row["image_masks_row_sums"], abs=1e-2)


def test_pixels_of_a_real_size() -> None:
    wanted = read_thinned(DATA / "molmo" / "fullsize.safetensors")
    image = Image.open(DATA / "molmo" / "image_full.png")
    crops, masks = MolmoImages()(image)
    canvas = MolmoImages().canvas(image.height, image.width)
    assert image_sequence(canvas, FULL) == wanted["image_tokens"].tolist()
    assert torch.equal(image_input_idx(canvas), wanted["image_input_idx_before_bos"])
    assert far(masks, wanted["image_masks"], atol=1e-6) <= 1
    patches = crops[:, wanted["patch_indices"]]
    assert far(patches, wanted["patches_tf"], atol=PIXELS) <= 1
    assert torch.allclose(crops.mean((1, 2)), wanted["crop_means"], atol=1e-5)
    assert torch.allclose(crops.std((1, 2)), wanted["crop_stds"], atol=1e-5)


# ---------------------------------------------------------------------- deliberate mistakes


def layers(vlm: MolmoAdapter) -> Any:
    return vlm.module.get_submodule("model.language_model.layers")


def swap_gate(vlm: MolmoAdapter) -> None:
    for layer in layers(vlm):
        layer.mlp.up_proj, layer.mlp.gate_proj = layer.mlp.gate_proj, layer.mlp.up_proj


def reverse_features(vlm: MolmoAdapter) -> None:
    tower: Any = vlm.module.get_submodule("model.vision_tower")
    tower.vit_layers.reverse()


def plain_gelu(vlm: MolmoAdapter) -> None:
    blocks: Any = vlm.module.get_submodule("model.vision_tower.layers")
    for layer in blocks:
        layer.mlp.activation_fn = torch.nn.GELU()


def large_epsilon(vlm: MolmoAdapter) -> None:
    for layer in layers(vlm):
        layer.post_attention_layernorm.variance_epsilon = 1e-2


def renormalise_experts(vlm: MolmoAdapter) -> None:
    for layer in layers(vlm):
        layer.mlp.gate.norm_topk_prob = True


def turn_experts(vlm: MolmoAdapter) -> None:
    with torch.no_grad():
        for layer in layers(vlm):
            layer.mlp.experts.down_proj.copy_(layer.mlp.experts.down_proj.roll(1, 0))


def slow_rotation(vlm: MolmoAdapter) -> None:
    rotary: Any = vlm.module.get_submodule("model.language_model.rotary_emb")
    rotary.inv_freq = rotary.inv_freq * 0.9


def first_patch_asks(vlm: MolmoAdapter) -> None:
    def hook(module: Any, args: Any, kwargs: Any) -> Any:
        del module, args
        return (kwargs["key_value_states"][:, :1],), kwargs

    pooling = vlm.module.get_submodule("model.multi_modal_projector.image_pooling_2d")
    pooling.register_forward_pre_hook(hook, with_kwargs=True)


def masks_in_line(vlm: MolmoAdapter) -> None:
    """Each mask beside its own crop, and the whole image's one first."""

    def hook(module: Any, args: Any) -> Any:
        del module
        return args[0], args[1].roll(1, 1)

    vlm.module.get_submodule("model.multi_modal_projector").register_forward_pre_hook(hook)


POOLING = "model.vision_backbone.image_pooling_2d"
MISTAKES: list[tuple[str, Callable[[MolmoAdapter], None], str, str]] = [
    ("molmo", swap_gate, "model.transformer.wte", "model.transformer.blocks.0"),
    ("molmo", reverse_features, "model.vision_backbone.image_vit.pre_ln", POOLING),
    ("molmo", first_patch_asks, "model.vision_backbone.image_pooling_2d.wk", POOLING),
    ("molmo", masks_in_line, "model.vision_backbone.image_vit.pre_ln", POOLING),
    ("molmo", slow_rotation, "model.transformer.blocks.0.att_proj", "model.transformer.blocks.0"),
    (
        "molmo_o",
        plain_gelu,
        "model.vision_backbone.image_vit.transformer.resblocks.0.attention",
        "model.vision_backbone.image_vit.transformer.resblocks.0",
    ),
    ("molmo_o", large_epsilon, "merged_inputs_embeds", "model.transformer.blocks.0.attn_norm"),
    (
        "molmoe",
        renormalise_experts,
        "model.transformer.blocks.0.mlp.gate",
        "model.transformer.blocks.0.mlp",
    ),
    (
        "molmoe",
        turn_experts,
        "model.transformer.blocks.0.mlp.gate",
        "model.transformer.blocks.0.mlp",
    ),
]


@pytest.mark.parametrize(
    ("case", "mistake", "before", "after"),
    MISTAKES,
    ids=lambda value: getattr(value, "__name__", None),
)
def test_a_deliberate_mistake_is_caught(
    case: str, mistake: Callable[[MolmoAdapter], None], before: str, after: str
) -> None:
    """The stage before the mistake stays as it is, the one after it does not."""
    wrong = MolmoAdapter.load(LoadRequest(model=str(DATA / case), device="cpu"))
    mistake(wrong)
    assert farthest(found(wrong, encoded(case), before), case, f"single/{before}") <= 1
    assert farthest(found(wrong, encoded(case), after), case, f"single/{after}") > 20


def test_tokens_that_replace_embeddings_are_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    right = molmo_model._with_tokens

    def replacing(embeds: Any, tokens: Any, index: Any, mask: Any) -> torch.Tensor:
        return right(right(embeds * 0, tokens, index, mask), tokens * 0, index, mask)

    monkeypatch.setattr(molmo_model, "_with_tokens", replacing)
    ours = found(loaded("molmo"), encoded("molmo"), "merged_inputs_embeds")
    assert farthest(ours, "molmo", "single/merged_inputs_embeds") > 20
