"""The original layout: config without remote code, weights, tokenizers, prompts."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from vlmlens.abc.adapter import LoadRequest
from vlmlens.errors import CheckpointError, CheckpointNotFound, DataError
from vlmlens.samples import Sample
from vlmlens.testing.tiny import picture
from vlmlens_adapter_internvl.adapter import InternVLAdapter
from vlmlens_adapter_internvl.checks import OriginalInternLM2Checks, OriginalQwen2Checks
from vlmlens_adapter_internvl.sentencepiece import read_sentencepiece
from vlmlens_adapter_internvl.tokenizer import load_tokenizer

DATA = Path(__file__).parent / "data"
Checkpoint = Path


@pytest.fixture
def checkpoint(tmp_path: Path) -> Checkpoint:
    """A checkpoint to change."""
    folder = tmp_path / "internlm2"
    shutil.copytree(OriginalInternLM2Checks().checkpoint, folder)
    return folder


def load(folder: Path, **settings: Any) -> InternVLAdapter:
    return InternVLAdapter.load(LoadRequest(model=str(folder), device="cpu", **settings))


def changed(folder: Path, file: str = "config.json", **values: Any) -> None:
    path = folder / file
    said = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    path.write_text(json.dumps(said | values), encoding="utf-8")


def same_weights(one: InternVLAdapter, other: InternVLAdapter) -> bool:
    pairs = zip(one.module.state_dict().items(), other.module.state_dict().items(), strict=True)
    return all(a == b and torch.equal(x, y) for (a, x), (b, y) in pairs)


# ---------------------------------------------------------------------- config


@pytest.mark.parametrize("trust", [False, True])
def test_the_checkpoints_own_code_is_never_run(checkpoint: Path, trust: bool) -> None:
    for name in ("configuration_internvl_chat", "modeling_internvl_chat"):
        (checkpoint / f"{name}.py").write_text("raise SystemExit('ran')", encoding="utf-8")
    vlm = load(checkpoint, trust_remote_code=trust)
    assert type(vlm.module).__name__ == "InternVLForConditionalGeneration"


HUB = {
    "_name_or_path": "x", "_attn_implementation": "flash_attention_2", "bad_words_ids": None,
    "do_sample": False, "id2label": {"0": "LABEL_0"}, "is_decoder": False, "max_length": 20,
    "output_attentions": False, "return_dict": True, "temperature": 1.0, "top_k": 50,
    "torch_dtype": "bfloat16", "transformers_version": "4.37.2", "use_bfloat16": True,
    "use_cache": True, "bos_token_id": 1, "eos_token_id": 2, "model_type": "internlm2",
}  # fmt: skip
"""What the hub's configs carry beside the architecture."""


def test_a_config_of_the_hubs_kind_at_full_size(tmp_path: Path) -> None:
    """InternVL2_5-8B's dimensions: sites and widths from the config alone."""
    vision = {
        "hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 24,
        "num_attention_heads": 16, "image_size": 448, "patch_size": 14, "hidden_act": "gelu",
        "layer_norm_eps": 1e-6, "norm_type": "layer_norm", "qkv_bias": True,
        "qk_normalization": False, "drop_path_rate": 0.1, "use_flash_attn": True,
    }  # fmt: skip
    text = HUB | {
        "architectures": ["InternLM2ForCausalLM"], "auto_map": {"AutoModel": "x.Y"}, "bias": False,
        "vocab_size": 92553, "hidden_size": 4096, "intermediate_size": 14336,
        "num_hidden_layers": 32, "num_attention_heads": 32, "num_key_value_heads": 8,
        "rms_norm_eps": 1e-5, "rope_theta": 1000000, "max_position_embeddings": 32768,
        "rope_scaling": {"type": "dynamic", "factor": 2.0}, "attn_implementation": "eager",
    }  # fmt: skip
    said = json.loads((DATA / "internlm2" / "config.json").read_text(encoding="utf-8"))
    said |= {"vision_config": vision, "llm_config": text, "force_image_size": 448,
             "torch_dtype": "bfloat16", "max_dynamic_patch": 12}  # fmt: skip
    (tmp_path / "config.json").write_text(json.dumps(said), encoding="utf-8")
    vlm = InternVLAdapter.skeleton(LoadRequest(model=str(tmp_path), device="cpu"))
    assert vlm.dtype == "bfloat16"
    assert len(vlm.sites.resolve("vision.block.*")) == 24
    assert len(vlm.sites.resolve("llm.block.*")) == 32
    rope = vlm.config.text_config.rope_parameters
    assert (rope["rope_theta"], rope["rope_type"], rope["factor"]) == (1000000, "dynamic", 2.0)
    widths = vlm.widths()
    for legacy, width in (
        ("vision_model.encoder.layers.23", 1024),
        ("mlp1.3", 4096),
        ("language_model.model.layers.31.feed_forward.w1", 14336),
        ("language_model.output", 92553),
    ):
        (site,) = vlm.sites.resolve(legacy)
        assert widths[site.path] == width


