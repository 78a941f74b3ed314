"""Mistral's layout against mistral-inference's own arithmetic, and what can be wrong with it."""

from __future__ import annotations

import importlib.util
import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch.nn import functional

from vlmlens.abc.adapter import LoadRequest
from vlmlens.errors import CheckpointError, CheckpointNotFound, MissingDependency
from vlmlens.samples import Sample
from vlmlens.testing._rounding import ROUNDING
from vlmlens.testing.tiny import picture
from vlmlens_adapter_pixtral import mistral
from vlmlens_adapter_pixtral.adapter import PixtralAdapter
from vlmlens_adapter_pixtral.checks import ConsolidatedChecks, PixtralChecks, write_consolidated

SAMPLES = [Sample("a", "What is this?", (picture(40, 64),))]


class Reference:
    """Pixtral as mistral-inference computes it, for one sample with one image.

    Rotary embeddings turn neighbouring pairs, as complex numbers; both feed-forwards use SiLU.
    """

    def __init__(self, folder: Path) -> None:
        self.weights = load_file(folder / "consolidated.safetensors")
        self.params = json.loads((folder / "params.json").read_text())

    def logits(self, ids: torch.Tensor, pixels: torch.Tensor) -> torch.Tensor:
        """float `[positions, vocabulary]`."""
        w, p = self.weights, self.params
        hidden = w["tok_embeddings.weight"][ids]
        hidden[ids == p["vision_encoder"]["image_token_id"]] = self.adapted(self.tower(pixels))
        frequencies = p["rope_theta"] ** (-torch.arange(0, p["head_dim"], 2) / p["head_dim"])
        angles = torch.outer(torch.arange(len(ids)), frequencies)
        for i in range(p["n_layers"]):
            heads = (p["n_heads"], p["n_kv_heads"])
            hidden = self.block(f"layers.{i}.", hidden, angles, heads, p["norm_eps"], causal=True)
        return rms(hidden, w["norm.weight"], p["norm_eps"]) @ w["output.weight"].T

    def tower(self, pixels: torch.Tensor) -> torch.Tensor:
        """float `[patches, width]` of an image `[3, height, width]`."""
        w, p = self.weights, self.params["vision_encoder"]
        patches = functional.conv2d(
            pixels[None], w["vision_encoder.patch_conv.weight"], stride=p["patch_size"]
        )[0]
        rows, cols = patches.shape[1:]
        hidden = rms(patches.flatten(1).T, w["vision_encoder.ln_pre.weight"], 1e-5)
        size = p["hidden_size"] // p["num_attention_heads"]
        frequencies = p["rope_theta"] ** (-torch.arange(0, size, 2) / size)
        row, col = torch.meshgrid(torch.arange(rows), torch.arange(cols), indexing="ij")
        angles = torch.cat(
            [torch.outer(row.flatten(), frequencies[0::2]),
             torch.outer(col.flatten(), frequencies[1::2])], 1,
        )  # fmt: skip
        heads = (p["num_attention_heads"],) * 2
        for i in range(p["num_hidden_layers"]):
            name = f"vision_encoder.transformer.layers.{i}."
            hidden = self.block(name, hidden, angles, heads, 1e-5, causal=False)
        return hidden

    def adapted(self, features: torch.Tensor) -> torch.Tensor:
        w, name = self.weights, "vision_language_adapter"
        inner = features @ w[f"{name}.w_in.weight"].T + w[f"{name}.w_in.bias"]
        return functional.gelu(inner) @ w[f"{name}.w_out.weight"].T + w[f"{name}.w_out.bias"]

    def block(
        self, name: str, hidden: torch.Tensor, angles: torch.Tensor, heads: tuple[int, int],
        eps: float, *, causal: bool,
    ) -> torch.Tensor:  # fmt: skip
        w = {
            key.removeprefix(name).removesuffix(".weight"): value
            for key, value in self.weights.items()
            if key.startswith(name)
        }
        x = rms(hidden, w["attention_norm"], eps)
        q, k, v = (
            (x @ w[f"attention.{part}"].T).unflatten(1, (count, -1)).transpose(0, 1)
            for part, count in (("wq", heads[0]), ("wk", heads[1]), ("wv", heads[1]))
        )
        mixed = functional.scaled_dot_product_attention(
            turned(q, angles)[None], turned(k, angles)[None], v[None],
            is_causal=causal, enable_gqa=True,
        )[0]  # fmt: skip
        hidden = hidden + mixed.transpose(0, 1).flatten(1) @ w["attention.wo"].T
        x = rms(hidden, w["ffn_norm"], eps)
        gated = functional.silu(x @ w["feed_forward.w1"].T) * (x @ w["feed_forward.w3"].T)
        return hidden + gated @ w["feed_forward.w2"].T


def rms(x: torch.Tensor, weight: torch.Tensor, eps: float) -> torch.Tensor:
    return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + eps) * weight


def turned(x: torch.Tensor, angles: torch.Tensor) -> torch.Tensor:
    """Every pair of neighbours in `[heads, positions, d]`, turned by its angle."""
    pairs = torch.view_as_complex(x.unflatten(-1, (-1, 2)).contiguous())
    turns = torch.polar(torch.ones_like(angles), angles)
    return torch.view_as_real(pairs * turns).flatten(-2)


