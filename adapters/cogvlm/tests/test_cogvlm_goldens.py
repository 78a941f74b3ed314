"""CogVLM against numbers that its own remote code gave.

`data/cogvlm` holds a tiny checkpoint with random weights in upstream's layout, and what upstream's
code (under transformers 4.35) computed with it, in float32 on a CPU: some numbers of every row of
each recorded tensor. The batch is padded on the left; its padding rows are not compared.
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

from vlmlens.abc.adapter import LoadRequest
from vlmlens.samples import Sample
from vlmlens.testing._goldens import far, read_thinned
from vlmlens_adapter_cogvlm import language, model, positions, vision
from vlmlens_adapter_cogvlm.adapter import CogVLMAdapter, CogVLMOptions

DATA = Path(__file__).parent / "data" / "cogvlm"
CASES = ("", "_text_only", "_batch")
ATOL = 1e-4
"""Half of what the golden suggests; its own noise is 8e-6."""


@cache
def loaded(attention: str = "sdpa") -> CogVLMAdapter:
    return fresh(attention)


def fresh(attention: str = "sdpa", **settings: Any) -> CogVLMAdapter:
    chosen = {"device": "cpu", "dtype": "float32", **settings}
    return CogVLMAdapter.load(LoadRequest(model=str(DATA), attention=attention, **chosen))


def read(name: str) -> Any:
    return json.loads((DATA / name).read_text(encoding="utf-8"))


@cache
def expected(case: str) -> dict[str, torch.Tensor]:
    return read_thinned(DATA / f"expected{case}.safetensors")


@cache
def inputs(case: str) -> dict[str, torch.Tensor]:
    given = load_file(DATA / f"inputs{case}.safetensors")
    if "images" in given:
        given["pixel_values"] = given.pop("images")
    return given


def stages() -> list[tuple[str, str]]:
    """Every recorded stage of every case."""
    return [(case, name) for case in CASES for name in sorted(expected(case))]


def found(vlm: CogVLMAdapter, case: str, stage: str) -> torch.Tensor:
    """Our value of a recorded stage."""
    given = inputs(case)
    if stage == "greedy_new_ids":
        steps = expected(case)[stage].shape[1]
        with torch.inference_mode():
            ids = vlm.module.generate(**given, max_new_tokens=steps, do_sample=False)  # type: ignore[operator]
        return ids[:, given["input_ids"].shape[1] :]
    if stage == "position_ids":
        return seen(vlm, case, "model.rotary_emb", "arguments")
    if stage == "inputs_embeds":
        return seen(vlm, case, "model.layers.0", "arguments")
    return seen(vlm, case, "lm_head" if stage == "logits" else f"model.{stage}", "output")


def seen(vlm: CogVLMAdapter, case: str, path: str, what: str) -> torch.Tensor:
    """The output, or the last tensor among the first two arguments, of a module in a pass."""
    kept: list[Any] = []

    def keep(module: Any, args: Any, output: Any) -> None:
        del module
        if what == "output":
            kept.append(output[0] if isinstance(output, tuple) else output)
        else:
            kept.append(args[1 if path.endswith("rotary_emb") else 0])

    handle = vlm.module.get_submodule(path).register_forward_hook(keep)
    with torch.inference_mode():
        vlm.module(**inputs(case), use_cache=False)
    handle.remove()
    (only,) = kept
    return only


def farthest(vlm: CogVLMAdapter, case: str, stage: str) -> float:
    """The largest difference of a stage, over real tokens."""
    wanted, ours = expected(case)[stage], found(vlm, case, stage)
    assert ours.shape == wanted.shape
    mask = inputs(case)["attention_mask"].bool()
    if ours.shape[:2] == mask.shape:
        wanted, ours = wanted[mask], ours[mask]
    return far(ours, wanted)


def test_the_golden_is_whole() -> None:
    assert [len(expected(case)) for case in CASES] == [17, 11, 5]


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize(("case", "stage"), stages())
def test_every_recorded_stage_is_reached(case: str, stage: str, attention: str) -> None:
    exact = stage in {"greedy_new_ids", "position_ids"}
    assert farthest(loaded(attention), case, stage) <= (0 if exact else ATOL)


def modules() -> list[tuple[str, str]]:
    """The recorded outputs of modules, for single samples."""
    known = [(case, name) for case, name in stages() if case != "_batch"]
    return [(c, name) for c, name in known if name.startswith(("layers", "vision", "norm"))]


@pytest.mark.parametrize(("case", "stage"), modules())
def test_stages_are_sites_by_their_raw_paths(case: str, stage: str) -> None:
    """What users of upstream's paths read is what upstream's modules gave."""
    vlm, template = loaded(), "chat" if case else "vqa"
    vlm = CogVLMAdapter(vlm.module, LoadRequest(model=str(DATA), options=options(template)))
    images = () if case else (Image.open(DATA / "image.png"),)
    batch = vlm.encode([Sample("s", read("token_layout.json")["query"], images)])
    (activation,) = vlm.trace(batch, [f"model.{stage}"]).values()
    assert far(activation, expected(case)[stage]) <= ATOL
    rows = activation.flatten(0, 1).shape[0]
    (site,) = vlm.sites.resolve(f"model.{stage}")
    assert batch.layouts[site.axis].at(rows) is not None


def options(template: str) -> CogVLMOptions:
    return CogVLMOptions(template=template)  # type: ignore[arg-type]


@pytest.mark.parametrize("template", ["base", "vqa", "chat"])
def test_prompts_and_pixels_are_exact(template: str) -> None:
    said = read("token_layout.json")
    wanted = said["layouts"][template]
    image = Image.open(DATA / said["image"])
    vlm = fresh(options=options(template))
    sample = Sample("golden", said["query"], (image,))
    batch = vlm.encode([sample])
    for name in ("input_ids", "token_type_ids", "attention_mask"):
        assert batch.inputs[name].tolist() == [wanted[name]], name
    assert torch.equal(batch.inputs["pixel_values"], inputs("")["pixel_values"])
    message = {"role": "user", "content": [{"type": "text", "text": said["query"]}]}
    assert vlm.processor.apply_chat_template([message], tokenize=False) == wanted["text"]


def test_the_default_template_is_the_configs() -> None:
    said = read("token_layout.json")
    batch = fresh().encode([Sample("t", said["query"])])
    assert torch.equal(batch.inputs["input_ids"], inputs("_text_only")["input_ids"])
    assert torch.equal(batch.inputs["token_type_ids"], inputs("_text_only")["token_type_ids"])


def test_a_history_can_be_written_out() -> None:
    wanted = read("token_layout.json")["layouts"]["chat_history_text_only"]
    batch = fresh(options=options("base")).encode([Sample("h", wanted["text"])])
    assert batch.inputs["input_ids"].tolist() == [wanted["input_ids"]]


def test_greedy_text_is_the_goldens() -> None:
    vlm = fresh(options=options("vqa"))
    image = Image.open(DATA / "image.png")
    batch = vlm.encode([Sample("g", read("token_layout.json")["query"], (image,))])
    (written,) = vlm.generate(batch, max_new_tokens=6)
    assert list(written.token_ids) == expected("")["greedy_new_ids"][0].tolist()


@pytest.mark.parametrize("case", ["", "_text_only"])
def test_greedy_ids_do_not_need_the_cache(case: str) -> None:
    wanted = expected(case)["greedy_new_ids"]
    given = inputs(case)
    settings = {"max_new_tokens": wanted.shape[1], "do_sample": False, "use_cache": False}
    with torch.inference_mode():
        ids = loaded().module.generate(**given, **settings)  # type: ignore[operator]
    assert torch.equal(ids[:, given["input_ids"].shape[1] :], wanted)


# ---------------------------------------------------------------------- deliberate mistakes


def caught(stage: str, *, before: str | None = None) -> None:
    """A stage is far off, and an earlier one is not."""
    wrong = fresh()
    assert farthest(wrong, "", stage) > 20 * ATOL
    if before is not None:
        assert farthest(wrong, "", before) <= ATOL


def test_an_end_of_image_with_the_vision_expert(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(model, "takes_vision_expert", lambda types: types == positions.VISION)
    caught("layers.0.self_attn", before="inputs_embeds")


def test_no_vision_expert_at_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(model, "takes_vision_expert", lambda types: types > positions.VISION)
    caught("layers.0.self_attn", before="inputs_embeds")


def test_swapped_experts_of_the_mlp(monkeypatch: pytest.MonkeyPatch) -> None:
    def swapped(self: Any, hidden: torch.Tensor, image: torch.Tensor) -> torch.Tensor:
        return language.routed(hidden, ~image, self.vision_mlp, self.language_mlp)

    monkeypatch.setattr(language.CogVLMExperts, "forward", swapped)
    caught("layers.0.mlp", before="layers.0.self_attn")


def test_positions_that_count_patches(monkeypatch: pytest.MonkeyPatch) -> None:
    def plain(types: torch.Tensor, mask: Any) -> torch.Tensor:
        del mask
        return torch.arange(types.shape[1]).expand(len(types), -1)

    monkeypatch.setattr(model, "rotary_positions", plain)
    caught("layers.0.self_attn", before="inputs_embeds")
    assert farthest(fresh(), "", "position_ids") > 0


def test_norms_before_attention_and_mlp(monkeypatch: pytest.MonkeyPatch) -> None:
    def usual(self: Any, hidden: torch.Tensor) -> torch.Tensor:
        hidden = hidden + self.attention(self.input_layernorm(hidden))
        return hidden + self.mlp(self.post_attention_layernorm(hidden))

    monkeypatch.setattr(vision.CogVLMVisionBlock, "forward", usual)
    caught("vision.transformer.layers.0", before="vision.patch_embedding")


def test_query_key_value_mixed_per_head(monkeypatch: pytest.MonkeyPatch) -> None:
    plain = torch.Tensor.unflatten

    def mixed(self: torch.Tensor, dim: int, sizes: Any) -> torch.Tensor:
        if tuple(sizes) == (3, 4, -1):
            return plain(self, dim, (4, 3, -1)).transpose(-2, -3)
        return plain(self, dim, sizes)

    monkeypatch.setattr(torch.Tensor, "unflatten", mixed)
    caught("vision.transformer.layers.0", before="vision.patch_embedding")


def test_ends_of_the_image_the_wrong_way_round() -> None:
    wrong = fresh()
    tower: Any = wrong.module.get_submodule("model.vision")
    tower.boi, tower.eoi = tower.eoi, tower.boi
    assert farthest(wrong, "", "vision") > 20 * ATOL
    assert farthest(wrong, "", "vision.linear_proj") <= ATOL


def test_a_bilinear_resize(monkeypatch: pytest.MonkeyPatch) -> None:
    plain = Image.Image.resize
    bilinear = Image.Resampling.BILINEAR
    monkeypatch.setattr(Image.Image, "resize", lambda self, size, _: plain(self, size, bilinear))
    pixels = loaded().processor.image_processor([Image.open(DATA / "image.png")])
    assert float((pixels - inputs("")["pixel_values"]).abs().max()) > 20 * ATOL
