"""What looks at a model with LoRA sees the tuned one, whether LoRA is merged or stays beside."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from PIL import Image
from transformers import LlavaForConditionalGeneration

from vlmlens.abc import ModelAdapter
from vlmlens.abc.adapter import LoadRequest
from vlmlens.passes.contributions import contributions
from vlmlens.passes.gradients import logit
from vlmlens.samples import Sample
from vlmlens.testing.model import TinyLlava, tiny_checkpoint
from vlmlens.tuned.opening import open_tuned
from vlmlens.tuned.putting import put_in
from vlmlens_plugins.analysis.weights.projector import last_linear, read_directions
from vlmlens_plugins.analysis.weights.vocabulary import Words

pytestmark = pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing:FutureWarning")
PICTURE = Image.effect_noise((64, 64), 90).convert("RGB")
SAMPLES = [Sample(name, prompt, (PICTURE,)) for name, prompt in (("a", "What?"), ("b", "A dog?"))]
EVERYWHERE = [
    "q_proj",
    "k_proj",
    "v_proj",
    "o_proj",
    "up_proj",
    "fc1",
    "linear_1",
    "linear_2",
    "lm_head",
]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, ModelAdapter]:
    """The base, and the same LoRA merged into it and beside its weights."""
    plain = LlavaForConditionalGeneration.from_pretrained(tiny_checkpoint(), dtype=torch.float32)
    model = get_peft_model(plain, LoraConfig(r=2, target_modules=EVERYWHERE))
    made = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for value in model.parameters():
            if value.requires_grad:
                value.copy_(0.1 * torch.randn(value.shape, generator=made))
    folder = tmp_path_factory.mktemp("lora")
    model.save_pretrained(str(folder), save_embedding_layers=False)
    request = LoadRequest(model=str(tiny_checkpoint()), device="cpu", dtype="float32")
    found = {name: TinyLlava.load(request) for name in ("base", "merged", "beside")}
    for name in ("merged", "beside"):
        put_in(found[name], open_tuned(folder), merge=name == "merged")
    return found


def directions(vlm: ModelAdapter) -> torch.Tensor:
    words = Words.of(vlm, fold=True)
    assert words is not None
    path = last_linear(vlm, vlm.sites.canonical["projector"].path, 32)
    assert path.endswith("linear_2")
    return torch.tensor([one["value"] for one in read_directions(vlm, path, 32, words)])


def components(vlm: ModelAdapter) -> torch.Tensor:
    found = contributions(vlm, vlm.encode(SAMPLES), [[5, 7], [8, 9]])
    assert (found.added.sum(0) + found.constant - found.total).abs().max() < 1e-4
    return found.added


def gradients(vlm: ModelAdapter) -> torch.Tensor:
    found = vlm.gradients(vlm.encode(SAMPLES), "llm.block.0", logit([5, 5]))
    return found["llm.block.0"]


def replayed(vlm: ModelAdapter) -> torch.Tensor:
    batch, edits = vlm.encode(SAMPLES), ["llm.block.1.attn.heads[2]/last = zero"]
    again = vlm.replay(batch).edited(edits)
    with vlm.edited(edits):
        whole = vlm.forward(batch, logits="last").logits
    assert whole is not None
    assert torch.equal(again, whole)
    return whole


def some_logits(vlm: ModelAdapter) -> torch.Tensor:
    readout = vlm.readout()
    assert readout is not None
    trace = vlm.trace(vlm.encode(SAMPLES), [readout.site], logits="all")
    assert torch.allclose(readout(trace[readout.site]), trace.logits, atol=1e-5)  # type: ignore[arg-type]
    return readout(trace[readout.site])


def shared(vlm: ModelAdapter) -> torch.Tensor:
    batch = vlm.encode_shared([SAMPLES])
    assert batch is not None
    return vlm.trace(batch, ["llm.block.1"])["llm.block.1"]


@pytest.mark.parametrize("look", [directions, components, gradients, replayed, some_logits, shared])
def test_both_ways_are_the_tuned_model(models: dict[str, ModelAdapter], look: Any) -> None:
    base, merged, beside = (look(models[name]) for name in ("base", "merged", "beside"))
    size = merged.abs().max()
    assert (merged - beside).abs().max() < 1e-5 * size
    assert (merged - base).abs().max() > 1e-2 * size


def test_what_is_written_is_the_same(models: dict[str, ModelAdapter]) -> None:
    texts = [
        [each.token_ids for each in vlm.generate(vlm.encode(SAMPLES), max_new_tokens=4)]
        for vlm in models.values()
    ]
    assert texts[1] == texts[2] != texts[0]
