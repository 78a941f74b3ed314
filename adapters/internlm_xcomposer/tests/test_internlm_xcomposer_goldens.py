"""InternLM-XComposer 2.5 against numbers that its own remote code gave.

`data/golden` holds a tiny checkpoint with random weights and what upstream's code (under
transformers 4.33) computed with it, in float32 on a CPU, for three prompts: some numbers of every
row of each recorded tensor.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from vlmlens.abc import Batch
from vlmlens.abc.adapter import LoadRequest
from vlmlens.passes.tracing import first_call
from vlmlens.samples import Sample
from vlmlens.testing._goldens import far, kept_of, read_thinned
from vlmlens.testing._rounding import close
from vlmlens_adapter_internlm_xcomposer import language, rope, tiling, vision
from vlmlens_adapter_internlm_xcomposer.adapter import XComposerAdapter, XComposerOptions
from vlmlens_adapter_internlm_xcomposer.lora import PartialLoraLinear
from vlmlens_adapter_internlm_xcomposer.tiling import canvas, most_tiles, pixels

DATA = Path(__file__).parent / "data"
GOLDEN = DATA / "golden"
CASES = ("main", "text_only", "multi")
ATTENTION = ("sdpa", "eager")
ATOL = 2e-4
"""The goldens' suggestion; we come within 1e-5."""
LAYOUT = json.loads((GOLDEN / "token_layout.json").read_text(encoding="utf-8"))["layouts"]


@cache
def loaded(attention: str = "sdpa", mode: str = "base", dtype: str = "float32") -> XComposerAdapter:
    return XComposerAdapter.load(
        LoadRequest(
            model=str(GOLDEN),
            device="cpu",
            dtype=dtype,
            attention=attention,
            options=XComposerOptions.model_validate({"infer_mode": mode}),
        )
    )


@cache
def sample(case: str) -> Sample:
    images = tuple(Image.open(GOLDEN / file) for file in LAYOUT[case]["image_files"])
    return Sample(case, LAYOUT[case]["query"], images)


def encoded(*cases: str) -> Batch:
    return loaded().encode([sample(case) for case in cases])


@cache
def expected(case: str) -> dict[str, torch.Tensor]:
    return read_thinned(GOLDEN / f"expected{_suffix(case)}.safetensors")


@cache
def inputs(case: str) -> dict[str, torch.Tensor]:
    return load_file(GOLDEN / f"inputs{_suffix(case)}.safetensors")


def _suffix(case: str) -> str:
    return "" if case == "main" else f"_{case}"


def stages() -> list[tuple[str, str, str]]:
    """Every recorded stage of every case, with both implementations of attention."""
    return [
        (attention, case, stage)
        for attention in ATTENTION
        for case in CASES
        for stage in sorted(expected(case))
    ]


def found(vlm: XComposerAdapter, batch: Batch, case: str, stage: str) -> torch.Tensor:
    """Our value of a recorded stage."""
    if stage == "greedy_new_ids":
        return torch.tensor([vlm.generate(batch, max_new_tokens=5)[0].token_ids])
    if stage == "inputs_embeds":
        call = first_call(vlm.module, "model.layers.0", lambda: vlm.forward(batch))
        assert call is not None
        return call[0][0]  # type: ignore[no-any-return]
    if stage.startswith("logits"):
        logits = vlm.forward(batch, logits="all").logits
        assert logits is not None
        return logits[:, -expected(case)[stage].shape[1] :]
    path, _, image = stage.partition("#image")
    value = next(iter(vlm.trace(batch, [path]).values()))
    return value.split(LAYOUT[case]["image_token_counts"], 1)[int(image)] if image else value


def farthest(vlm: XComposerAdapter, case: str, stage: str) -> float:
    """How far a stage is, in units of the tolerance; at most 1 is right."""
    wanted = expected(case)[stage]
    ours = found(vlm, vlm.encode([sample(case)]), case, stage)
    return far(ours, wanted, atol=ATOL)