@pytest.mark.parametrize(
    ("values", "named"),
    [
        ({"template": "Hermes-2"}, "template"),
        ({"ps_version": "v1"}, "ps_version"),
        ({"use_thumbnail": False}, "use_thumbnail"),
        ({"pad2square": True}, "pad2square"),
    ],
)
def test_another_architecture_is_refused(
    checkpoint: Path, values: dict[str, Any], named: str
) -> None:
    changed(checkpoint, **values)
    with pytest.raises(CheckpointError, match=named):
        load(checkpoint)


def test_another_language_model_is_refused(checkpoint: Path) -> None:
    said = json.loads((checkpoint / "config.json").read_text(encoding="utf-8"))
    changed(checkpoint, llm_config=said["llm_config"] | {"architectures": ["Phi3ForCausalLM"]})
    with pytest.raises(CheckpointError, match="Phi3ForCausalLM"):
        load(checkpoint)


def test_a_missing_folder_says_so(tmp_path: Path) -> None:
    with pytest.raises(CheckpointNotFound, match="does not exist"):
        load(tmp_path / "nothing")


# ---------------------------------------------------------------------- weights


def split(folder: Path) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    """The weights in two halves; the one file is taken away."""
    weights = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    names = sorted(weights)
    half = len(names) // 2
    return {n: weights[n] for n in names[:half]}, {n: weights[n] for n in names[half:]}


def test_shards_of_both_kinds_hold_the_same_weights(checkpoint: Path) -> None:
    whole = load(checkpoint)
    halves = split(checkpoint)
    for kind, write in (("model.safetensors", save_file), ("pytorch_model.bin", torch.save)):
        names = [f"{Path(kind).stem}-{i}{Path(kind).suffix}" for i in (1, 2)]
        for name, half in zip(names, halves, strict=True):
            write(half, checkpoint / name)
        listed = {k: n for n, half in zip(names, halves, strict=True) for k in half}
        index = checkpoint / f"{kind}.index.json"
        index.write_text(json.dumps({"weight_map": listed}), encoding="utf-8")
        assert same_weights(whole, load(checkpoint)), kind
        index.unlink()


def test_missing_weights_left_over_ones_and_wrong_shapes_are_listed(checkpoint: Path) -> None:
    weights = load_file(checkpoint / "model.safetensors")
    del weights["vision_model.encoder.layers.1.ls1"]
    weights["language_model.model.layers.7.ffn_norm.weight"] = torch.ones(32)
    weights["mlp1.3.bias"] = torch.ones(31)
    save_file(weights, checkpoint / "model.safetensors")
    with pytest.raises(CheckpointError) as caught:
        load(checkpoint)
    text = str(caught.value)
    assert "missing: model.vision_tower.encoder.layer.1.lambda_1" in text
    assert "left over: model.language_model.layers.7.post_attention_layernorm.weight" in text
    assert "model.multi_modal_projector.linear_2.bias (31,) instead of (32,)" in text


