"""Weights in a layout of their own: lazily read, renamed, checked, placed without a copy."""

from __future__ import annotations

import json
import textwrap
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from transformers import LlamaConfig, LlamaForCausalLM

from tests import _program
from vlmlens.errors import CheckpointError
from vlmlens.hf.checkpoints import read_config_json
from vlmlens.hf.weights import (
    StoredTensor,
    check_fit,
    concatenated,
    place_weights,
    renamed,
    stored_weights,
)
from vlmlens.sites import Rename

KINDS = ("model.safetensors", "pytorch_model.bin")


def write(folder: Path, weights: dict[str, torch.Tensor], kind: str = KINDS[0]) -> Path:
    folder.mkdir(exist_ok=True)
    save = save_file if kind.endswith("safetensors") else torch.save
    save(weights, folder / kind)  # type: ignore[operator]
    return folder


def tiny() -> LlamaConfig:
    return LlamaConfig(
        vocab_size=20, hidden_size=8, intermediate_size=12, num_hidden_layers=2,
        num_attention_heads=2, tie_word_embeddings=False,
    )  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
def test_tensors_are_read_where_they_are_indexed(tmp_path: Path, kind: str) -> None:
    values = {
        "a": torch.arange(12.0).reshape(4, 3),
        "b": torch.tensor([1, 2]),
        "half": torch.rand(2, 2, dtype=torch.bfloat16),
        "one": torch.tensor(3.0),
        "none": torch.zeros(0, 3),
    }
    found = stored_weights(str(write(tmp_path, values, kind)), {})
    assert {name: tensor.shape for name, tensor in found.items()} == {
        name: tuple(value.shape) for name, value in values.items()
    }
    for name, value in values.items():
        assert found[name].dtype == value.dtype
        assert torch.equal(found[name][...], value)
    assert torch.equal(found["a"].rows(1, 3)[...], values["a"][1:3])
    assert torch.equal(found["a"].rows(1, 3)[:, 1], values["a"][1:3, 1])
    assert found["a"].rows(2, 9).shape == (2, 3)
    turned = found["a"].made(torch.t, (3, 4))
    assert turned.shape == (3, 4)
    assert torch.equal(turned[...], values["a"].T)


def bytes_read() -> int:
    """What this process has read so far, from disk or not."""
    lines = Path("/proc/self/io").read_text().splitlines()
    return int(dict(line.split(": ") for line in lines)["rchar"])


@pytest.mark.skipif(not Path("/proc/self/io").exists(), reason="Linux counts what is read")
def test_rows_are_read_alone(tmp_path: Path) -> None:
    value = torch.arange(2**22, dtype=torch.int32).reshape(4096, 1024)
    found = stored_weights(str(write(tmp_path, {"other": torch.ones(7), "a": value})), {})["a"]
    before = bytes_read()
    assert torch.equal(found.rows(4000, 4010)[...], value[4000:4010])
    between = bytes_read()
    assert torch.equal(found[...], value)
    assert between - before < 2**20 < value.nbytes <= bytes_read() - between


@pytest.mark.parametrize(
    "index", [slice(1, 3), slice(-2, None), slice(3, 1), slice(2, 99), slice(0, 4, 2), 1, (..., 1)]
)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64, torch.uint8, torch.bool])
def test_any_index_gives_what_torch_gives(tmp_path: Path, index: Any, dtype: torch.dtype) -> None:
    values = {"a": torch.ones(5), "b": (torch.arange(24).reshape(4, 3, 2) % 5).to(dtype)}
    found = stored_weights(str(write(tmp_path, values)), {})["b"][index]
    assert found.dtype == dtype
    assert torch.equal(found, values["b"][index])


def test_a_file_that_was_cut_off_meanwhile(tmp_path: Path) -> None:
    folder = write(tmp_path, {"a": torch.ones(64, 64)})
    found = stored_weights(str(folder), {})["a"]
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-64])
    assert torch.equal(found.rows(0, 2)[...], torch.ones(2, 64))
    with pytest.raises(CheckpointError, match="is cut off"):
        found.rows(60, 64)[...]