def test_the_goldens_are_whole() -> None:
    assert {case: len(expected(case)) for case in CASES} == {
        "main": 18, "text_only": 4, "multi": 7,
    }  # fmt: skip


@pytest.mark.parametrize(("attention", "case", "stage"), stages())
def test_every_recorded_stage_is_reached(attention: str, case: str, stage: str) -> None:
    _, _, mode = stage.partition("infer_mode_")
    vlm = loaded(attention, mode or "base")
    assert vlm.config._attn_implementation == attention
    assert vlm.config.vision_config._attn_implementation == attention
    assert farthest(vlm, case, stage) <= (0 if stage == "greedy_new_ids" else 1)


@pytest.mark.parametrize("case", sorted(LAYOUT))
def test_token_ids_and_image_positions_are_exact(case: str) -> None:
    vlm, said = loaded(), LAYOUT[case]
    ids = vlm.encode([sample(case)]).inputs["input_ids"][0].tolist()
    wanted: list[int] = []
    for i, part in enumerate(said["part_ids"]):
        wanted += [vlm.image_token_id] * said["image_token_counts"][i - 1] if i else []
        wanted += part
    assert ids == wanted
    assert len(ids) == said["total_len"]
    if case in CASES:
        mask = torch.tensor([[number == vlm.image_token_id for number in ids]])
        assert torch.equal(mask, inputs(case)["im_mask"])


@pytest.mark.parametrize("case", ["main", "multi"])
def test_pixels_are_exact(case: str) -> None:
    """The second image of `multi` stands upright."""
    images = sample(case).open_images()
    for i, image in enumerate(images):
        placed = canvas(image.width, image.height, 28, most_tiles(len(images)))
        assert torch.equal(pixels(image, placed)[None], inputs(case)[f"images.{i}"])


def test_an_image_without_colours_becomes_rgb() -> None:
    grey = Image.new("L", (40, 30), 90)
    placed = canvas(40, 30, 28, 24)
    assert torch.equal(pixels(grey, placed), pixels(grey.convert("RGB"), placed))


def test_tiles_of_real_sizes() -> None:
    rows = json.loads((DATA / "tiling_table.json").read_text(encoding="utf-8"))["rows"]
    assert len(rows) > 20
    for row in rows:
        placed = canvas(row["width"], row["height"], 560, row["hd_num"])
        assert (placed.rows, placed.columns) == (row["rows"], row["cols"]), row
        assert placed.columns * 560 == row["padded_width"]
        assert placed.rows * 560 == row["padded_height"]
        assert placed.tokens(20) == row["image_tokens"]


def test_padded_batches_of_all_cases_equal_the_goldens() -> None:
    """Only `multi` is long enough for scaled rotary positions; it must not scale the others'."""
    batch = encoded(*CASES)
    trace = loaded().trace(batch, ["model.layers.0", "model.norm"])
    for stage in trace:
        rows = trace.select(f"{stage}/all")
        assert isinstance(rows, list)
        recorded = "model.layers.0" if stage == "llm.block.0" else "model.norm"
        for case, ours in zip(CASES, rows, strict=True):
            assert far(ours, expected(case)[recorded][0], atol=ATOL) <= 1


def test_padding_on_the_right_gives_the_same() -> None:
    vlm, batch = loaded(), encoded(*CASES)
    ids, mask = batch.inputs["input_ids"], batch.inputs["attention_mask"]
    lengths = mask.sum(1).tolist()
    assert len(set(lengths)) == len(CASES)
    turned = {"input_ids": torch.zeros_like(ids), "attention_mask": torch.zeros_like(mask)}
    for name, value in turned.items():
        for i, length in enumerate(lengths):
            value[i, :length] = batch.inputs[name][i, -length:]
    with torch.inference_mode():
        logits = vlm.module(**{**batch.inputs, **turned}).logits
    for i, (case, length) in enumerate(zip(CASES, lengths, strict=True)):
        wanted = expected(case)["logits"][0]
        ours = logits[i, length - len(wanted) : length]
        assert far(ours, wanted, atol=ATOL) <= 1


