"""Loading InternLM-XComposer 2.5: what is read, what is refused, what is never run."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import sentencepiece
import torch
from safetensors.torch import load_file, save_file

import vlmlens
from vlmlens.abc.adapter import LoadRequest
from vlmlens.errors import CheckpointError, CheckpointNotFound
from vlmlens.samples import Sample
from vlmlens.testing.tiny import picture
from vlmlens_adapter_internlm_xcomposer.adapter import XComposerAdapter
from vlmlens_adapter_internlm_xcomposer.checks import XComposerChecks

GOLDEN = Path(__file__).parent / "data" / "golden"
TOWER = "vit.vision_tower.vision_model"
WEIGHTS = "model.safetensors"


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    """A checkpoint to change."""
    folder = tmp_path / "xcomposer"
    folder.mkdir()
    for name in ("config.json", WEIGHTS, "tokenizer.model"):
        shutil.copy(GOLDEN / name, folder / name)
    return folder


def load(folder: Path, **settings: Any) -> XComposerAdapter:
    return XComposerAdapter.load(LoadRequest(model=str(folder), device="cpu", **settings))


def skeleton(folder: Path) -> XComposerAdapter:
    return XComposerAdapter.skeleton(LoadRequest(model=str(folder), device="cpu"))


def changed(folder: Path, **values: Any) -> None:
    path = folder / "config.json"
    said = json.loads(path.read_text(encoding="utf-8")) | values
    path.write_text(json.dumps({k: v for k, v in said.items() if v is not ...}), encoding="utf-8")


def reweighted(folder: Path, **values: torch.Tensor | None) -> None:
    """Replace weights by name, `__` standing for a dot; None takes one away."""
    named = {name.replace("__", "."): value for name, value in values.items()}
    weights = {**load_file(folder / WEIGHTS), **named}
    save_file({n: t for n, t in weights.items() if t is not None}, folder / WEIGHTS)


def same_weights(one: XComposerAdapter, other: XComposerAdapter) -> bool:
    pairs = zip(one.module.state_dict().items(), other.module.state_dict().items(), strict=True)
    return all(a == b and torch.equal(x, y) for (a, x), (b, y) in pairs)


# ---------------------------------------------------------------------- code


@pytest.mark.parametrize("trust", [False, True])
def test_the_checkpoints_own_code_is_never_run(checkpoint: Path, trust: bool) -> None:
    ran = checkpoint / "ran"
    mapped = {}
    for kind, name in (("AutoConfig", "configuration"), ("AutoModel", "modeling"),
                       ("AutoModelForCausalLM", "modeling"), ("AutoTokenizer", "tokenization"),
                       ("AutoProcessor", "processing")):  # fmt: skip
        (checkpoint / f"{name}_x.py").write_text(
            f"from pathlib import Path\nPath({str(ran)!r}).touch()\n", encoding="utf-8"
        )
        mapped[kind] = f"{name}_x.X" if kind != "AutoTokenizer" else [f"{name}_x.X", None]
    changed(checkpoint, auto_map=mapped)
    said = json.dumps({"auto_map": mapped, "tokenizer_class": "X"})
    for name in ("tokenizer_config.json", "preprocessor_config.json", "processor_config.json"):
        (checkpoint / name).write_text(said, encoding="utf-8")
    vlm = load(checkpoint, trust_remote_code=trust)
    batch = vlm.encode([Sample("s", "What?", (picture(30, 20),))])
    vlm.generate(batch, max_new_tokens=2)
    vlm.describe()
    skeleton(checkpoint)
    assert type(vlm.module).__name__ == "XComposerForConditionalGeneration"
    assert not ran.exists()


class Planted:
    """Would create a file if it were unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return Path.touch, (self.path,)