def test_no_weights_at_all(checkpoint: Path) -> None:
    (checkpoint / "model.safetensors").unlink()
    with pytest.raises(CheckpointError, match="no weights"):
        load(checkpoint)


def test_the_parts_of_the_larger_tower_fit(checkpoint: Path) -> None:
    """InternViT-6B (26B and larger): RMS norms, normed queries and keys, no bias in `qkv`."""
    said = json.loads((checkpoint / "config.json").read_text(encoding="utf-8"))
    larger = {"norm_type": "rms_norm", "qk_normalization": True, "qkv_bias": False}
    changed(checkpoint, vision_config=said["vision_config"] | larger)
    weights = load_file(checkpoint / "model.safetensors")
    gone = ("attn.qkv.bias", "norm1.bias", "norm2.bias")
    weights = {name: tensor for name, tensor in weights.items() if not name.endswith(gone)}
    for block in range(3):
        for name in ("q_norm", "k_norm"):
            weights[f"vision_model.encoder.layers.{block}.attn.{name}.weight"] = torch.rand(32)
    save_file(weights, checkpoint / "model.safetensors")
    (site,) = load(checkpoint).sites.resolve("vision_model.encoder.layers.2.attn.q_norm")
    assert site.name == "vision.block.2.attention.q_norm"


class Planted:
    """Would create a file if it were unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return Path.touch, (self.path,)


def test_a_pickle_is_never_run(checkpoint: Path, tmp_path: Path) -> None:
    (checkpoint / "model.safetensors").unlink()
    torch.save({"mlp1.0.weight": Planted(tmp_path / "ran")}, checkpoint / "pytorch_model.bin")
    with pytest.raises(CheckpointError, match="more than tensors"):
        load(checkpoint)
    assert not (tmp_path / "ran").exists()


# ---------------------------------------------------------------------- prompts


def question(vlm: InternVLAdapter, prompt: str, images: int) -> str:
    """What stands between the user's turn and its end, image tokens told as one."""
    pictures = tuple(picture(20, 20, seed=i) for i in range(images))
    ids = vlm.encode([Sample("q", prompt, pictures)]).inputs["input_ids"][0]
    text = vlm.decode(ids.tolist()).partition("<|im_start|>user\n")[2].partition("<|im_end|>")[0]
    return text.replace("<img>" + "<IMG_CONTEXT>" * 4 + "</img>", "#")


def test_where_images_stand_in_the_prompt() -> None:
    vlm = OriginalQwen2Checks().vlm
    assert isinstance(vlm, InternVLAdapter)
    assert question(vlm, "What?", 1) == "#\nWhat?"
    assert question(vlm, "Look: <image>!", 1) == "Look: #!"
    assert question(vlm, "Which?", 2) == "Image-1: #\nImage-2: #\nWhich?"
    assert question(vlm, "<image> or <image>?", 2) == "# or #?"
    assert question(vlm, "Hello", 0) == "Hello"
    with pytest.raises(DataError, match="1 <image>"):
        question(vlm, "<image>?", 2)


def test_fixed_resolution_gives_one_tile(checkpoint: Path) -> None:
    changed(checkpoint, dynamic_image_size=False)
    batch = load(checkpoint).encode([Sample("s", "?", (picture(99, 32),))])
    assert batch.inputs["pixel_values"].shape == (1, 3, 32, 32)


# ---------------------------------------------------------------------- tokenizers

