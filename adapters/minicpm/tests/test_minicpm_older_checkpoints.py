"""MiniCPM-V 2, V 2.6 and o 2.6: configs, weights and tokenizers, and no code of a checkpoint's."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer

from vlmlens.abc.adapter import LoadRequest
from vlmlens.errors import CheckpointError, CheckpointNotFound
from vlmlens.samples import Sample
from vlmlens.testing.tiny import picture
from vlmlens_adapter_minicpm.adapter import MiniCpmAdapter
from vlmlens_adapter_minicpm.older.adapter import MiniCpm2Adapter, MiniCpm26Adapter
from vlmlens_adapter_minicpm.older.checks import MiniCpm2Checks, MiniCpm26Checks, MiniCpmO26Checks

OLDER = {"v2": MiniCpm2Checks, "v26": MiniCpm26Checks, "o26": MiniCpmO26Checks}
ASKED = Sample("s", "What?", (picture(64, 48),))


@pytest.fixture(params=OLDER)
def checkpoint(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A checkpoint of each generation, to change."""
    return copied(request.param, tmp_path)


def copied(generation: str, tmp_path: Path) -> Path:
    return Path(shutil.copytree(OLDER[generation]().checkpoint, tmp_path / generation))


def load(folder: Path, **settings: Any) -> Any:
    return MiniCpmAdapter.load(LoadRequest(model=str(folder), device="cpu", **settings))


def changed(folder: Path, file: str = "config.json", **values: Any) -> None:
    path = folder / file
    said = (json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}) | values
    kept = {name: value for name, value in said.items() if value is not ...}
    path.write_text(json.dumps(kept), encoding="utf-8")


def logits(vlm: Any) -> torch.Tensor:
    found: torch.Tensor = vlm.forward(vlm.encode([ASKED]), logits="last").logits
    return found


def refused(folder: Path, told: str) -> CheckpointError:
    """Loading and listing sites fail alike, and early."""
    for make in (MiniCpmAdapter.load, MiniCpmAdapter.skeleton):
        with pytest.raises(CheckpointError, match=told) as caught:
            make(LoadRequest(model=str(folder), device="cpu"))
        assert caught.value.subject == str(folder)
    return caught.value


# ---------------------------------------------------------------------- configs


@pytest.mark.parametrize("trust", [False, True])
def test_the_checkpoints_own_code_is_never_run(checkpoint: Path, trust: bool) -> None:
    poison = f"open({str(checkpoint / 'ran')!r}, 'w').close()\n"
    names = {
        "AutoConfig": "configuration_minicpm.MiniCPMVConfig",
        "AutoModel": "modeling_minicpmv.MiniCPMV",
        "AutoModelForCausalLM": "modeling_minicpmv.MiniCPMV",
        "AutoProcessor": "processing_minicpmv.MiniCPMVProcessor",
        "AutoImageProcessor": "image_processing_minicpmv.MiniCPMVImageProcessor",
        "AutoTokenizer": ["tokenization_minicpmv_fast.MiniCPMVTokenizerFast", None],
    }
    for name in ("resampler.X", *(n if isinstance(n, str) else str(n[0]) for n in names.values())):
        (checkpoint / f"{name.partition('.')[0]}.py").write_text(poison, encoding="utf-8")
    for file in ("config.json", "tokenizer_config.json", "preprocessor_config.json"):
        changed(checkpoint, file, auto_map=names)
    vlm = load(checkpoint, trust_remote_code=trust)
    vlm.generate(vlm.encode([ASKED]), max_new_tokens=2)
    vlm.describe()
    MiniCpmAdapter.skeleton(LoadRequest(model=str(checkpoint), trust_remote_code=trust))
    assert type(vlm.module).__module__ == "vlmlens_adapter_minicpm.older.model"
    assert not (checkpoint / "ran").exists()


