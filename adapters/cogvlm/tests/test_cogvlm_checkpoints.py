"""CogVLM's checkpoints: config, weights and tokenizers, whole and broken, and no code of theirs."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import sentencepiece
import torch
from safetensors.torch import load_file, save_file

from vlmlens.abc.adapter import LoadRequest
from vlmlens.errors import CheckpointError, CheckpointNotFound
from vlmlens.samples import Sample
from vlmlens.testing.tiny import byte_tokenizer, picture
from vlmlens_adapter_cogvlm import tokenizer as tokenizers_of
from vlmlens_adapter_cogvlm.adapter import CogVLMAdapter, CogVLMOptions

DATA = Path(__file__).parent / "data" / "cogvlm"


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    """A checkpoint to change."""
    folder = tmp_path / "cogvlm"
    folder.mkdir()
    for name in ("config.json", "model.safetensors", "tokenizer.json"):
        shutil.copyfile(DATA / name, folder / name)
    return folder


def load(folder: Path, **settings: Any) -> CogVLMAdapter:
    return CogVLMAdapter.load(LoadRequest(model=str(folder), device="cpu", **settings))


def changed(folder: Path, **values: Any) -> None:
    path = folder / "config.json"
    said = json.loads(path.read_text(encoding="utf-8")) | values
    kept = {name: value for name, value in said.items() if value is not ...}
    path.write_text(json.dumps(kept), encoding="utf-8")


def vision_config(**values: Any) -> dict[str, Any]:
    said = json.loads((DATA / "config.json").read_text(encoding="utf-8"))["vision_config"] | values
    return {name: value for name, value in said.items() if value is not ...}


def logits(vlm: CogVLMAdapter) -> torch.Tensor:
    batch = vlm.encode([Sample("s", "What?", (picture(64, 48),))])
    last = vlm.forward(batch, logits="last").logits
    assert last is not None
    return last


# ---------------------------------------------------------------------- config


@pytest.mark.parametrize("trust", [False, True])
def test_the_checkpoints_own_code_is_never_run(checkpoint: Path, trust: bool) -> None:
    poison = f"open({str(checkpoint / 'ran')!r}, 'w').close()\n"
    names = ("configuration_cogvlm", "modeling_cogvlm", "visual", "util", "tokenization_cogvlm")
    for name in names:
        (checkpoint / f"{name}.py").write_text(poison, encoding="utf-8")
    auto_map = {
        "AutoConfig": "configuration_cogvlm.CogVLMConfig",
        "AutoModelForCausalLM": "modeling_cogvlm.CogVLMForCausalLM",
        "AutoTokenizer": ["tokenization_cogvlm.CogVLMTokenizer", None],
    }
    changed(checkpoint, auto_map=auto_map, model_type="cogvlm")
    said = json.dumps({"auto_map": auto_map, "tokenizer_class": "CogVLMTokenizer"})
    (checkpoint / "tokenizer_config.json").write_text(said, encoding="utf-8")
    vlm = load(checkpoint, trust_remote_code=trust)
    vlm.generate(vlm.encode([Sample("s", "What?", (picture(64, 48),))]), max_new_tokens=2)
    CogVLMAdapter.skeleton(LoadRequest(model=str(checkpoint), trust_remote_code=trust))
    assert type(vlm.module).__module__ == "vlmlens_adapter_cogvlm.model"
    assert not (checkpoint / "ran").exists()


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ({"num_multi_query_heads": 8}, "is a CogVLM2"),
        ({"architectures": ["CogAgentForCausalLM"]}, "is a CogAgent"),
        ({"cross_hidden_size": 1024}, "is a CogAgent"),
        ({"architectures": ["LlamaForCausalLM"]}, "LlamaForCausalLM"),
        ({"architectures": ...}, "not CogVLMForCausalLM"),
        ({"vision_config": ...}, "no vision_config"),
        ({"vision_config": vision_config(num_heads=..., patch_size=...)}, "num_heads, patch_size"),
        ({"vision_config": vision_config(image_size=70)}, "need 26"),
        ({"vision_config": vision_config(num_heads=5)}, "vision tower of width 32, which 5 heads"),
        ({"num_attention_heads": 5}, "language model of width 48, which 5 heads"),
        ({"template_version": "poem"}, "'poem', not one of base, vqa, chat"),
    ],
)
def test_other_configs_are_refused(checkpoint: Path, values: dict[str, Any], told: str) -> None:
    changed(checkpoint, **values)
    for make in (CogVLMAdapter.load, CogVLMAdapter.skeleton):
        with pytest.raises(CheckpointError, match=told) as caught:
            make(LoadRequest(model=str(checkpoint), device="cpu"))
        assert caught.value.subject == str(checkpoint)


def test_defaults_are_upstreams(checkpoint: Path) -> None:
    gone = ("rms_norm_eps", "hidden_act", "template_version", "pad_token_id", "bos_token_id")
    changed(checkpoint, rope_theta=500000.0, **dict.fromkeys(gone, ...))
    config = CogVLMAdapter.skeleton(LoadRequest(model=str(checkpoint), device="cpu")).config
    assert (config.rms_norm_eps, config.hidden_act) == (1e-6, "silu")
    assert (config.template_version, config.pad_token_id, config.bos_token_id) == ("chat", 0, 1)
    assert config.rope_parameters["rope_theta"] == 10000.0


def test_a_missing_folder_says_so(tmp_path: Path) -> None:
    with pytest.raises(CheckpointNotFound, match="does not exist"):
        load(tmp_path / "nothing")


# ---------------------------------------------------------------------- weights


@pytest.mark.parametrize("kind", ["model.safetensors", "pytorch_model.bin"])
@pytest.mark.parametrize("parts", [1, 2])
def test_files_of_both_kinds_hold_the_same_weights(checkpoint: Path, kind: str, parts: int) -> None:
    whole = load(checkpoint)
    weights = load_file(checkpoint / "model.safetensors")
    (checkpoint / "model.safetensors").unlink()
    write = save_file if kind.endswith("safetensors") else torch.save
    names = sorted(weights)
    shards = [{name: weights[name] for name in names[i::parts]} for i in range(parts)]
    if parts == 1:
        write(weights, checkpoint / kind)
    else:
        files = [f"{Path(kind).stem}-{i + 1}{Path(kind).suffix}" for i in range(parts)]
        for file, shard in zip(files, shards, strict=True):
            write(shard, checkpoint / file)
        listed = {n: file for file, shard in zip(files, shards, strict=True) for n in shard}
        index = json.dumps({"weight_map": listed})
        (checkpoint / f"{kind}.index.json").write_text(index, encoding="utf-8")
    again = load(checkpoint)
    for name, tensor in whole.module.state_dict().items():
        assert torch.equal(again.module.state_dict()[name], tensor), name
    assert torch.equal(logits(whole), logits(again))


def test_every_weight_is_the_files(checkpoint: Path) -> None:
    """None is drawn at random, none translated; only the stored angles are not taken."""
    stored = load_file(checkpoint / "model.safetensors")
    state = load(checkpoint).module.state_dict()
    assert {name for name in stored if not name.endswith("rotary_emb.inv_freq")} == set(state)
    assert all(torch.equal(stored[name], tensor) for name, tensor in state.items())


def test_stored_angles_are_not_needed(checkpoint: Path) -> None:
    before = logits(load(checkpoint))
    weights = load_file(checkpoint / "model.safetensors")
    kept = {name: value for name, value in weights.items() if not name.endswith("inv_freq")}
    assert len(kept) == len(weights) - 2
    save_file(kept, checkpoint / "model.safetensors")
    assert torch.equal(logits(load(checkpoint)), before)


def test_missing_weights_left_over_ones_and_wrong_shapes_are_listed(checkpoint: Path) -> None:
    weights = load_file(checkpoint / "model.safetensors")
    del weights["model.vision.boi"]
    weights["model.vision.conv.weight"] = torch.ones(2)
    weights["lm_head.weight"] = torch.ones(384, 47)
    save_file(weights, checkpoint / "model.safetensors")
    with pytest.raises(CheckpointError) as caught:
        load(checkpoint)
    text = str(caught.value)
    assert "missing: model.vision.boi" in text
    assert "left over: model.vision.conv.weight" in text
    assert "lm_head.weight (384, 47) instead of (384, 48)" in text


def test_no_weights_at_all(checkpoint: Path) -> None:
    (checkpoint / "model.safetensors").unlink()
    with pytest.raises(CheckpointError, match="no weights"):
        load(checkpoint)


class Planted:
    """Would create a file if it were unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return Path.touch, (self.path,)