def test_a_pickle_is_never_run(checkpoint: Path, tmp_path: Path) -> None:
    (checkpoint / WEIGHTS).unlink()
    torch.save({"output.weight": Planted(tmp_path / "ran")}, checkpoint / "pytorch_model.bin")
    with pytest.raises(CheckpointError, match="more than tensors"):
        load(checkpoint)
    assert not (tmp_path / "ran").exists()


# ---------------------------------------------------------------------- weights


def test_shards_and_bins_hold_the_same_weights(checkpoint: Path) -> None:
    whole, weights = load(checkpoint), load_file(checkpoint / WEIGHTS)
    (checkpoint / WEIGHTS).unlink()
    names = sorted(weights)
    halves = [{n: weights[n] for n in names[::2]}, {n: weights[n] for n in names[1::2]}]
    for kind, write in ((WEIGHTS, save_file), ("pytorch_model.bin", torch.save)):
        files = [f"{Path(kind).stem}-{i}{Path(kind).suffix}" for i in (1, 2)]
        for file, half in zip(files, halves, strict=True):
            write(half, checkpoint / file)
        listed = {name: file for file, half in zip(files, halves, strict=True) for name in half}
        index = checkpoint / f"{kind}.index.json"
        index.write_text(json.dumps({"weight_map": listed}), encoding="utf-8")
        assert same_weights(whole, load(checkpoint)), kind
        index.unlink()
    torch.save(weights, checkpoint / "pytorch_model.bin")
    assert same_weights(whole, load(checkpoint))


def test_every_weight_of_the_file_is_in_its_place(checkpoint: Path) -> None:
    stored, ours = load_file(checkpoint / WEIGHTS), load(checkpoint).module.state_dict()
    assert len(stored) == len(ours)
    for name, tensor in ours.items():
        assert torch.equal(stored[name.replace(".base.", ".")], tensor), name


def test_missing_weights_left_over_ones_and_wrong_shapes_are_listed(checkpoint: Path) -> None:
    reweighted(
        checkpoint,
        model__layers__1__attention__wo__Plora_A__weight=None,
        **{f"{TOWER}.post_layernorm.bias": None},
        model__layers__7__ffn_norm__weight=torch.ones(48),
        vision_proj__2__bias=torch.ones(47),
    )  # fmt: skip
    with pytest.raises(CheckpointError) as caught:
        load(checkpoint)
    text = str(caught.value)
    assert "missing: model.layers.1.attention.wo.Plora_A.weight, vit.vision_tower" in text
    assert "left over: model.layers.7.ffn_norm.weight" in text
    assert "vision_proj.2.bias (47,) instead of (48,)" in text


def test_what_old_transformers_stored_is_ignored(checkpoint: Path) -> None:
    whole = load(checkpoint)
    reweighted(
        checkpoint,
        model__layers__0__attention__rotary_emb__inv_freq=torch.ones(6),
        **{f"{TOWER}.embeddings.position_ids": torch.arange(17)[None]},
    )
    assert same_weights(whole, load(checkpoint))


def test_ranks_of_branches_without_a_scale_come_from_the_weights(checkpoint: Path) -> None:
    weights = load_file(checkpoint / WEIGHTS)
    wider = {
        name: torch.cat([tensor, tensor], 0 if "_A." in name else 1)
        for name, tensor in weights.items()
        if ".lora_web_" in name
    }
    save_file({**weights, **wider}, checkpoint / WEIGHTS)
    found = load(checkpoint).module.get_parameter("model.layers.0.attention.wqkv.lora_web_A.weight")
    assert found.shape == (16, 48)


def test_another_rank_of_the_image_branch_is_refused(checkpoint: Path) -> None:
    """Its scale depends on it."""
    weights = load_file(checkpoint / WEIGHTS)
    name = "model.layers.0.attention.wqkv.Plora_A.weight"
    save_file({**weights, name: weights[name][:3].clone()}, checkpoint / WEIGHTS)
    with pytest.raises(CheckpointError, match=r"Plora_A\.weight \(3, 48\) instead of \(6, 48\)"):
        load(checkpoint)


