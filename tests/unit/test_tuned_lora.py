"""LoRA in a model: trained as a part, saved, put in again, merged or not; equal to plain peft."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from PIL import Image
from safetensors.torch import load_file
from transformers import LlavaForConditionalGeneration

from vlmlens.abc import Batch, ModelAdapter
from vlmlens.abc.adapter import LoadRequest
from vlmlens.errors import CompositionError, SpecError
from vlmlens.samples import Sample
from vlmlens.testing import AdapterTests
from vlmlens.testing.model import TinyLlava, tiny_checkpoint
from vlmlens.tuned.opening import open_tuned
from vlmlens.tuned.putting import check_fits, put_in
from vlmlens_adapter_clip.checks import ClipChecks
from vlmlens_adapter_cogvlm.checks import CogVLMChecks
from vlmlens_adapter_qwen2vl.checks import Qwen2VLChecks
from vlmlens_plugins.tuning.parts.lora import LoraPart

pytestmark = pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing:FutureWarning")
PICTURE = Image.effect_noise((64, 64), 90).convert("RGB")
SAMPLES = [Sample("a", "What is it?", (PICTURE,)), Sample("b", "What color is this?", (PICTURE,))]
LAYERS = "model.language_model.layers"


def request() -> LoadRequest:
    return LoadRequest(model=str(tiny_checkpoint()), device="cpu", dtype="float32")


def fresh() -> ModelAdapter:
    return TinyLlava.load(request())


def logits(vlm: ModelAdapter, batch: Batch) -> torch.Tensor:
    found = vlm.forward(batch, logits="last").logits
    assert found is not None
    return found


def shake(values: Any, seed: int = 0, std: float = 0.2) -> None:
    made = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for value in values:
            value.copy_(torch.randn(value.shape, generator=made) * std)


@pytest.fixture(scope="module")
def vlm() -> ModelAdapter:
    return fresh()


@pytest.fixture(scope="module")
def batch(vlm: ModelAdapter) -> Batch:
    return vlm.encode(SAMPLES)


@pytest.fixture(scope="module")
def skeleton() -> ModelAdapter:
    return TinyLlava.skeleton(request())


@pytest.fixture(scope="module")
def saved(
    vlm: ModelAdapter, batch: Batch, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, torch.Tensor]:
    """LoRA on the language model, and the logits with it."""
    part = LoraPart(vlm, "llm", rank=4, alpha=6)
    with part.attached(vlm):
        shake(part.parameters())
        tuned = logits(vlm, batch)
    folder = tmp_path_factory.mktemp("lora")
    part.save(folder, {"base": vlm.describe(), "steps": 3})
    return folder, tuned


@pytest.fixture
def copied(saved: tuple[Path, torch.Tensor], tmp_path: Path) -> Path:
    for path in saved[0].iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    return tmp_path


# ------------------------------------------------------------------------- the part


class Stop(Exception):
    """Ends a training."""


def seen(vlm: ModelAdapter) -> list[Any]:
    hooks = [
        (name, id(each), each.training, len(each._forward_hooks), len(each._forward_pre_hooks))
        for name, each in vlm.module.named_modules()
    ]
    weights = [(n, id(p), p._version, p.requires_grad) for n, p in vlm.module.named_parameters()]
    return [hooks, weights, sorted(vars(vlm.module)), vlm.describe()]


@pytest.mark.parametrize("component", ["vision", "projector", "llm", "llm.block.1"])
def test_a_part_begins_as_nothing_and_leaves_nothing(
    vlm: ModelAdapter, batch: Batch, component: str
) -> None:
    base = logits(vlm, batch)
    before = seen(vlm)
    part = LoraPart(vlm, component)
    assert seen(vlm) == before
    with suppress(Stop), part.attached(vlm):
        assert torch.equal(logits(vlm, batch), base)
        wanting = [value for value in vlm.module.parameters() if value.requires_grad]
        assert {*map(id, wanting)} == {*map(id, part.parameters())}
        first = vlm.describe()["tuned"]
        shake(part.parameters())
        assert (logits(vlm, batch) - base).abs().max() > 1e-2
        assert vlm.describe()["tuned"]["digest"] != first["digest"]
        assert first | {"digest": ""} == {
            "kind": "lora", "component": component, "digest": "", "merged": False,
        }  # fmt: skip
        raise Stop
    assert seen(vlm) == before
    assert torch.equal(logits(vlm, batch), base)
    assert not any(value.requires_grad for value in part.parameters())


def test_the_layers_of_a_part(vlm: ModelAdapter) -> None:
    names = {site.name for site in LoraPart(vlm, "llm").places(vlm)}
    assert len(names) == 14
    assert {"llm.block.0.self_attn.q_proj", "llm.block.1.mlp.down_proj"} <= names
    few = LoraPart(vlm, "llm", targets=["q_proj", f"{LAYERS}.1.mlp.up_proj"]).places(vlm)
    assert [site.path for site in few] == [
        f"{LAYERS}.0.self_attn.q_proj", f"{LAYERS}.1.self_attn.q_proj", f"{LAYERS}.1.mlp.up_proj",
    ]  # fmt: skip
    inside = {
        site.name.split(".self_attn")[0].split(".mlp")[0]
        for site in LoraPart(vlm, "vision").places(vlm)
    }
    assert not inside & set(vlm.unread)
    for wrong in ({"targets": ["lm_head"]}, {"rank": 0}, {"alpha": 0}, {"dropout": 1.0}):
        with pytest.raises(SpecError):
            LoraPart(vlm, "llm", **wrong)


def test_values_go_out_and_in_and_seeds_count(vlm: ModelAdapter, batch: Batch) -> None:
    one, other = LoraPart(vlm, "projector", seed=1), LoraPart(vlm, "projector", seed=2)
    again = LoraPart(vlm, "projector", seed=1)
    assert all(
        torch.equal(a, b) for a, b in zip(one.state().values(), again.state().values(), strict=True)
    )
    assert any(not torch.equal(value, other.state()[name]) for name, value in one.state().items())
    with one.attached(vlm):
        shake(one.parameters())
        tuned = logits(vlm, batch)
    other.load_state(one.state())
    with other.attached(vlm):
        assert torch.equal(logits(vlm, batch), tuned)
    name = next(iter(one.state()))
    for wrong in (
        {},
        {**one.state(), name: torch.zeros(1)},
        {**one.state(), "more": torch.zeros(1)},
    ):
        with pytest.raises(Exception, match="not of this LoRA"):
            other.load_state(wrong)


def test_dropout_is_for_passes_with_gradients(vlm: ModelAdapter, batch: Batch) -> None:
    from vlmlens.passes.modes import differentiable

    part = LoraPart(vlm, "llm", dropout=0.5)
    with part.attached(vlm):
        shake(part.parameters())
        plain = [logits(vlm, batch) for _ in range(2)]
        with differentiable():
            dropped = [logits(vlm, batch).detach() for _ in range(2)]
    assert torch.equal(*plain)
    assert not torch.equal(*dropped)


# ------------------------------------------------------------------ saved and put in


def test_what_was_saved_is_what_was_trained(
    saved: tuple[Path, torch.Tensor], batch: Batch, skeleton: ModelAdapter
) -> None:
    """Unmerged bit for bit, merged and in plain peft up to rounding; the skeleton stays."""
    folder, tuned = saved
    before, found = seen(skeleton)[2:3], open_tuned(folder)
    assert (found.kind, found.component, found.about["steps"]) == ("lora", "llm", 3)
    for merge, bound in ((False, 0.0), (True, 1e-5)):
        check_fits(skeleton, found, merge=merge)
        vlm = fresh()
        tree = [(name, type(each)) for name, each in vlm.module.named_modules()]
        put_in(vlm, found, merge=merge)
        assert (logits(vlm, batch) - tuned).abs().max() <= bound
        assert ([(n, type(m)) for n, m in vlm.module.named_modules()] == tree) is merge
        assert vlm.describe()["tuned"] == {
            "kind": "lora", "component": "llm", "digest": found.digest, "merged": merge,
        }  # fmt: skip
        with pytest.raises(CompositionError, match="in the model already"):
            put_in(vlm, found)
    assert seen(skeleton)[2:3] == before
    assert not [name for name, _ in skeleton.module.named_modules() if "lora" in name]
    plain = LlavaForConditionalGeneration.from_pretrained(tiny_checkpoint(), dtype=torch.float32)
    model = PeftModel.from_pretrained(plain, str(folder)).eval()
    with torch.inference_mode():
        theirs = model(**batch.inputs, use_cache=False).logits
    own = fresh()
    put_in(own, found, merge=False)
    assert torch.equal(theirs, own.forward(batch, logits="all").logits)


def test_merged_weights_are_those_of_the_paper(saved: tuple[Path, torch.Tensor]) -> None:
    """W + alpha / rank * B A, in the file's own numbers."""
    vlm = fresh()
    before = {name: value.clone() for name, value in vlm.module.named_parameters()}
    put_in(vlm, open_tuned(saved[0]))
    file = load_file(saved[0] / "adapter_model.safetensors")
    after = dict(vlm.module.named_parameters())
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert len(changed) == len(file) // 2 == 14
    for name in changed:
        key = f"base_model.model.{name.removesuffix('.weight')}"
        low, high = file[f"{key}.lora_A.weight"], file[f"{key}.lora_B.weight"]
        expected = before[name].double() + 6 / 4 * (high.double() @ low.double())
        assert (after[name] - expected).abs().max() < 1e-6