def test_a_pickle_is_never_run(checkpoint: Path) -> None:
    (checkpoint / "model.safetensors").unlink()
    torch.save({"lm_head.weight": Planted(checkpoint / "ran")}, checkpoint / "pytorch_model.bin")
    with pytest.raises(CheckpointError, match="more than tensors"):
        load(checkpoint)
    assert not (checkpoint / "ran").exists()


def test_the_checkpoints_dtype_is_the_default(checkpoint: Path) -> None:
    weights = load_file(checkpoint / "model.safetensors")
    half = {name: tensor.bfloat16() for name, tensor in weights.items()}
    save_file(half, checkpoint / "model.safetensors")
    changed(checkpoint, torch_dtype="bfloat16")
    vlm = load(checkpoint)
    assert vlm.dtype == "bfloat16"
    found, exact = logits(vlm), logits(load(checkpoint, dtype="float32"))
    assert found.dtype == torch.float32
    assert 0 < float((found - exact).abs().mean()) < 0.05


# ---------------------------------------------------------------------- tokenizers

TEXTS = ("Question: what is  shown   here? Answer:", "naïve café", " a", "x\ny")


@pytest.fixture(scope="module")
def pieces(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A `tokenizer.model` as Vicuna's is made: BPE, bytes for the unknown, a dummy prefix."""
    folder = tmp_path_factory.mktemp("pieces")
    words = [
        "Question: what is shown here? Answer: a red circle",
        "the colour of the largest thing is blue, green or red. Short answer: yes",
    ]
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(words * 20), model_prefix=str(folder / "tokenizer"),
        model_type="bpe", vocab_size=340, byte_fallback=True, character_coverage=1.0,
        normalization_rule_name="identity", remove_extra_whitespaces=False,
        unk_id=0, bos_id=1, eos_id=2, pad_id=-1, minloglevel=2,
    )  # fmt: skip
    return folder