@pytest.mark.parametrize(
    ("said", "told"),
    [
        ({"model_type": "minicpmv", "version": 4.5, "vision_config": {}}, "version 4.5"),
        ({"model_type": "minicpmv", "version": "2.5", "vision_config": {}}, "version 2.5"),
        ({"model_type": "minicpmv", "vision_encoder": "x"}, "no version"),
        ({"model_type": "minicpmo", "version": 4.5, "vision_config": {}}, "'minicpmo'.*4.5"),
        ({"model_type": "minicpmv", "version": 2.6}, "version 2.6"),
    ],
)
@pytest.mark.parametrize("trust", [False, True])
def test_other_generations_are_refused(
    tmp_path: Path, said: dict[str, Any], told: str, trust: bool
) -> None:
    changed(tmp_path, auto_map={"AutoConfig": "poison.Config"}, **said)
    (tmp_path / "poison.py").write_text("raise SystemExit('ran')", encoding="utf-8")
    with pytest.raises(CheckpointError, match=told) as caught:
        load(tmp_path, trust_remote_code=trust)
    assert "MiniCPM-V 2.6" in caught.value.hint


def test_a_class_for_another_generation_refuses(tmp_path: Path) -> None:
    request = LoadRequest(model=str(copied("v26", tmp_path)), device="cpu")
    with pytest.raises(CheckpointError, match="not what MiniCpm2Adapter reads"):
        MiniCpm2Adapter.load(request)
    assert type(MiniCpm26Adapter.load(request)) is MiniCpm26Adapter


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ({"tie_word_embeddings": True}, "tie_word_embeddings = True"),
        ({"rope_scaling": {"type": "dynamic", "factor": 2.0}}, "rope_scaling"),
        ({"slice_mode": False}, "slice_mode = False"),
        ({"query_num": ..., "rms_norm_eps": ...}, "lacks rms_norm_eps, query_num"),
        ({"hidden_size": 320}, "width of 320"),
        ({"num_attention_heads": 3}, "which 3 heads cannot share"),
        ({"patch_size": 7}, "patches of 7 for a tower of 4"),
    ],
)
def test_configs_that_are_not_known_are_refused(
    checkpoint: Path, values: dict[str, Any], told: str
) -> None:
    changed(checkpoint, **values)
    refused(checkpoint, told)


def test_another_timm_tower_is_refused(tmp_path: Path) -> None:
    folder = copied("v2", tmp_path)
    changed(folder, vision_encoder="eva02_enormous", vision_config=...)
    refused(folder, "eva02_enormous")


def test_the_dropped_layer_is_counted(checkpoint: Path) -> None:
    """The config says whether the last of the tower's layers is in the files; else it is not."""
    assert len(load(checkpoint).sites.resolve("vision.block.*")) == 2
    changed(checkpoint, drop_vision_last_layer=...)
    assert len(load(checkpoint).sites.resolve("vision.block.*")) == 2
    changed(checkpoint, drop_vision_last_layer=False)
    with pytest.raises(CheckpointError, match=r"missing: vpm\.(blocks|encoder\.layers)\.2\."):
        load(checkpoint)


def test_a_missing_folder_says_so(tmp_path: Path) -> None:
    with pytest.raises(CheckpointNotFound, match="does not exist"):
        load(tmp_path / "nothing")
    with pytest.raises(CheckpointNotFound):
        load(tmp_path)


# ---------------------------------------------------------------------- weights


@pytest.mark.parametrize("kind", ["model.safetensors", "pytorch_model.bin"])
@pytest.mark.parametrize("parts", [1, 2])
def test_files_of_both_kinds_hold_the_same_weights(checkpoint: Path, kind: str, parts: int) -> None:
    before = logits(load(checkpoint))
    weights = load_file(checkpoint / "model.safetensors")
    (checkpoint / "model.safetensors").unlink()
    write = save_file if kind.endswith("safetensors") else torch.save
    names = sorted(weights)
    if parts == 1:
        write(weights, checkpoint / kind)
    else:
        files = [f"{Path(kind).stem}-{i}{Path(kind).suffix}" for i in range(parts)]
        for i, file in enumerate(files):
            write({name: weights[name] for name in names[i::parts]}, checkpoint / file)
        listed = {name: files[i % parts] for i, name in enumerate(names)}
        index = json.dumps({"metadata": {}, "weight_map": listed})
        (checkpoint / f"{kind}.index.json").write_text(index, encoding="utf-8")
    assert torch.equal(logits(load(checkpoint)), before)