def test_in_16_bits_the_sum_is_rounded_once(saved: tuple[Path, torch.Tensor]) -> None:
    vlm = TinyLlava.load(LoadRequest(model=str(tiny_checkpoint()), device="cpu", dtype="bfloat16"))
    name = f"{LAYERS}.0.mlp.up_proj"
    before = vlm.module.get_submodule(name).weight.clone()
    put_in(vlm, open_tuned(saved[0]))
    file = load_file(saved[0] / "adapter_model.safetensors")
    low, high = (file[f"base_model.model.{name}.lora_{each}.weight"] for each in "AB")
    expected = (before.float() + 1.5 * (high @ low)).bfloat16()
    assert torch.equal(vlm.module.get_submodule(name).weight, expected)


def test_sites_mean_the_same_where_layers_stay(
    saved: tuple[Path, torch.Tensor], batch: Batch
) -> None:
    """Heads, branches, single layers, edits and the readout, against the merged model."""
    found = open_tuned(saved[0])
    sites = ["llm.block.1.attn.heads", "llm.block.1.attn_out", "llm.block.0.mlp_out",
             "llm.block.1.self_attn.v_proj", "llm.block.1.attn.heads[1]", "llm.head"]  # fmt: skip
    kept = []
    for merge in (True, False):
        vlm = fresh()
        put_in(vlm, found, merge=merge)
        made = vlm.trace(
            batch, sites, logits="last", edits=["llm.block.0.attn.heads[0]/last = zero"]
        )
        kept.append([made[site] for site in sites])
        assert vlm.attention(batch, "llm.block.1.attn")
    for one, other in zip(*kept, strict=True):
        assert (one - other).abs().max() < 1e-5