def ids(vlm: CogVLMAdapter, text: str) -> list[int]:
    found: list[int] = vlm.encode([Sample("s", text)]).inputs["input_ids"][0].tolist()
    return found


def test_pieces_are_cut_as_sentencepiece_does(checkpoint: Path, pieces: Path) -> None:
    """They come before a `tokenizer.json` beside them: upstream's tokenizer is the slow one."""
    shutil.copyfile(pieces / "tokenizer.model", checkpoint / "tokenizer.model")
    vlm = load(checkpoint, options=CogVLMOptions(template="base"))
    own = sentencepiece.SentencePieceProcessor(str(pieces / "tokenizer.model"))
    for text in TEXTS:
        assert ids(vlm, text) == [1, *own.encode(text)], text
        assert vlm.decode(ids(vlm, text)[1:]).strip() == text.strip()
    assert vlm.special_ids >= {0, 1, 2}


@pytest.mark.parametrize("kind", ["tokenizer.json", "tokenizer.model"])
def test_answers_go_on_after_the_prompt(checkpoint: Path, pieces: Path, kind: str) -> None:
    shutil.copyfile(pieces / "tokenizer.model", checkpoint / "tokenizer.model")
    (checkpoint / ({"tokenizer.json", "tokenizer.model"} - {kind}).pop()).unlink()
    vlm = load(checkpoint)
    sample = Sample("s", "what is shown here?", (picture(64, 48),))
    batch = vlm.encode([sample], answers=["blue"])
    text = vlm.processor.tokenizer(
        "Question: what is shown here? Answer: blue", add_special_tokens=False
    )["input_ids"]
    assert batch.inputs["input_ids"][0, 1 + vlm.processor.slots :].tolist() == text
    written = batch.layout(0).token_ids[-len(vlm.answer_ids("blue")) :]  # type: ignore[index]
    assert written.tolist() == vlm.answer_ids("blue")


def test_a_tokenizer_can_be_named(checkpoint: Path, pieces: Path) -> None:
    """It comes before the checkpoint's own, and tells columns of one from those of the other."""
    plain, other = load(checkpoint), load(checkpoint, options=CogVLMOptions(tokenizer=str(pieces)))
    assert ids(plain, "what is shown") != ids(other, "what is shown")
    said = plain.describe(), other.describe()
    assert said[0]["tokenizer"] != said[1]["tokenizer"]
    assert said[0]["digest"] == said[1]["digest"]


def test_vicunas_tokenizer_is_the_default(
    checkpoint: Path, pieces: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (checkpoint / "tokenizer.json").unlink()
    assert tokenizers_of.DEFAULT == "lmsys/vicuna-7b-v1.5"
    monkeypatch.setattr(tokenizers_of, "DEFAULT", str(pieces))
    other = load(checkpoint, options=CogVLMOptions(tokenizer=str(pieces)))
    assert ids(load(checkpoint), "what is shown") == ids(other, "what is shown")
    empty = checkpoint / "empty"
    empty.mkdir()
    monkeypatch.setattr(tokenizers_of, "DEFAULT", str(empty))
    with pytest.raises(CheckpointError, match="no tokenizer") as caught:
        ids(load(checkpoint), "what is shown")
    assert "options.adapter.tokenizer" in caught.value.hint


def test_tokenizers_that_do_not_fit_are_refused(checkpoint: Path, tmp_path: Path) -> None:
    large = byte_tokenizer(["<unk>", "<s>", "</s>", *(f"<{i}>" for i in range(200))])
    large.backend_tokenizer.save(str(checkpoint / "tokenizer.json"))
    with pytest.raises(CheckpointError, match="459 tokens"):
        ids(load(checkpoint), "x")
    (checkpoint / "tokenizer.json").write_text("{}", encoding="utf-8")
    with pytest.raises(CheckpointError, match="is no tokenizer"):
        ids(load(checkpoint), "x")
    (checkpoint / "tokenizer.model").write_bytes(b"nothing")
    with pytest.raises(CheckpointError, match="no SentencePiece model"):
        ids(load(checkpoint), "x")
    with pytest.raises(CheckpointError, match="has no tokenizer"):
        ids(load(checkpoint, options=CogVLMOptions(tokenizer=str(tmp_path))), "x")
