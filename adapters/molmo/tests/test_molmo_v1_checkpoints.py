"""The first Molmo's checkpoints: configs, weights, tokenizers, and what must never be run."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from vlmlens.abc.adapter import LoadRequest
from vlmlens.errors import CheckpointError, CheckpointNotFound
from vlmlens.samples import Sample
from vlmlens.testing.adapter import distance
from vlmlens.testing.tiny import byte_tokenizer, picture
from vlmlens_adapter_molmo.v1.adapter import MolmoAdapter
from vlmlens_adapter_molmo.v1.checks import MolmoChecks, MolmoEChecks, MolmoOlmoChecks
from vlmlens_adapter_molmo.v1.model import MolmoForConditionalGeneration
from vlmlens_adapter_molmo.v1.tiny import Kind, molmo_json, molmo_shapes, write_checkpoint

KITS = {"qwen2": MolmoChecks, "olmo2": MolmoOlmoChecks, "olmoe": MolmoEChecks}


@pytest.fixture(params=list(KITS))
def checkpoint(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A checkpoint of each kind to change."""
    return copied(request.param, tmp_path)


@pytest.fixture
def moe(tmp_path: Path) -> Path:
    return copied("olmoe", tmp_path)


def copied(kind: str, folder: Path) -> Path:
    target = folder / kind
    shutil.copytree(KITS[kind]().checkpoint, target)
    return target


def load(folder: Path, **settings: Any) -> MolmoAdapter:
    request = LoadRequest(model=str(folder), **{"device": "cpu", **settings})
    return MolmoAdapter.load(request)


def changed(folder: Path, file: str = "config.json", **values: Any) -> None:
    path = folder / file
    said = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    path.write_text(json.dumps(said | values), encoding="utf-8")


def logits(vlm: MolmoAdapter) -> torch.Tensor:
    batch = vlm.encode([Sample("s", "What is this?", (picture(64, 48),))])
    found = vlm.forward(batch, logits="last").logits
    assert found is not None
    return found


# ---------------------------------------------------------------------- nothing is run

POISON = "from pathlib import Path\nPath({!r}).touch()\nclass {}: pass\n"
CODE = {
    "config_molmo": "MolmoConfig", "modeling_molmo": "MolmoForCausalLM",
    "preprocessing_molmo": "MolmoProcessor", "image_preprocessing_molmo": "MolmoImageProcessor",
    "tokenization_molmo": "MolmoTokenizer",
}  # fmt: skip


@pytest.mark.parametrize("trust", [False, True])
def test_the_checkpoints_own_code_is_never_run(checkpoint: Path, trust: bool) -> None:
    ran = checkpoint.parent / "ran"
    for name, found in CODE.items():
        (checkpoint / f"{name}.py").write_text(POISON.format(str(ran), found), encoding="utf-8")
    model = {"AutoConfig": "config_molmo.MolmoConfig"} | {
        f"AutoModel{kind}": "modeling_molmo.MolmoForCausalLM" for kind in ("", "ForCausalLM")
    }
    images = {
        "AutoProcessor": "preprocessing_molmo.MolmoProcessor",
        "AutoImageProcessor": "image_preprocessing_molmo.MolmoImageProcessor",
    }
    words = {"AutoTokenizer": ["tokenization_molmo.MolmoTokenizer", None]}
    changed(checkpoint, auto_map=model)
    for file in ("preprocessor_config.json", "processor_config.json"):
        changed(checkpoint, file, auto_map=images, processor_class="MolmoProcessor")
    changed(checkpoint, "tokenizer_config.json", auto_map=images | words)
    vlm = load(checkpoint, trust_remote_code=trust)
    vlm.generate(vlm.encode([Sample("s", "Hm?", (picture(20, 20),))]), max_new_tokens=2)
    MolmoAdapter.skeleton(vlm.request)
    assert type(vlm.module) is MolmoForConditionalGeneration
    assert not ran.exists()