def test_every_weight_is_the_files(checkpoint: Path) -> None:
    """None is drawn at random; only what hears and speaks is left out."""
    stored = load_file(checkpoint / "model.safetensors")
    state = load(checkpoint).module.state_dict()
    heard = {name for name in stored if name.startswith(("apm.", "audio_projection", "tts."))}
    assert set(stored) - heard == set(state)
    assert all(torch.equal(stored[name], tensor) for name, tensor in state.items())
    assert len(heard) == (4 if checkpoint.name == "o26" else 0)


def test_missing_weights_left_over_ones_and_wrong_shapes_are_listed(checkpoint: Path) -> None:
    weights = load_file(checkpoint / "model.safetensors")
    del weights["resampler.proj"]
    weights["resampler.conv.weight"] = torch.ones(2)
    weights["llm.lm_head.weight"] = weights["llm.lm_head.weight"][:, 1:].contiguous()
    save_file(weights, checkpoint / "model.safetensors")
    with pytest.raises(CheckpointError) as caught:
        load(checkpoint)
    text = str(caught.value)
    assert "missing: resampler.proj" in text
    assert "left over: resampler.conv.weight" in text
    assert "llm.lm_head.weight" in text
    assert "255) instead of" in text


@pytest.mark.parametrize("generation", ["v2", "v26"])
def test_audio_is_left_over_elsewhere(generation: str, tmp_path: Path) -> None:
    folder = copied(generation, tmp_path)
    weights = load_file(folder / "model.safetensors")
    weights["apm.conv1.weight"] = torch.ones(2)
    save_file(weights, folder / "model.safetensors")
    with pytest.raises(CheckpointError, match=r"left over: apm\.conv1\.weight"):
        load(folder)


def test_positions_of_queries_belong_to_the_first_generation(tmp_path: Path) -> None:
    folder = copied("v26", tmp_path)
    weights = load_file(folder / "model.safetensors")
    weights["resampler.pos_embed"] = torch.ones_like(weights["resampler.query"])
    save_file(weights, folder / "model.safetensors")
    with pytest.raises(CheckpointError, match=r"left over: resampler\.pos_embed"):
        load(folder)