def test_spread_over_devices_it_computes_the_same(checkpoint: Path) -> None:
    sample = Sample("s", "What?", (picture(64, 48),))
    logits = []
    for settings in ({}, {"device_map": "auto"}):
        vlm = load(checkpoint, dtype="float32", **settings)
        logits.append(vlm.forward(vlm.encode([sample]), logits="last").logits)
    assert torch.equal(*logits)


# ---------------------------------------------------------------------- relatives


def test_xcomposer2_is_refused(checkpoint: Path) -> None:
    reweighted(checkpoint, plora_glb_GN=None, plora_sub_GN=None)
    with pytest.raises(CheckpointError, match=r"no plora_glb_GN.*runs InternLM-XComposer 2\.5"):
        load(checkpoint)


def test_a_tower_of_another_size_is_refused(checkpoint: Path) -> None:
    """XComposer2 sees 490 pixels, 4KHD 336; here 21 stand for them."""
    places = f"{TOWER}.embeddings.position_embedding.weight"
    reweighted(checkpoint, **{places: torch.ones(10, 24)})
    with pytest.raises(CheckpointError, match=r"for 21 pixels, not for 28.*2\.5"):
        load(checkpoint)


@pytest.mark.parametrize(
    ("values", "named"),
    [
        ({"architectures": ["InternLM2ForCausalLM"]}, "InternLM2ForCausalLM"),
        ({"architectures": ...}, "architectures None"),
        ({"rope_scaling": {"type": "yarn", "factor": 2.0}}, "yarn"),
        ({"num_key_value_heads": ..., "rope_theta": ...}, "num_key_value_heads, rope_theta"),
        ({"num_key_value_heads": 3}, "4 and 3 heads"),
        ({"hidden_size": 50}, "a width of 50"),
    ],
)
def test_another_architecture_is_refused(
    checkpoint: Path, values: dict[str, Any], named: str
) -> None:
    changed(checkpoint, **values)
    for read in (load, skeleton):
        with pytest.raises(CheckpointError, match=named):
            read(checkpoint)


def test_tiles_that_do_not_divide_into_merged_patches_are_refused(checkpoint: Path) -> None:
    said = json.loads((checkpoint / "config.json").read_text(encoding="utf-8"))["golden_only"]
    said["vision_tower"]["image_size"] = 35
    changed(checkpoint, golden_only=said)
    with pytest.raises(CheckpointError, match="tiles of 35 pixels"):
        skeleton(checkpoint)


def test_a_missing_folder_says_so(tmp_path: Path) -> None:
    with pytest.raises(CheckpointNotFound, match="does not exist"):
        load(tmp_path / "nothing")


# ---------------------------------------------------------------------- tokenizer


def test_no_tokenizer(checkpoint: Path) -> None:
    (checkpoint / "tokenizer.model").unlink()
    with pytest.raises(CheckpointError, match=r"no tokenizer\.model"):
        load(checkpoint)


def test_a_tokenizer_without_turns_is_refused(checkpoint: Path, tmp_path: Path) -> None:
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(["some words of a text"] * 9), model_prefix=str(tmp_path / "plain"),
        vocab_size=30, hard_vocab_limit=False, minloglevel=2,
    )  # fmt: skip
    shutil.copy(tmp_path / "plain.model", checkpoint / "tokenizer.model")
    with pytest.raises(CheckpointError, match=r"UNUSED_TOKEN_146\] and \[UNUSED_TOKEN_145"):
        load(checkpoint)


def test_pieces_around_a_turn_are_special_and_end_a_text(checkpoint: Path) -> None:
    vlm = load(checkpoint)
    assert {1, 2, 3, 4} <= vlm.special_ids
    assert vlm.module.generation_config.eos_token_id == [2, 3]  # type: ignore[union-attr]
    (made,) = vlm.written(torch.tensor([[64, 292, 3, 64]]))
    assert made.token_ids == (64, 292, 3)
    assert made.text == vlm.tokenizer.decode([64, 292])