def test_tensors_are_put_together_when_they_are_read(tmp_path: Path) -> None:
    parts = {name: torch.rand(2, 3) for name in "ab"}
    found = list(stored_weights(str(write(tmp_path, parts)), {}).values())
    whole = torch.cat(list(parts.values()))
    assert concatenated(found).shape == (4, 3)
    assert torch.equal(concatenated(found)[...], whole)
    assert torch.equal(concatenated(found, (2, 2, 3))[1], parts["b"])
    half = concatenated(found, dtype=torch.bfloat16)
    assert half.dtype == torch.bfloat16
    assert torch.equal(half[...], whole.bfloat16())


@pytest.mark.parametrize("kind", KINDS)
def test_shards_are_one_checkpoint(tmp_path: Path, kind: str) -> None:
    model = LlamaForCausalLM(tiny())
    weights = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    stem, _, end = kind.partition(".")
    index: dict[str, str] = {}
    for i, names in enumerate((list(weights)[::2], list(weights)[1::2])):
        shard = f"{stem}-{i + 1:05}-of-00002.{end}"
        write(tmp_path, {name: weights[name] for name in names}, shard)
        index |= dict.fromkeys(names, shard)
    (tmp_path / f"{kind}.index.json").write_text(json.dumps({"weight_map": index}))
    found = stored_weights(str(tmp_path), {})
    loaded = place_weights(LlamaForCausalLM, tiny(), found, "tiny", {"dtype": "auto"})
    for name, tensor in loaded.state_dict().items():
        assert torch.equal(tensor, weights[name]), name


def test_dtype_is_that_asked_for(tmp_path: Path) -> None:
    folder = write(tmp_path, LlamaForCausalLM(tiny()).state_dict())
    found = stored_weights(str(folder), {})
    for dtype in (torch.float32, torch.bfloat16):
        settings = {"dtype": dtype, "attn_implementation": "eager"}
        module = place_weights(LlamaForCausalLM, tiny(), found, "tiny", settings)
        assert {parameter.dtype for parameter in module.parameters()} == {dtype}
        assert module.config._attn_implementation == "eager"


def stored(*shape: int) -> StoredTensor:
    return StoredTensor(shape, torch.float32, torch.zeros(shape).__getitem__)


def test_what_does_not_fit_is_listed() -> None:
    right = {n: stored(*t.shape) for n, t in LlamaForCausalLM(tiny()).state_dict().items()}
    check_fit(LlamaForCausalLM, tiny(), right, "tiny")
    lacking = {n: t for n, t in right.items() if n != "model.norm.weight"}
    with pytest.raises(CheckpointError, match=r"'tiny'.*missing: model\.norm\.weight\."):
        check_fit(LlamaForCausalLM, tiny(), lacking, "tiny")
    with pytest.raises(CheckpointError, match=r"left over: adapter\.weight\."):
        check_fit(LlamaForCausalLM, tiny(), right | {"adapter.weight": stored(3)}, "tiny")
    with pytest.raises(CheckpointError, match=r"norm\.weight \(9,\) instead of \(8,\)"):
        check_fit(LlamaForCausalLM, tiny(), right | {"model.norm.weight": stored(9)}, "tiny")
    many = right | {f"x.{i}": stored(1) for i in range(99)}
    with pytest.raises(CheckpointError, match="and 59 more"):
        check_fit(LlamaForCausalLM, tiny(), many, "tiny")


def test_a_tied_head_may_be_missing() -> None:
    config = tiny()
    config.tie_word_embeddings = True
    weights = {n: stored(*t.shape) for n, t in LlamaForCausalLM(config).state_dict().items()}
    check_fit(LlamaForCausalLM, config, {**weights}, "tiny")
    del weights["lm_head.weight"]
    check_fit(LlamaForCausalLM, config, weights, "tiny")