class Planted:
    """Would create a file if it were unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return Path.touch, (self.path,)


def test_a_pickle_is_never_run(checkpoint: Path) -> None:
    (checkpoint / "model.safetensors").unlink()
    with pytest.raises(CheckpointError, match="no weights"):
        load(checkpoint)
    torch.save({"resampler.proj": Planted(checkpoint / "ran")}, checkpoint / "pytorch_model.bin")
    with pytest.raises(CheckpointError, match="more than tensors"):
        load(checkpoint)
    assert not (checkpoint / "ran").exists()


def test_the_checkpoints_dtype_is_the_default(checkpoint: Path) -> None:
    assert load(checkpoint).dtype == "float32"
    changed(checkpoint, torch_dtype="bfloat16")
    vlm = load(checkpoint)
    assert vlm.dtype == "bfloat16"
    assert {parameter.dtype for parameter in vlm.module.parameters()} == {torch.bfloat16}
    exact = logits(load(checkpoint, dtype="float32"))
    assert 0 < float((logits(vlm) - exact).norm() / exact.norm()) < 0.3


@pytest.mark.parametrize("attention", [None, "sdpa", "eager"])
def test_all_parts_attend_in_the_wanted_way(checkpoint: Path, attention: str | None) -> None:
    vlm = load(checkpoint, attention=attention)
    parts = (vlm.config, vlm.config.vision_config, vlm.config.text_config, vlm.module.vpm.config)
    assert {part._attn_implementation for part in parts} == {attention or "sdpa"}
    assert vlm.describe()["attention"] == (attention or "sdpa")


# ---------------------------------------------------------------------- tokenizers, images


@pytest.mark.parametrize(
    ("generation", "file"), [("v2", "tokenizer.model"), ("v26", "tokenizer.json")]
)
def test_a_tokenizer_that_is_not_there(generation: str, file: str, tmp_path: Path) -> None:
    folder = copied(generation, tmp_path)
    (folder / file).write_bytes(b"{}")
    with pytest.raises(CheckpointError, match=r"is no (SentencePiece model|tokenizer)"):
        load(folder)
    (folder / file).unlink()
    with pytest.raises(CheckpointError, match=f"no {file}"):
        load(folder)


def test_a_fast_tokenizer_does_not_replace_the_slow_one(tmp_path: Path) -> None:
    folder = copied("v2", tmp_path)
    before = load(folder).encode([ASKED]).inputs["input_ids"]
    shutil.copyfile(MiniCpm26Checks().checkpoint / "tokenizer.json", folder / "tokenizer.json")
    assert torch.equal(load(folder).encode([ASKED]).inputs["input_ids"], before)


@pytest.mark.parametrize("generation", ["v2", "v26"])
def test_ids_that_only_the_head_has_read_as_nothing(generation: str) -> None:
    """Heads have more rows than there are tokens; logit lenses show such rows too."""
    vlm = OLDER[generation]().vlm
    (known,) = vlm.answer_ids("a")[-1:]
    assert vlm.decode([known, 99999]) == vlm.decode([known])


def test_tokenizers_that_lack_marks_are_refused(tmp_path: Path) -> None:
    folder = copied("v26", tmp_path)
    backend = Tokenizer.from_file(str(folder / "tokenizer.json"))
    said = json.loads(backend.to_str())
    gone = {"<image_id>", "<slice>"}
    said["added_tokens"] = [one for one in said["added_tokens"] if one["content"] not in gone]
    (folder / "tokenizer.json").write_text(json.dumps(said), encoding="utf-8")
    with pytest.raises(CheckpointError, match="lacks the token <slice> and <image_id>"):
        load(folder)


def test_the_checkpoints_chat_template_is_used(tmp_path: Path) -> None:
    folder = copied("o26", tmp_path)
    own = "[{{ messages[0]['content'] }}]{% if add_generation_prompt %}:{% endif %}"
    plain = text_of(load(folder))
    changed(folder, "tokenizer_config.json", chat_template=own)
    assert text_of(load(folder)) == "[Hm?]:"
    changed(folder, "tokenizer_config.json", chat_template=...)
    assert text_of(load(folder)) == plain
    (folder / "chat_template.jinja").write_text(own, encoding="utf-8")
    assert text_of(load(folder)) == "[Hm?]:"
    (folder / "chat_template.jinja").unlink()
    changed(folder, "tokenizer_config.json", chat_template=[{"name": "a", "template": own}])
    with pytest.raises(CheckpointError, match="several chat templates"):
        load(folder)


def text_of(vlm: Any) -> str:
    ids = vlm.encode([Sample("s", "Hm?")]).inputs["input_ids"][0]
    return str(vlm.decode(ids.tolist()))


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ({"patch_size": 8}, "patch_size = 8"),
        ({"slice_mode": False}, "slice_mode = False"),
        ({"image_feature_size": 64}, "image_feature_size = 64"),
        ({"norm_mean": ..., "scale_resolution": ...}, "lacks scale_resolution, norm_mean"),
    ],
)
def test_images_that_are_made_otherwise(tmp_path: Path, values: Any, told: str) -> None:
    folder = copied("v26", tmp_path)
    changed(folder, "preprocessor_config.json", **values)
    with pytest.raises(CheckpointError, match=told):
        load(folder).encode([ASKED])
    (folder / "preprocessor_config.json").unlink()
    with pytest.raises(CheckpointError, match=r"no preprocessor_config\.json"):
        load(folder).encode([ASKED])


def test_settings_of_images_are_used(tmp_path: Path) -> None:
    folder = copied("v26", tmp_path)
    changed(folder, "preprocessor_config.json", max_slice_nums=2, use_image_id=False)
    vlm = load(folder)
    assert len(vlm.encode([ASKED]).inputs["target_sizes"]) == 3
    ids = vlm.encode([ASKED]).inputs["input_ids"][0].tolist()
    assert "<image_id>" not in vlm.decode(ids)
    plain = vlm.encode([ASKED]).inputs["pixel_values"]
    changed(folder, "preprocessor_config.json", norm_std=[0.25] * 3)
    real = vlm.encode([ASKED]).inputs["pixel_values"]
    assert torch.equal(plain, real)
    assert torch.equal(load(folder).encode([ASKED]).inputs["pixel_values"], 2 * plain)
