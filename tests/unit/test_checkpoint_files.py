"""Adapters (LoRA) beside weights, pickles, damaged files: refused with one clear error."""

from __future__ import annotations

import json
import os
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

import vlmlens
from vlmlens.abc.adapter import LoadRequest
from vlmlens.errors import CheckpointError
from vlmlens.hf.weights import stored_weights
from vlmlens.testing.model import TinyLlava, tiny_checkpoint

LORA = {"peft_type": "LORA", "base_model_name_or_path": "some/base", "r": 2}
WEIGHTS = "model.safetensors"


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_checkpoint(), tmp_path / "ck"))


def load(folder: Path) -> Any:
    return TinyLlava.load(LoadRequest(model=str(folder), device="cpu"))


# ------------------------------------------------------------------------- LoRA


@pytest.mark.parametrize(
    "names",
    [["adapter_config.json", "adapter_model.safetensors"], ["adapter_config.json"],
     ["adapter_model.bin"], ["adapters.safetensors"], ["my_lora_weights.safetensors"]],
)  # fmt: skip
def test_an_adapter_beside_weights_is_never_ignored(checkpoint: Path, names: list[str]) -> None:
    for name in names:
        (checkpoint / name).write_text(json.dumps(LORA), encoding="utf-8")
    for attempt in (load, lambda folder: TinyLlava.skeleton(LoadRequest(model=str(folder)))):
        with pytest.raises(CheckpointError, match="an adapter") as caught:
            attempt(checkpoint)
        assert names[0] in caught.value.message
        assert "merge_and_unload" in caught.value.hint


def test_a_folder_with_an_adapter_alone_says_what_it_is(tmp_path: Path) -> None:
    (tmp_path / "adapter_config.json").write_text(json.dumps(LORA), encoding="utf-8")
    (tmp_path / "adapter_model.safetensors").touch()
    for settings in ({}, {"adapter": "demo"}, {"adapter": "hf"}):
        with pytest.raises(
            CheckpointError, match=r"is no model: .*LORA.* of the model some/base"
        ) as caught:
            vlmlens.load(model=tmp_path, device="cpu", **settings)  # type: ignore[arg-type]
        assert f"--model some/base --tuned {tmp_path}" in caught.value.hint
    said = {**LORA, "peft_type": "IA3"}
    (tmp_path / "adapter_config.json").write_text(json.dumps(said), encoding="utf-8")
    with pytest.raises(CheckpointError, match="IA3") as caught:
        vlmlens.load(model=tmp_path, device="cpu")
    assert "merge_and_unload" in caught.value.hint


@pytest.mark.parametrize("text", ["{", "[]", "[" * 100_000])
def test_an_adapter_with_a_broken_config_is_still_seen(checkpoint: Path, text: str) -> None:
    (checkpoint / "adapter_config.json").write_text(text, encoding="utf-8")
    with pytest.raises(CheckpointError, match="an adapter"):
        load(checkpoint)


# ----------------------------------------------------------------- damaged files


class Evil:
    """Makes a folder when it is unpickled."""

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, ("unpickled",)


def torch_saved(content: Any) -> Callable[[Path], None]:
    return lambda path: torch.save(content, path)


def as_bytes(content: bytes) -> Callable[[Path], None]:
    return lambda path: path.write_bytes(content) and None


BAD: dict[str, Callable[[Path], None]] = {
    "a pickle": as_bytes(pickle.dumps(Evil())),
    "a pickle in torch's format": torch_saved({"a": Evil()}),
    "something else": as_bytes(b"hello" * 100),
    "empty": as_bytes(b""),
    "a list": torch_saved([1, 2]),
}


@pytest.mark.filterwarnings("ignore:.*pickle protocol:UserWarning")
@pytest.mark.parametrize("write", BAD.values(), ids=BAD)
def test_a_bin_that_holds_no_weights(
    checkpoint: Path, write: Callable[[Path], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(checkpoint.parent)
    (checkpoint / WEIGHTS).unlink()
    write(checkpoint / "pytorch_model.bin")
    with pytest.raises(CheckpointError):
        load(checkpoint)
    assert not Path("unpickled").exists()


def test_a_bin_of_the_oldest_kind_is_read(checkpoint: Path) -> None:
    weights = load_file(checkpoint / WEIGHTS)
    (checkpoint / WEIGHTS).unlink()
    torch.save(weights, checkpoint / "pytorch_model.bin", _use_new_zipfile_serialization=False)
    stored = stored_weights(str(checkpoint), {})
    assert all(torch.equal(stored[name][...], tensor) for name, tensor in weights.items())


@pytest.mark.parametrize(
    ("name", "content"),
    [
        (WEIGHTS, b""),
        (WEIGHTS, b"hello" * 100),
        (WEIGHTS, (10**12).to_bytes(8, "little") + b"{}"),
        ("model.safetensors.index.json", b'{"a": 1}'),
        ("model.safetensors.index.json", b"[" * 100_000),
        ("config.json", b"[" * 100_000),
        ("config.json", b'{"model_type": "llava", "vision_config": 5}'),
    ],
)
def test_a_damaged_file_is_one_clear_error(checkpoint: Path, name: str, content: bytes) -> None:
    if name.endswith("index.json"):
        (checkpoint / WEIGHTS).unlink()
    (checkpoint / name).write_bytes(content)
    with pytest.raises(CheckpointError):
        load(checkpoint)