# ------------------------------------------------------------ what peft's LoRA can do


def plain() -> Any:
    return LlavaForConditionalGeneration.from_pretrained(tiny_checkpoint(), dtype=torch.float32)


KINDS: dict[str, dict[str, Any]] = {
    "dora": {"target_modules": ["o_proj", "fc1"], "use_dora": True},
    "rslora": {"target_modules": r".*language_model.*\.(q|v)_proj", "use_rslora": True},
    "patterns": {
        "target_modules": ["q_proj", "down_proj"], "rank_pattern": {"down_proj": 2},
        "alpha_pattern": {r"layers.1.self_attn.q_proj": 32},
    },
    "biases": {"target_modules": ["out_proj", "linear_1"], "bias": "lora_only"},
    "all biases": {"target_modules": ["q_proj"], "bias": "all"},
    "whole modules": {
        "target_modules": ["v_proj"], "modules_to_save": ["multi_modal_projector"],
    },
    "embeddings": {"target_modules": ["embed_tokens", "q_proj"]},
    "convolutions": {"target_modules": ["patch_embedding"]},
}  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.filterwarnings("ignore:Setting `save_embedding_layers`")
def test_the_kinds_that_peft_knows(
    kind: str, batch: Batch, skeleton: ModelAdapter, tmp_path: Path
) -> None:
    """A LoRA that peft made on the bare model gives the logits that it gives there."""
    model = get_peft_model(plain(), LoraConfig(r=4, lora_alpha=6, **KINDS[kind])).eval()
    shake([value for value in model.parameters() if value.requires_grad], std=0.1)
    with torch.inference_mode():
        theirs = model(**batch.inputs, use_cache=False).logits
    model.save_pretrained(str(tmp_path))
    found = open_tuned(tmp_path)
    assert (found.kind, found.component, found.base) == ("lora", "", {})
    for merge in (False, True):
        check_fits(skeleton, found, merge=merge)
        vlm = fresh()
        base = vlm.forward(batch, logits="all").logits
        put_in(vlm, found, merge=merge)
        ours = vlm.forward(batch, logits="all").logits
        assert ours is not None
        assert (ours - theirs).abs().max() < 1e-5
        assert (ours - base).abs().max() > 1e-3