def logits_of(vlm: Any) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """(logits, ids, pixels) of the one sample."""
    batch = vlm.encode(SAMPLES)
    logits = vlm.forward(batch, logits="all").logits
    return logits[0], batch.inputs["input_ids"][0], batch.inputs["pixel_values"][0]


def far(a: torch.Tensor, b: torch.Tensor) -> float:
    return float((a - b).abs().max() / b.abs().max())


def test_it_computes_what_mistral_inference_computes() -> None:
    checks = ConsolidatedChecks()
    logits, ids, pixels = logits_of(checks.vlm)
    assert far(logits, Reference(checks.checkpoint).logits(ids, pixels)) < ROUNDING


@pytest.mark.parametrize("mistake", ["rotary order", "gelu in the tower", "rope theta"])
def test_mistakes_in_the_conversion_are_caught(
    mistake: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if mistake == "rotary order":
        monkeypatch.setattr(mistral, "half_split", lambda weight, heads: weight)
    checks = ConsolidatedChecks()
    vlm: Any = checks.load()
    if mistake == "gelu in the tower":
        for layer in vlm.module.model.vision_tower.transformer.layers:
            layer.feed_forward.act_fn = torch.nn.GELU()
    if mistake == "rope theta":
        vlm.module.model.language_model.rotary_emb.inv_freq.mul_(1.1)
    logits, ids, pixels = logits_of(vlm)
    assert far(logits, Reference(checks.checkpoint).logits(ids, pixels)) > 1e-3


@pytest.mark.parametrize("tower", [True, False], ids=["tower", "language model"])
def test_the_rotary_order_matters_in_both_halves(tower: bool) -> None:
    checks = ConsolidatedChecks()
    reference = Reference(checks.checkpoint)
    logits, ids, pixels = logits_of(checks.vlm)
    for name, weight in reference.weights.items():
        if re.search(r"\.w[qk]\.", name) and name.startswith("vision") == tower:
            reference.weights[name] = mistral.half_split(weight, 4 if ".wq" in name or tower else 2)
    assert far(logits, reference.logits(ids, pixels)) > 1e-3


def test_there_and_back_again(tmp_path: Path) -> None:
    """A native model written in Mistral's layout loads as the same weights, bit for bit."""
    native: Any = PixtralChecks().vlm
    write_consolidated(tmp_path, native.module)
    back = PixtralAdapter.load(LoadRequest(model=str(tmp_path), device="cpu", dtype="float32"))
    expected, found = native.module.state_dict(), back.module.state_dict()
    assert expected.keys() == found.keys()
    assert all(torch.equal(expected[name], found[name]) for name in expected)


def test_it_is_bfloat16_by_itself() -> None:
    request = LoadRequest(model=str(ConsolidatedChecks().checkpoint), device="cpu")
    assert PixtralAdapter.load(request).dtype == "bfloat16"
    assert PixtralAdapter.skeleton(request).dtype == "bfloat16"


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    return Path(shutil.copytree(ConsolidatedChecks().checkpoint, tmp_path / "copy"))


def load(folder: Path) -> PixtralAdapter:
    return PixtralAdapter.load(LoadRequest(model=str(folder), device="cpu"))


def test_another_model_in_this_layout_is_refused(copy: Path) -> None:
    params = json.loads((copy / "params.json").read_text())
    for wrong in ({"vision_encoder": None}, {"moe": {"num_experts": 8}}):
        (copy / "params.json").write_text(json.dumps({**params, **wrong}))
        with pytest.raises(CheckpointError, match="no Pixtral 12B"):
            load(copy)


def test_weights_that_do_not_fit_are_refused(copy: Path) -> None:
    file = copy / "consolidated.safetensors"
    weights = load_file(file)
    name = "layers.1.attention.wk.weight"
    without = {key: value.clone() for key, value in weights.items() if key != name}
    save_file(without, file)
    with pytest.raises(CheckpointError, match="k_proj"):
        load(copy)
    save_file({**without, name: weights[name].clone(), "extra.weight": torch.zeros(2)}, file)
    with pytest.raises(CheckpointError, match="extra"):
        load(copy)


def test_without_weights(copy: Path) -> None:
    (copy / "consolidated.safetensors").unlink()
    PixtralAdapter.skeleton(LoadRequest(model=str(copy), device="cpu"))
    with pytest.raises(CheckpointNotFound):
        load(copy)


@pytest.mark.skipif(
    importlib.util.find_spec("mistral_common") is not None, reason="mistral-common is installed"
)
def test_a_tokenizer_without_its_special_tokens_needs_mistral_common(copy: Path) -> None:
    tekken = json.loads((copy / "tekken.json").read_text())
    del tekken["special_tokens"]
    (copy / "tekken.json").write_text(json.dumps(tekken))
    with pytest.raises(MissingDependency) as caught:
        load(copy).encode(SAMPLES)
    assert "pip install mistral-common" in caught.value.hint
    assert "mistral-community/pixtral-12b" in caught.value.hint