def test_renames_apply_in_order_and_once() -> None:
    weights = {"a.a.w": stored(1), "b.inv_freq": stored(2), "c": stored(3)}
    found = renamed(weights, [Rename(r"^a\.", "x."), Rename(r"^x\.a", "y")], [r"inv_freq$"])
    assert {name: tensor.shape for name, tensor in found.items()} == {"y.w": (1,), "c": (3,)}


class Planted:
    """Would create a file if it were unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return Path.touch, (self.path,)


def test_a_pickle_is_never_run(tmp_path: Path) -> None:
    torch.save({"w": Planted(tmp_path / "ran")}, tmp_path / KINDS[1])
    with pytest.raises(CheckpointError, match="more than tensors"):
        stored_weights(str(tmp_path), {})
    assert not (tmp_path / "ran").exists()


def test_an_index_does_not_lead_out_of_the_folder(tmp_path: Path) -> None:
    write(tmp_path / "elsewhere", {"w": torch.zeros(1)})
    folder = tmp_path / "checkpoint"
    folder.mkdir()
    index = {"weight_map": {"w": "../elsewhere/model.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(CheckpointError, match="not a file beside it"):
        stored_weights(str(folder), {})


def test_no_weights(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "own", "auto_map": {"x": "evil.py"}}')
    assert read_config_json(str(tmp_path), {})["model_type"] == "own"
    with pytest.raises(CheckpointError, match="has no weights"):
        stored_weights(str(tmp_path), {})


MEASURE = """
    import sys
    from pathlib import Path
    from transformers import LlamaConfig, LlamaForCausalLM
    from vlmlens.hf.weights import concatenated, place_weights, renamed, stored_weights

    def resident(what):
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith(what)) / 1024

    small = LlamaConfig(hidden_size=8, num_hidden_layers=1, num_attention_heads=1, vocab_size=9)
    LlamaForCausalLM.from_pretrained(
        None, config=small, state_dict=LlamaForCausalLM(small).state_dict()
    )
    config = LlamaConfig.from_pretrained(sys.argv[1])
    found = stored_weights(sys.argv[1], {})
    before = resident("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")
    if sys.argv[2] == "whole":
        held = {name: tensor[...] for name, tensor in found.items()}
        found = {name: tensor.made(lambda _, name=name: held[name].clone())
                 for name, tensor in found.items()}
    else:
        found = {name: concatenated([tensor]).made(lambda whole: whole)
                 for name, tensor in found.items()}
    model = place_weights(LlamaForCausalLM, config, found, "big", {"dtype": config.dtype})
    size = sum(p.numel() * p.element_size() for p in model.parameters()) / 2**20
    print((resident("VmHWM") - before) / size)
"""


def test_loading_takes_little_more_memory_than_the_weights(tmp_path: Path) -> None:
    """Also where each weight is made anew; the control holds all of them first.

    A small model is loaded before, so that what transformers imports is not counted.
    """
    if not Path("/proc/self/clear_refs").exists():
        pytest.skip("the system does not tell its peak of memory")
    config = LlamaConfig(
        vocab_size=2000, hidden_size=1024, intermediate_size=2048, num_hidden_layers=24,
        num_attention_heads=8, tie_word_embeddings=False, dtype="bfloat16",
    )  # fmt: skip
    config.save_pretrained(tmp_path)
    with torch.device("meta"):
        shapes = LlamaForCausalLM(config).state_dict()
    zeros = {name: torch.zeros(t.shape, dtype=torch.bfloat16) for name, t in shapes.items()}
    write(tmp_path, zeros)
    ratios = {}
    for way in ("lazily", "whole"):
        done = _program.python(textwrap.dedent(MEASURE), str(tmp_path), way, strict=False)
        assert done.returncode == 0, done.stderr
        ratios[way] = float(done.stdout)
    assert ratios["lazily"] <= 1.15
    assert ratios["whole"] > 1.5
