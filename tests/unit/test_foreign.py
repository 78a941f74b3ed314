"""Config files of VLM-Lens: what they are taken to mean, and what is said of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from vlmlens.errors import SpecError
from vlmlens.spec.model import make_spec
from vlmlens.spec.vlm_lens import adapter_of, is_vlm_lens, read_run_file, translated

BASE: dict[str, Any] = {
    "architecture": "llava",
    "model_path": "org/tiny",
    "input_dir": "photos/",
    "prompt": "Which colour?",
    "modules": ["language_model.model.layers.1", "vision_tower.*"],
}


def file(**more: Any) -> dict[str, Any]:
    return {key: value for key, value in {**BASE, **more}.items() if value is not None}


def said(values: dict[str, Any], key: str) -> list[str]:
    return [note for note in translated(values)[1] if note.startswith(f"{key}: ")]


def test_a_whole_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    given = file(
        model=[{"torch_dtype": "auto"}, {"attn_implementation": "eager"}, {"device_map": "auto"}],
        forward=[{"max_new_tokens": 1}, {"do_sample": True}],
        output_db="output/my run.db",
        pooling_method="mean",
    )
    values, notes = translated(given)
    assert values == {
        "adapter": "llava",
        "model": "org/tiny",
        "dtype": "auto",
        "attention": "eager",
        "device_map": "auto",
        "data": "images:photos/",
        "prompt": ["Which colour?"],
        "sites": ["re:language_model.model.layers.1/mean", "re:vision_tower.*/mean"],
        "storage": f"sqlite://{tmp_path}/output/my%20run.db",
    }
    make_spec(values)
    given.update(model=None)
    for key in given:
        assert any(note.startswith(key) for note in notes), key
    assert all(note.endswith(".") and "\n" not in note for note in notes)


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [
        ("aya-vision", "aya_vision"),
        ("blip2", "blip2"),
        ("clip", "clip"),
        ("cogvlm", "cogvlm"),
        ("glamm", "glamm"),
        ("internlm-xcomposer", "internlm_xcomposer"),
        ("internvl", "internvl"),
        ("janus", "janus"),
        ("llava", "llava"),
        ("llavanext", "llavanext"),
        ("minicpm", "minicpm"),
        ("molmo", "molmo"),
        ("paligemma", "paligemma"),
        ("pixtral", "pixtral"),
        ("plm", "plm"),
        ("qwen", "qwen2vl"),
        ("internlm", "internlm_xcomposer"),
        ("perception-lm", "plm"),
        ("something-else", "something-else"),
    ],
)
def test_every_architecture(theirs: str, ours: str) -> None:
    assert adapter_of(theirs) == ours


@pytest.mark.parametrize(
    ("given", "selector"),
    [("mean", "mean"), ("max", "max"), ("None", "all"), (None, "all")],
)
def test_pooling(given: str | None, selector: str) -> None:
    values, _ = translated(file(pooling_method=given))
    assert [site.rpartition("/")[2] for site in values["sites"]] == [selector, selector]


def test_what_is_done_instead_of_a_defect() -> None:
    (mean,) = said(file(pooling_method="mean"), "pooling_method")
    assert "a sample's own tokens" in mean
    assert "padding" in mean
    assert any("tuple" in note for note in said(file(), "modules"))
    (often,) = said(file(forward=[{"max_new_tokens": 20}]), "forward.max_new_tokens")
    assert "every generated token" in often
    (once,) = said(file(forward={"max_new_tokens": 1}), "forward.max_new_tokens")
    assert "as for one new token" in once
    (device,) = said(file(device="cpu"), "device")
    assert "overrides its file" in device


@pytest.mark.parametrize(
    ("model", "dtype"),
    [
        (None, "float32"),
        ([], "float32"),
        ([{"torch_dtype": "auto"}], "auto"),
        ([{"torch_dtype": "torch.bfloat16"}], "bfloat16"),
        ([{"torch_dtype": "float16"}, {"torch_dtype": "float32"}], "float32"),
    ],
)
def test_dtype(model: Any, dtype: str) -> None:
    assert translated(file(model=model))[0]["dtype"] == dtype


def test_settings_of_the_model() -> None:
    given = [
        {"low_cpu_mem_usage": True},
        {"trust_remote_code": True},
        {"token": "hf_secret"},
        {"tokenizer_path": "org/words"},
        {"template_version": "vqa"},
        {"load_in_4bit": True},
        {"revision": "main"},
    ]
    values, notes = translated(file(model=given))
    assert values["options"] == {"adapter": {"tokenizer": "org/words", "template": "vqa"}}
    assert (values["quantization"], values["revision"]) == ("4bit", "main")
    assert "trust_remote_code" not in values
    assert not any("hf_secret" in text for text in [*notes, str(values)])
    for key in ("token", "trust_remote_code", "low_cpu_mem_usage", "tokenizer_path", "revision"):
        assert any(note.startswith(f"model.{key}: ") for note in notes)


def test_datasets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    hosted = file(
        input_dir=None, dataset=[{"dataset_path": "org/clevr"}, {"dataset_split": "boolean"}]
    )
    values, notes = translated(hosted)
    assert values["data"] == "hf:org/clevr:boolean"
    assert "prompt" not in values
    assert any(note.startswith("prompt: not used") for note in notes)
    local = {"local_dataset_path": "data/clevr", "image_dataset_path": "data/images"}
    values, _ = translated(file(input_dir=None, prompt=None, dataset=[local]))
    assert values["data"] == f"hf:{tmp_path}/data/clevr"
    assert values["options"] == {"dataset": {"image_root": f"{tmp_path}/data/images"}}


def test_the_default_database(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert translated(file())[0]["storage"] == f"sqlite://{tmp_path}/embeddings.db"


def test_keys_without_a_meaning_that_are_known() -> None:
    _, notes = translated(file(download_path="/x", debug=True, vis_save_path="./y"))
    for key in ("download_path", "debug", "vis_save_path"):
        assert any(note.startswith(f"{key}: ") for note in notes)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (file(modulez=["a"]), "The VLM-Lens file has keys without a meaning here: modulez"),
        (file(batch_size=4, text_split="a"), "here: batch_size, text_split"),
        (file(model=[{"precision": "bf16"}]), "under `model`, .* here: precision"),
        (file(forward=[{"n": 1}]), "under `forward`, .* here: n"),
        (file(dataset=[{"text_split": "a"}], input_dir=None), "under `dataset`, .* text_split"),
        (file(dataset=[{"dataset_path": "a/b"}]), "both 'input_dir' and 'dataset'"),
        (file(dataset=[{"dataset_split": "a"}], input_dir=None), "needs one of dataset.dataset"),
        (file(input_dir=None), "neither 'input_dir' nor 'dataset'"),
        (file(model_path=None), "needs 'model_path', a text; it has None"),
        (file(architecture=None), "needs 'architecture'"),
        (file(modules=None), "needs 'modules', a list of names; it has None"),
        (file(modules="lm_head"), "needs 'modules', a list of names; it has 'lm_head'"),
        (file(pooling_method="sum"), "pooling_method = 'sum' is none of mean, max and None"),
        (file(model=[{"torch_dtype": "int8"}]), "torch_dtype = 'int8' is none of"),
        (file(model="auto"), "'model' is no list"),
        (file(log_named_modules=True), "only lists module names"),
    ],
)
def test_refused(values: dict[str, Any], message: str) -> None:
    with pytest.raises(SpecError, match=message):
        translated(values)


def test_the_way_to_what_the_file_only_lists() -> None:
    with pytest.raises(SpecError) as caught:
        translated(file(log_named_modules=True))
    assert "vlmlens sites --adapter llava --model org/tiny --all" in caught.value.hint


def test_told_from_a_run_spec(tmp_path: Path) -> None:
    assert is_vlm_lens(BASE)
    assert is_vlm_lens({"architecture": "llava"})
    assert not is_vlm_lens({"adapter": "llava", "model_path": "x"})
    assert not is_vlm_lens({"model": "x", "sites": ["llm.head"]})
    own = tmp_path / "run.yaml"
    own.write_text("adapter: demo\nlimit: 3\n")
    assert read_run_file(own) == ({"adapter": "demo", "limit": 3}, [])
    theirs = tmp_path / "llava.yaml"
    theirs.write_text(yaml.safe_dump(BASE))
    values, notes = read_run_file(theirs)
    assert values["adapter"] == "llava"
    assert notes[0] == f"{theirs} is a config file of VLM-Lens. It is read so:"
