"""LoRA and weights that do not fit a model are refused: no value is ever left out in silence."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from vlmlens.abc import ModelAdapter
from vlmlens.abc.adapter import LoadRequest
from vlmlens.errors import CheckpointError, CompositionError, SiteNotFound, SpecError
from vlmlens.testing.model import TinyLlava, tiny_checkpoint
from vlmlens.tuned.components import parameters_of
from vlmlens.tuned.opening import open_tuned
from vlmlens.tuned.putting import check_fits, made_for_another, put_in
from vlmlens_plugins.tuning.parts.lora import LoraPart

pytestmark = pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing:FutureWarning")
Tensors = dict[str, torch.Tensor]
WEIGHTS = "adapter_model.safetensors"
CONFIG = "adapter_config.json"
Q0 = "base_model.model.model.language_model.layers.0.self_attn.q_proj.lora_A.weight"
LEAVES = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
ALL = rf"(.*)language_model(.*)\.({'|'.join(LEAVES)})"


def request() -> LoadRequest:
    return LoadRequest(model=str(tiny_checkpoint()), device="cpu", dtype="float32")


@pytest.fixture(scope="module")
def vlm() -> ModelAdapter:
    return TinyLlava.load(request())


@pytest.fixture(scope="module")
def skeleton() -> ModelAdapter:
    return TinyLlava.skeleton(request())


@pytest.fixture(scope="module")
def made(vlm: ModelAdapter, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """LoRA on the language model as others have it: without `tuned.json`."""
    folder = tmp_path_factory.mktemp("lora")
    part = LoraPart(vlm, "llm", rank=4)
    part.load_state({name: torch.full_like(v, 0.1) for name, v in part.state().items()})
    part.save(folder, {"base": vlm.describe()})
    return folder


@pytest.fixture
def lora(made: Path, tmp_path: Path) -> Path:
    for name in (WEIGHTS, CONFIG):
        (tmp_path / name).write_bytes((made / name).read_bytes())
    say(tmp_path, target_modules=ALL)
    return tmp_path


def say(folder: Path, **values: Any) -> None:
    path = folder / CONFIG
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


def rewrite(folder: Path, change: Callable[[Tensors], Tensors]) -> None:
    found = change(load_file(folder / WEIGHTS))
    save_file({name: value.contiguous() for name, value in found.items()}, folder / WEIGHTS)


def without(*parts: str) -> Callable[[Tensors], Tensors]:
    return lambda found: {k: v for k, v in found.items() if not any(p in k for p in parts)}


def renamed(pattern: str, new: str) -> Callable[[Tensors], Tensors]:
    return lambda found: {re.sub(pattern, new, k): v for k, v in found.items()}


MISTAKES: dict[str, tuple[Callable[[Tensors], Tensors], dict[str, Any], str]] = {
    "a key renamed": (renamed(r"layers\.0\.self_attn\.q_proj", "layers.0.self_attn.wq"), {},
                      r"2 of 28 tensors .* modules that the model does not have, such as .*wq"),
    "another model": (renamed("language_model", "decoder"), {}, "28 of 28 tensors"),
    "a shape": (lambda found: {**found, Q0: found[Q0][:, :-1]}, {}, r"of another shape: .*q_proj"),
    "a matrix dropped": (without("layers.0.self_attn.q_proj.lora_B"), {},
                         r"1 missing in the file: .*q_proj.lora_B"),
    "a module dropped": (without("layers.1.mlp.up_proj"), {},
                         r"lacks the weights of modules .*: 1, such as .*up_proj"),
    "another tensor": (lambda f: {**f, "base_model.model.lm_head.weight": torch.zeros(2, 2)}, {},
                       r"no place for: .*lm_head"),
    "another rank": (dict, {"r": 8}, "28 of another shape"),
    "other targets": (dict, {"target_modules": ["q_proj"]}, "do not name: 12"),
    "alpha for nothing": (dict, {"alpha_pattern": {"wq": 4}}, r"does not change: 1, such as 'wq'"),
    "ranks for nothing": (dict, {"rank_pattern": {"c_attn": 4}}, r"'c_attn'"),
    "whole modules missing": (dict, {"modules_to_save": ["multi_modal_projector"]},
                              r"missing in the file: .*multi_modal_projector"),
    "dora without magnitudes": (dict, {"use_dora": True}, "14 missing in the file"),
    "none": (without("lora_A", "lora_B"), {}, "no matrices of LoRA"),
}  # fmt: skip


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_seen_before_weights_are_loaded(
    mistake: str, lora: Path, skeleton: ModelAdapter
) -> None:
    change, said, message = MISTAKES[mistake]
    check_fits(skeleton, open_tuned(lora))
    rewrite(lora, change)
    say(lora, **said)
    before = [(name, id(each)) for name, each in skeleton.module.named_modules()]
    with pytest.raises(CheckpointError, match=message):
        check_fits(skeleton, open_tuned(lora))
    assert [(name, id(each)) for name, each in skeleton.module.named_modules()] == before


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_values_that_are_not_finite(lora: Path, value: float) -> None:
    rewrite(lora, lambda found: {**found, Q0: torch.full_like(found[Q0], value)})
    with pytest.raises(CheckpointError, match=r"q_proj.*not finite"):
        put_in(TinyLlava.load(request()), open_tuned(lora))


def test_a_value_that_peft_leaves_out_is_seen(
    lora: Path, vlm: ModelAdapter, monkeypatch: pytest.MonkeyPatch
) -> None:
    import peft

    real = peft.set_peft_model_state_dict

    def careless(model: Any, state: Tensors, name: str) -> Any:
        return real(model, without("layers.1.mlp.up_proj.lora_B")(state), name)

    monkeypatch.setattr(peft, "set_peft_model_state_dict", careless)
    with pytest.raises(CheckpointError, match=r"peft did not put .*up_proj.lora_B"):
        put_in(TinyLlava.load(request()), open_tuned(lora))


@pytest.mark.parametrize("prefix", ["base_model.model.", ""])
def test_names_of_older_versions(lora: Path, skeleton: ModelAdapter, prefix: str) -> None:
    """As transformers called the modules before 4.52, with targets in those names; one may lack."""
    old = rf"{prefix}language_model.model."
    rewrite(lora, renamed(r"^base_model\.model\.model\.language_model\.", old))
    say(lora, target_modules=rf"language_model\.model\.layers\.\d+\..*\.({'|'.join(LEAVES)})")
    loaded = TinyLlava.load(request())
    name = "model.language_model.layers.0.self_attn.q_proj.weight"
    before = loaded.module.get_parameter(name).clone()
    put_in(loaded, open_tuned(lora))
    change = loaded.module.get_parameter(name) - before
    assert torch.allclose(change, torch.full_like(change, 16 / 4 * 4 * 0.1 * 0.1), atol=1e-6)
    rewrite(lora, without("layers.1.mlp.up_proj"))
    with pytest.raises(CheckpointError, match=r"lacks the weights .*layers.1.mlp.up_proj"):
        check_fits(skeleton, open_tuned(lora))


def test_older_names_of_ranks_and_alphas_count(lora: Path) -> None:
    rewrite(lora, renamed(r"^base_model\.model\.model\.language_model\.", "language_model.model."))
    say(lora, alpha_pattern={r"language_model\.model\.layers\.0\.self_attn\.q_proj": 4})
    say(lora, target_modules=LEAVES, exclude_modules=r".*vision_tower.*")
    loaded = TinyLlava.load(request())
    names = [f"model.language_model.layers.{i}.self_attn.q_proj.weight" for i in (0, 1)]
    before = [loaded.module.get_parameter(name).clone() for name in names]
    put_in(loaded, open_tuned(lora))
    steps = [
        float((loaded.module.get_parameter(name) - old).mean())
        for name, old in zip(names, before, strict=True)
    ]
    assert steps == pytest.approx([1 * 0.04, 4 * 0.04], rel=1e-4)


# ------------------------------------------------------------------ bases, merging


def test_another_checkpoint_is_refused(made: Path, tmp_path: Path, skeleton: ModelAdapter) -> None:
    for path in made.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    check_fits(skeleton, open_tuned(tmp_path))
    about = json.loads((tmp_path / "tuned.json").read_text())
    for change, message in (
        ({"digest": "0" * 32, "checkpoint": "other"}, "was made from 'other'"),
        ({"tuned": {"kind": "lora"}}, "two of them cannot be put into one model"),
    ):
        said = {**about, "base": {**about["base"], **change}}
        (tmp_path / "tuned.json").write_text(json.dumps(said))
        with pytest.raises(CheckpointError, match=message):
            check_fits(skeleton, open_tuned(tmp_path))


def test_another_name_of_the_base_is_noted(lora: Path, made: Path) -> None:
    say(lora, base_model_name_or_path="some/Base-7B")
    found = open_tuned(lora)
    assert "made for 'some/Base-7B', and the model is 'x/y'" in made_for_another(found, "x/y")
    assert made_for_another(found, "mirror/base-7b/") == ""
    assert made_for_another(open_tuned(made), "x/y") == ""


def test_what_cannot_be_merged(lora: Path) -> None:
    """Quantized weights, and weights that two modules share: the layers can stay beside them."""
    found = open_tuned(lora)
    shell = TinyLlava.skeleton(request())
    with pytest.raises(CompositionError, match="quantized") as caught:
        check_fits(shell, found, quantized=True)
    assert "--no-merge-tuned" in caught.value.hint
    check_fits(shell, found, merge=False, quantized=True)
    first, second = (
        shell.module.get_submodule(f"model.language_model.layers.{i}.mlp.up_proj") for i in (0, 1)
    )
    second.weight = first.weight
    with pytest.raises(CompositionError, match="has the same ones"):
        check_fits(shell, found)
    check_fits(shell, found, merge=False)


# ---------------------------------------------------------------------- whole weights


@pytest.fixture
def weights(vlm: ModelAdapter, tmp_path: Path) -> Path:
    values = {n: v.detach() + 0.5 for n, v in parameters_of(vlm, "projector").items()}
    save_file(values, tmp_path / "weights.safetensors")
    about = {"kind": "weights", "component": "projector", "base": vlm.describe()}
    (tmp_path / "tuned.json").write_text(json.dumps(about))
    return tmp_path


def test_weights_are_those_of_the_file(weights: Path, vlm: ModelAdapter) -> None:
    loaded = TinyLlava.load(request())
    found = open_tuned(weights)
    put_in(loaded, found)
    before, inside = dict(vlm.module.named_parameters()), parameters_of(vlm, "projector")
    for name, value in loaded.module.named_parameters():
        assert torch.equal(value, before[name] + (0.5 if name in inside else 0.0)), name
    assert loaded.describe()["tuned"]["merged"] is False
    with pytest.raises(CompositionError, match="quantized"):
        check_fits(vlm, found, merge=False, quantized=True)


BIAS = "model.multi_modal_projector.linear_1.bias"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (without("linear_1.bias"), rf"1 missing in the files: {BIAS}"),
        (
            renamed(r"linear_1\.bias", "linear_9.bias"),
            r"1 that the model does not have: .*linear_9",
        ),
        (lambda found: {**found, BIAS: torch.zeros(3)}, r"1 of another shape: .*bias \[3\]"),
        (without("linear"), r"4 missing in the files"),
    ],
)
def test_weights_that_do_not_fit(
    weights: Path, skeleton: ModelAdapter, change: Callable[[Tensors], Tensors], message: str
) -> None:
    path = weights / "weights.safetensors"
    save_file(change(load_file(path)), path)
    with pytest.raises(CheckpointError, match=message):
        check_fits(skeleton, open_tuned(weights))


def test_weights_must_be_finite(weights: Path) -> None:
    path = weights / "weights.safetensors"
    save_file({**load_file(path), BIAS: torch.full((32,), torch.nan)}, path)
    with pytest.raises(CheckpointError, match="not finite"):
        put_in(TinyLlava.load(request()), open_tuned(weights))


def test_a_misspelt_component_is_no_pattern_of_sites(vlm: ModelAdapter) -> None:
    with pytest.raises(SpecError, match="no component 'visoin'") as error:
        parameters_of(vlm, "visoin")
    assert "vision" in str(error.value.hint)
    with pytest.raises(SiteNotFound):
        parameters_of(vlm, "llm.block.99")