class Planted:
    """Would create a file if it were unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return Path.touch, (self.path,)


def test_a_pickle_is_never_run(moe: Path, tmp_path: Path) -> None:
    (moe / "model.safetensors").unlink()
    torch.save({"lm_head.weight": Planted(tmp_path / "ran")}, moe / "pytorch_model.bin")
    with pytest.raises(CheckpointError, match="more than tensors"):
        load(moe)
    assert not (tmp_path / "ran").exists()


# ---------------------------------------------------------------------- weights


def test_shards_of_both_kinds_hold_the_same_weights(checkpoint: Path) -> None:
    """The two halves of the experts and of the embedding table lie in different shards."""
    whole = load(checkpoint).module.state_dict()
    weights = load_file(checkpoint / "model.safetensors")
    (checkpoint / "model.safetensors").unlink()
    names = sorted(weights)
    for kind, write in (("model.safetensors", save_file), ("pytorch_model.bin", torch.save)):
        files = [f"{Path(kind).stem}-{i}{Path(kind).suffix}" for i in (1, 2)]
        parts = (names[::2], names[1::2])
        for file, part in zip(files, parts, strict=True):
            write({name: weights[name] for name in part}, checkpoint / file)
        listed = {name: file for file, part in zip(files, parts, strict=True) for name in part}
        index = checkpoint / f"{kind}.index.json"
        index.write_text(json.dumps({"weight_map": listed}), encoding="utf-8")
        again = load(checkpoint).module.state_dict()
        assert list(again) == list(whole)
        assert all(torch.equal(tensor, again[name]) for name, tensor in whole.items()), kind
        index.unlink()


def test_missing_weights_left_over_ones_and_wrong_shapes_are_listed(checkpoint: Path) -> None:
    weights = load_file(checkpoint / "model.safetensors")
    del weights["model.vision_backbone.pad_embed"]
    weights["model.vision_backbone.image_vit.post_ln.weight"] = torch.ones(32)
    weights["model.transformer.ln_f.weight"] = torch.ones(31)
    save_file(weights, checkpoint / "model.safetensors")
    with pytest.raises(CheckpointError) as caught:
        load(checkpoint)
    text = str(caught.value)
    assert "missing: model.multi_modal_projector.pad_embed;" in text
    assert "left over: model.vision_tower.post_ln.weight;" in text
    assert "model.language_model.norm.weight (31,) instead of (32,)" in text


EXPERT = "model.transformer.blocks.1.mlp.experts.5.up_proj.weight"


def test_a_missing_expert_is_an_error(moe: Path) -> None:
    weights = load_file(moe / "model.safetensors")
    del weights[EXPERT]
    save_file(weights, moe / "model.safetensors")
    with pytest.raises(CheckpointError, match=r"missing: \S+layers\.1\.mlp\.experts\.gate_up_proj"):
        load(moe)


def test_an_expert_of_another_shape_is_an_error(moe: Path) -> None:
    weights = load_file(moe / "model.safetensors")
    weights[EXPERT] = torch.ones(15, 32)
    save_file(weights, moe / "model.safetensors")
    with pytest.raises(CheckpointError, match=r"missing: \S+layers\.1\.mlp\.experts\.gate_up_proj"):
        load(moe)


def test_fewer_experts_than_the_config_says(moe: Path) -> None:
    changed(moe, moe_num_experts=9)
    with pytest.raises(CheckpointError, match=r"\(8, 32, 32\) instead of \(9, 32, 32\)"):
        load(moe)


def test_half_of_the_embedding_table_is_an_error(checkpoint: Path) -> None:
    weights = load_file(checkpoint / "model.safetensors")
    del weights["model.transformer.wte.new_embedding"]
    save_file(weights, checkpoint / "model.safetensors")
    with pytest.raises(CheckpointError, match=r"left over: model\.transformer\.wte\.embedding"):
        load(checkpoint)


def test_bfloat16_is_close_to_float32(checkpoint: Path) -> None:
    exact, half = load(checkpoint), load(checkpoint, dtype="bfloat16")
    dtypes = {parameter.dtype for parameter in half.module.parameters()}
    assert dtypes == {torch.bfloat16}
    rotary: Any = half.module.get_submodule("model.language_model.rotary_emb")
    twin: Any = exact.module.get_submodule("model.language_model.rotary_emb")
    assert torch.equal(rotary.inv_freq, twin.inv_freq)
    assert 0 < distance(logits(exact), logits(half)) < 0.1


MEASURE = """
    import sys
    from pathlib import Path
    from vlmlens.abc.adapter import LoadRequest
    from vlmlens_adapter_molmo.v1.adapter import MolmoAdapter

    def resident(what):
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith(what)) / 1024

    small, large = sys.argv[1:]
    MolmoAdapter.load(LoadRequest(model=small, device="cpu"))
    before = resident("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")
    vlm = MolmoAdapter.load(LoadRequest(model=large, device="cpu", dtype="bfloat16"))
    size = sum(p.numel() * p.element_size() for p in vlm.module.parameters()) / 2**20
    print((resident("VmHWM") - before) / size)
"""


def test_experts_are_read_into_their_places(moe: Path, tmp_path: Path) -> None:
    """Loading takes little more memory than the weights, which are converted on the way.

    A small model is loaded before, so that what transformers imports is not counted.
    """
    if not Path("/proc/self/clear_refs").exists():
        pytest.skip("the system does not tell its peak of memory")
    large = tmp_path / "large"
    large.mkdir()
    kind: Kind = "olmoe"
    write_checkpoint(large, kind)
    size = {"d_model": 320, "n_layers": 16, "n_heads": 8, "moe_num_experts": 24}
    said = molmo_json(kind, 257) | size
    (large / "config.json").write_text(json.dumps(said), encoding="utf-8")
    zeros = {name: torch.zeros(shape) for name, shape in molmo_shapes(said).items()}
    save_file(zeros, large / "model.safetensors")
    command = [sys.executable, "-c", textwrap.dedent(MEASURE), str(moe), str(large)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert float(done.stdout) <= 1.15


# ---------------------------------------------------------------------- tokenizers


def test_a_beginning_of_text_comes_first_where_there_is_one(moe: Path) -> None:
    specials = (
        "<s>",
        "<|endoftext|>",
        "<im_start>",
        "<im_end>",
        "<im_patch>",
        "<im_col>",
        "<|image|>",
    )
    byte_tokenizer(specials, bos="<s>", eos="<|endoftext|>").save_pretrained(moe)
    vlm = load(moe)
    ids = vlm.encode([Sample("s", "Hm?", (picture(20, 20),))]).inputs["input_ids"][0]
    assert vlm.decode(ids[:2].tolist()) == "<s><im_start>"
    assert vlm.tokenizer.eos_token_id == vlm.module.generation_config.eos_token_id  # type: ignore[union-attr]


def test_a_tokenizer_without_the_images_tokens_is_refused(moe: Path) -> None:
    byte_tokenizer(("<|endoftext|>",), eos="<|endoftext|>").save_pretrained(moe)
    with pytest.raises(CheckpointError, match="im_patch"):
        assert load(moe).processor


def test_no_tokenizer_at_all(moe: Path) -> None:
    (moe / "tokenizer.json").unlink()
    with pytest.raises(CheckpointNotFound, match=r"tokenizer\.json"):
        load(moe)


def test_of_which_checkpoint_it_is(checkpoint: Path) -> None:
    said = load(checkpoint).describe()
    assert (said["class"], said["image_processor"], said["image_backend"]) == (
        "MolmoForConditionalGeneration", "MolmoImages", "torch",
    )  # fmt: skip