PIECES = json.loads((DATA / "sentencepiece" / "expected.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize("name", sorted(PIECES))
def test_sentencepiece_models_give_its_ids(name: str) -> None:
    """`expected.json` was written by sentencepiece 0.2.3 with these models."""
    backend = read_sentencepiece(DATA / "sentencepiece" / f"{name}.model", {})
    for text, ids, decoded in PIECES[name]:
        assert backend.encode(text, add_special_tokens=False).ids == ids, text
        assert backend.decode(ids, skip_special_tokens=False) == decoded


def test_the_variants_of_sentencepiece_differ() -> None:
    """Control: the same texts have other ids where spaces are put or taken away."""
    ids = {name: [row[1] for row in PIECES[name][:5]] for name in PIECES}
    assert ids["internlm"] != ids["trimmed"]
    assert ids["internlm"] != ids["prefixed"]


INTERNLM_ADDED = {
    "3": "<|im_end|>", "4": "<|im_start|>", "520": "<img>", "521": "</img>", "522": "<IMG_CONTEXT>",
}  # fmt: skip


def internlm_folder(folder: Path, **settings: Any) -> Path:
    shutil.copy(DATA / "sentencepiece" / "internlm.model", folder / "tokenizer.model")
    added = {
        number: {"content": text, "special": True, "normalized": False, "lstrip": False,
                 "rstrip": False, "single_word": False}
        for number, text in INTERNLM_ADDED.items()
    }  # fmt: skip
    said = {"tokenizer_class": "InternLM2Tokenizer", "bos_token": "<s>", "eos_token": "</s>",
            "pad_token": "</s>", "unk_token": "<unk>", "added_tokens_decoder": added,
            "auto_map": {"AutoTokenizer": ["tokenization_internlm2.InternLM2Tokenizer", None]},
            **settings}  # fmt: skip
    changed(folder, "tokenizer_config.json", **said)
    return folder


def test_internlm2s_tokenizer(tmp_path: Path) -> None:
    """Added tokens keep the ids that the checkpoint gives them; `<s>` comes first, once."""
    tokenizer = load_tokenizer(str(internlm_folder(tmp_path)), {})
    plain = {text: ids for text, ids, _ in PIECES["internlm"]}
    text = "<|im_start|>what is shown?<|im_end|><img><IMG_CONTEXT></img>"
    assert tokenizer(text)["input_ids"] == [1, 4, *plain["what is shown?"], 3, 520, 522, 521]
    assert tokenizer.decode([4, *plain["what is shown?"], 3], skip_special_tokens=True) == (
        "what is shown?"
    )
    assert tokenizer.pad_token == "</s>"


def test_internlm2_without_a_beginning(tmp_path: Path) -> None:
    tokenizer = load_tokenizer(str(internlm_folder(tmp_path, add_bos_token=False)), {})
    assert tokenizer("<|im_start|>")["input_ids"] == [4]


def test_an_id_that_does_not_fit_is_refused(tmp_path: Path) -> None:
    internlm_folder(tmp_path)
    changed(tmp_path, "added_tokens.json", **{"<box>": 777})
    with pytest.raises(CheckpointError, match="<box>"):
        load_tokenizer(str(tmp_path), {})


def test_qwens_two_files_are_its_tokenizer(tmp_path: Path) -> None:
    said = json.loads((DATA / "qwen2" / "tokenizer.json").read_text(encoding="utf-8"))
    model, added = said["model"], {t["content"]: t["id"] for t in said["added_tokens"]}
    (tmp_path / "vocab.json").write_text(json.dumps(model["vocab"]), encoding="utf-8")
    lines = ["#version: 0.2", *(" ".join(pair) for pair in model["merges"])]
    (tmp_path / "merges.txt").write_text("\n".join(lines), encoding="utf-8")
    changed(tmp_path, "added_tokens.json", **added)
    changed(tmp_path, "tokenizer_config.json", tokenizer_class="Qwen2Tokenizer", unk_token=None)
    prompt = json.loads((DATA / "qwen2" / "prompt.json").read_text(encoding="utf-8"))
    tokenizer = load_tokenizer(str(tmp_path), {})
    assert tokenizer(prompt["final_prompt_string"])["input_ids"] == prompt["input_ids"]
    (tmp_path / "merges.txt").unlink()
    with pytest.raises(CheckpointError, match=r"merges\.txt"):
        load_tokenizer(str(tmp_path), {})


def test_no_tokenizer_at_all(checkpoint: Path) -> None:
    for file in checkpoint.glob("tokenizer*"):
        file.unlink()
    with pytest.raises(CheckpointError, match="no tokenizer"):
        load(checkpoint)