# -------------------------------------------------------------------------- families


@pytest.mark.parametrize(
    ("checks", "component"),
    [(Qwen2VLChecks, "vision"), (Qwen2VLChecks, "llm"), (CogVLMChecks, "llm")],
)
def test_families(checks: type[AdapterTests], component: str, tmp_path: Path) -> None:
    given = LoadRequest(model=str(checks().checkpoint), device="cpu", dtype="float32")
    adapter = checks().adapter
    vlm = adapter.load(given)
    batch = vlm.encode(SAMPLES[:1])
    part = LoraPart(vlm, component, rank=2)
    base = logits(vlm, batch)
    with part.attached(vlm):
        assert torch.equal(logits(vlm, batch), base)
        shake(part.parameters(), std=0.1)
        tuned = logits(vlm, batch)
    assert torch.equal(logits(vlm, batch), base)
    part.save(tmp_path, {"base": vlm.describe()})
    check_fits(adapter.skeleton(given), open_tuned(tmp_path))
    put_in(vlm, open_tuned(tmp_path))
    assert (logits(vlm, batch) - tuned).abs().max() < 1e-4
    assert (tuned - base).abs().max() > 1e-2


def test_remembered_texts_of_clip_are_not_those_of_another_model(tmp_path: Path) -> None:
    given = LoadRequest(model=str(ClipChecks().checkpoint), device="cpu", dtype="float32")
    adapter = ClipChecks().adapter
    vlm, asked = adapter.load(given), [Sample("a", "red", (PICTURE,), choices=("red", "blue"))]
    base = vlm.choice_scores(asked)
    part = LoraPart(vlm, "llm")
    with part.attached(vlm):
        assert vlm.choice_scores(asked) == base
        shake(part.parameters())
        tuned = vlm.choice_scores(asked)
    assert vlm.choice_scores(asked) == base
    assert tuned != base
    part.save(tmp_path, {})
    put_in(vlm, open_tuned(tmp_path), merge=False)
    assert vlm.choice_scores(asked) == tuned