def test_a_long_sample_leaves_nothing_behind() -> None:
    """Upstream keeps the scaled rotary table for shorter prompts that follow."""
    vlm = XComposerAdapter.load(LoadRequest(model=str(GOLDEN), device="cpu"))
    assert farthest(vlm, "multi", "logits") <= 1
    assert farthest(vlm, "main", "logits") <= 1


def test_eager_attention_gives_its_weights() -> None:
    """They sum to 1 over a sample's own tokens, padding left out."""
    vlm, batch = loaded("eager"), encoded("main", "text_only")
    modules = [vlm.module.get_submodule(f"model.layers.{i}.attention") for i in range(2)]
    seen: list[torch.Tensor] = []
    hooks = [m.register_forward_hook(lambda m, a, out: seen.append(out[1])) for m in modules]
    with torch.inference_mode():
        output = vlm.module(**batch.inputs, output_attentions=True)
    for hook in hooks:
        hook.remove()
    assert all(torch.equal(a, b) for a, b in zip(seen, output.attentions, strict=True))
    assert seen[0].shape == (2, 4, 81, 81)
    own = seen[0][1, :, 37:, 37:]
    close(own.sum(-1), 1)
    assert float(own.triu(1).max()) == 0


def test_bfloat16_is_near() -> None:
    """Tables that no file holds must survive loading in another dtype."""
    vlm = loaded(dtype="bfloat16")
    places = vlm.module.get_submodule("vit.vision_tower.vision_model.embeddings").position_ids
    assert torch.equal(places, torch.arange(17)[None])
    for case in CASES:
        batch = vlm.encode([sample(case)])
        ours = found(vlm, batch, case, "model.norm")
        assert ours.dtype == torch.bfloat16
        ours, wanted = kept_of(ours, expected(case)["model.norm"])
        assert float((ours - wanted).norm() / wanted.norm()) < 0.05


# ---------------------------------------------------------------------- deliberate mistakes

Mistake = Callable[[pytest.MonkeyPatch], None]


def contiguous_heads(patch: pytest.MonkeyPatch) -> None:
    """All queries, all keys, all values."""

    def split(self: Any, fused: torch.Tensor) -> tuple[torch.Tensor, ...]:
        heads = fused.unflatten(-1, (-1, self.head_dim)).transpose(1, 2)
        return heads.split((self.groups * self.num_key_value_groups, self.groups, self.groups), 1)

    patch.setattr(language.XComposerAttention, "split", split)


def columns_first(patch: pytest.MonkeyPatch) -> None:
    """The four patches of a token in columns."""

    def merged(patches: torch.Tensor, side: int) -> torch.Tensor:
        split = patches.unflatten(1, (side, 2, side, 2))
        return split.permute(0, 1, 3, 4, 2, 5).flatten(3)

    patch.setattr(vision, "merged", merged)


def tiles_one_by_one(patch: pytest.MonkeyPatch) -> None:
    """Each tile's rows by themselves."""
    patch.setattr(
        vision, "joined_tiles", lambda tiles, rows, columns: tiles.flatten(0, 1).unflatten(
            0, (rows * tiles.shape[1], columns)).flatten(1, 2)
    )  # fmt: skip


def overview_last(patch: pytest.MonkeyPatch) -> None:
    right = tiling.views
    patch.setattr(tiling, "views", lambda *given: right(*given).roll(-1, 0))


def ends_first(patch: pytest.MonkeyPatch) -> None:
    def with_ends(tokens: torch.Tensor, row_end: torch.Tensor) -> torch.Tensor:
        return torch.cat([row_end[0].expand(len(tokens), -1, -1), tokens], 1).flatten(0, 1)

    patch.setattr(vision, "with_ends", with_ends)