# ---------------------------------------------------------------------- from the config alone


def test_a_skeleton_needs_the_config_alone(tmp_path: Path) -> None:
    kit = XComposerChecks()
    shutil.copy(kit.checkpoint / "config.json", tmp_path)
    vlm = skeleton(tmp_path)
    assert vlm.sites.modules == kit.vlm.sites.modules
    assert {p.device.type for p in vlm.module.parameters()} == {"meta"}


def test_a_config_of_the_hubs_kind_at_full_size(tmp_path: Path) -> None:
    """What the 7B checkpoint says, and upstream's constants for the rest."""
    said = {
        "architectures": ["InternLMXComposer2ForCausalLM"], "attn_implementation": "eager",
        "auto_map": {"AutoModel": "modeling_internlm_xcomposer2.InternLMXComposer2ForCausalLM"},
        "bias": False, "bos_token_id": 1, "eos_token_id": 2, "hidden_act": "silu",
        "hidden_size": 4096, "initializer_range": 0.02, "intermediate_size": 14336,
        "max_length": 16384, "max_position_embeddings": 24576, "model_type": "internlm2",
        "num_attention_heads": 32, "num_hidden_layers": 32, "num_key_value_heads": 8,
        "pad_token_id": 2, "rms_norm_eps": 1e-05, "rope_theta": 1000000,
        "rope_scaling": {"type": "dynamic", "factor": 2.0}, "tie_word_embeddings": False,
        "torch_dtype": "bfloat16", "transformers_version": "4.33.1", "use_cache": False,
        "vocab_size": 92544,
    }  # fmt: skip
    (tmp_path / "config.json").write_text(json.dumps(said), encoding="utf-8")
    vlm = skeleton(tmp_path)
    assert vlm.dtype == "bfloat16"
    assert len(vlm.sites.resolve("vision.block.*")) == 24
    assert len(vlm.sites.resolve("llm.block.*")) == 32
    assert (vlm.config.rope_base, vlm.config.rope_type, vlm.config.rope_factor) == (
        1e6,
        "dynamic",
        2,
    )
    assert (vlm.config.longest, vlm.config.merged_side) == (16384, 20)
    widths = vlm.widths()
    for path, width in (
        (f"{TOWER}.encoder.layers.23", 1024),
        (f"{TOWER}.encoder.layers.23.mlp.fc1", 4096),
        ("vision_proj.0", 4096),
        ("model.layers.31.feed_forward.w1.Plora_A", 256),
        ("model.layers.31.attention.wqkv.lora_web_A", 512),
        ("model.layers.31.attention.wqkv.base", 6144),
        ("output", 92544),
    ):
        (site,) = vlm.sites.resolve(path)
        assert widths[site.path] == width, path
    parameters = sum(p.numel() for p in vlm.module.parameters())
    assert 11.0e9 < parameters < 11.2e9


# ---------------------------------------------------------------------- a whole run


def test_a_whole_run_on_the_golden_checkpoint(tmp_path: Path) -> None:
    for seed, label in enumerate(("red", "green")):
        (tmp_path / "photos" / label).mkdir(parents=True)
        for i in range(24):
            size = ((64, 48), (40, 60), (48, 48))[i % 3]
            picture(size[0] + i, size[1], seed=seed).save(tmp_path / "photos" / label / f"{i}.png")
    analyses = ["probe", "logit-lens", "blind-test"]
    run = vlmlens.run(
        adapter="internlm", model=str(GOLDEN), data=str(tmp_path / "photos"), prompt="What is it?",
        device="cpu", out=str(tmp_path / "run"), analysis=analyses,
    )  # fmt: skip
    assert run.info["state"] == "finished"
    assert set(run.results) == set(analyses)
    assert all(result.findings for result in run.results.values())