def normed_features(patch: pytest.MonkeyPatch) -> None:
    right = vision.XComposerTower.forward

    def forward(self: Any, pixel_values: torch.Tensor) -> Any:
        output = right(self, pixel_values)
        output.last_hidden_state = self.vision_model.post_layernorm(output.last_hidden_state)
        return output

    patch.setattr(vision.XComposerTower, "forward", forward)


def antialiased_overview(patch: pytest.MonkeyPatch) -> None:
    right = torch.nn.functional.interpolate
    patch.setattr(
        torch.nn.functional, "interpolate", lambda *a, **k: right(*a, **{**k, "antialias": True})
    )


def branch_on_all_tokens(patch: pytest.MonkeyPatch) -> None:
    right = PartialLoraLinear.forward

    def forward(self: Any, hidden: torch.Tensor, image_rows: Any, mode: str) -> torch.Tensor:
        return right(self, hidden, torch.arange(hidden[..., 0].numel()), mode)

    patch.setattr(PartialLoraLinear, "forward", forward)


def no_image_branch(patch: pytest.MonkeyPatch) -> None:
    right = PartialLoraLinear.forward
    patch.setattr(
        PartialLoraLinear, "forward", lambda self, x, rows, mode: right(self, x, None, mode)
    )


def unscaled_positions(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(rope, "scaled_base", lambda length, config: config.rope_base)


def another_filter(patch: pytest.MonkeyPatch) -> None:
    right = Image.Image.resize
    patch.setattr(
        Image.Image, "resize", lambda self, size, _: right(self, size, Image.Resampling.BICUBIC)
    )


@pytest.mark.parametrize(
    ("mistake", "case", "stage"),
    [
        (contiguous_heads, "text_only", "model.layers.0"),
        (columns_first, "main", "vit"),
        (tiles_one_by_one, "main", "vit"),
        (overview_last, "main", "vit"),
        (ends_first, "main", "vit"),
        (normed_features, "main", "vit"),
        (antialiased_overview, "main", "vit"),
        (another_filter, "main", "vit"),
        (branch_on_all_tokens, "main", "model.layers.0"),
        (no_image_branch, "main", "model.layers.0"),
        (unscaled_positions, "multi", "model.layers.0"),
    ],
)
def test_a_mistake_is_caught(
    mistake: Mistake, case: str, stage: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    vlm = loaded()
    mistake(monkeypatch)
    assert farthest(vlm, case, stage) > 5


def test_the_branches_of_another_mode_are_caught() -> None:
    wanted = expected("main")["logits.infer_mode_write"]
    for mode in ("base", "web"):
        vlm = loaded(mode=mode)
        ours = found(vlm, vlm.encode([sample("main")]), "main", "logits.infer_mode_write")
        assert far(ours, wanted, atol=ATOL) > 100


def test_resizing_an_upright_image_as_it_stands_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pillow rounds between its passes, so that their order shows in the pixels."""
    image = sample("multi").open_images()[1]
    placed = canvas(image.width, image.height, 28, 6)
    right = Image.Image.resize
    monkeypatch.setattr(Image.Image, "transpose", lambda self, method: self)
    monkeypatch.setattr(Image.Image, "resize", lambda self, size, how: right(self, size[::-1], how))
    wrong = pixels(image, placed)[None]
    assert wrong.shape == inputs("multi")["images.1"].shape
    assert not torch.equal(wrong, inputs("multi")["images.1"])


def test_scaling_by_the_longest_of_a_batch_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    right = rope.lengths_when_read
    monkeypatch.setattr(
        language, "lengths_when_read", lambda *given: right(*given).amax().expand(len(given[0]), 1)
    )
    batch = encoded(*CASES)
    rows = loaded().trace(batch, ["llm.block.0"]).select("llm.block.0/all")
    assert isinstance(rows, list)
    distances = [
        far(ours, expected(case)["model.layers.0"][0], atol=ATOL)
        for case, ours in zip(CASES, rows, strict=True)
    ]
    assert distances[0] > 5
    assert distances[1] > 5
    assert distances[2] <= 1
