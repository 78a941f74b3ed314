"""The first Molmo's configs: published sizes, what is refused, which adapter reads which."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from vlmlens.abc.adapter import LoadRequest
from vlmlens.errors import CheckpointError, CheckpointNotFound
from vlmlens.hf.weights import StoredTensor, check_fit
from vlmlens.samples import Sample
from vlmlens.testing.tiny import picture
from vlmlens_adapter_molmo.adapter import Molmo2Adapter
from vlmlens_adapter_molmo.checks import Molmo2Checks
from vlmlens_adapter_molmo.v1.adapter import MolmoAdapter
from vlmlens_adapter_molmo.v1.checks import MolmoChecks, MolmoEChecks, MolmoOlmoChecks
from vlmlens_adapter_molmo.v1.keys import native_weights
from vlmlens_adapter_molmo.v1.model import MolmoForConditionalGeneration
from vlmlens_adapter_molmo.v1.tiny import molmo_shapes

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


# ---------------------------------------------------------------------- configs of the hub

SHARED: dict[str, Any] = {
    "model_type": "molmo", "architectures": ["MolmoForCausalLM"], "clip_qkv": None,
    "auto_map": {"AutoConfig": "config_molmo.MolmoConfig"}, "initializer_range": 0.02,
    "layer_norm_type": "rms", "max_position_embeddings": 4096, "tie_word_embeddings": False,
    "torch_dtype": "float32", "use_cache": True, "use_position_ids": True, "weight_tying": False,
}  # fmt: skip
QWEN2 = {"qkv_bias": True, "attention_layer_norm": False, "norm_after": False}
VISION = {
    "image_default_input_size": [336, 336], "image_patch_size": 14, "image_emb_dim": 1024,
    "image_num_heads": 16, "image_num_layers": 23, "image_mlp_dim": 4096, "image_num_pos": 577,
    "image_mlp_activations": "quick_gelu", "image_norm_eps": 1e-5,
}  # fmt: skip
FULL: dict[str, tuple[dict[str, Any], int]] = {
    "7B-D": (
        SHARED | QWEN2 | {
            "hidden_size": 3584, "num_hidden_layers": 28, "num_attention_heads": 28,
            "num_key_value_heads": 4, "intermediate_size": 37888, "embedding_size": 152064,
            "layer_norm_eps": 1e-6, "rope_theta": 1e6,
        },
        8_021_025_280,
    ),
    "7B-O": (
        SHARED | {
            "qkv_bias": False, "attention_layer_norm": True, "norm_after": True,
            "hidden_size": 4096, "num_hidden_layers": 32, "num_attention_heads": 32,
            "num_key_value_heads": None, "intermediate_size": 22016, "embedding_size": 100352,
            "layer_norm_eps": 1e-6, "rope_theta": 5e5,
        },
        7_665_032_192,
    ),
    "72B": (
        SHARED | QWEN2 | {
            "hidden_size": 8192, "num_hidden_layers": 80, "num_attention_heads": 64,
            "num_key_value_heads": 8, "intermediate_size": 59136, "embedding_size": 152064,
            "layer_norm_eps": 1e-5, "rope_theta": 1e6,
        },
        73_308_285_952,
    ),
    "MolmoE": (
        SHARED | {
            "qkv_bias": False, "attention_layer_norm": True, "norm_after": False,
            "block_type": "moe", "d_model": 2048, "n_layers": 16, "n_heads": 16,
            "n_kv_heads": None, "mlp_ratio": 1, "mlp_hidden_size": None, "embedding_size": 50304,
            "layer_norm_eps": 1e-5, "rope_theta": 1e4, "moe_num_experts": 64, "moe_top_k": 8,
            "vision_backbone": VISION, "vit_layers": [-2, -9], "rope_impl": "llama",
        },
        7_221_875_712,
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", list(FULL))
def test_the_published_sizes(name: str, tmp_path: Path) -> None:
    """From the config alone: as many parameters as published, and a name for every weight."""
    said, parameters = FULL[name]
    (tmp_path / "config.json").write_text(json.dumps(said), encoding="utf-8")
    vlm = MolmoAdapter.skeleton(LoadRequest(model=str(tmp_path), device="cpu"))
    assert sum(parameter.numel() for parameter in vlm.module.parameters()) == parameters
    assert len(vlm.sites.resolve("vision.block.*")) == 23
    (site,) = vlm.sites.resolve("model.vision_backbone.image_vit.transformer.resblocks.22")
    assert (site.name, vlm.widths()[site.path]) == ("vision.block.22", 1024)
    shapes = molmo_shapes(said | {"vision_backbone": VISION, "vit_layers": [-2, -9]})
    stored = {key: StoredTensor(shape, torch.float32, torch.empty) for key, shape in shapes.items()}
    weights = native_weights(stored, vlm.config, None)
    check_fit(MolmoForConditionalGeneration, vlm.config, weights, name)


def test_the_head_knows_fewer_tokens_than_the_table() -> None:
    for kit in KITS.values():
        vlm = kit().vlm
        known = vlm.module.get_submodule("lm_head").get_parameter("weight").shape[0]
        table = vlm.module.get_submodule("model.language_model.embed_tokens")
        assert table.get_parameter("weight").shape[0] == known + 128
        batch = vlm.encode([Sample("s", "Hm?", (picture(20, 20),))])
        assert int(batch.inputs["input_ids"].max()) >= known
        found = vlm.forward(batch, logits="last").logits
        assert found is not None
        assert found.shape == (1, known)


@pytest.mark.parametrize(
    ("values", "named"),
    [
        ({"image_pooling_2d": "attention"}, "image_pooling_2d"),
        ({"image_padding_embed": "regress"}, "image_padding_embed"),
        ({"clip_qkv": 8.0}, "clip_qkv"),
        ({"weight_tying": True}, "weight_tying"),
        ({"layer_norm_type": "default"}, "layer_norm_type"),
        ({"rope_impl": "interleave"}, "rope_impl"),
        ({"use_cls_feature": True}, "use_cls_feature"),
        ({"qkv_bias": True, "norm_after": True}, "qkv_bias"),
        ({"vit_layers": [-2, -99]}, "vit_layers"),
        ({"vision_backbone": VISION | {"image_default_input_size": [336, 320]}}, "input_size"),
    ],
)
def test_another_architecture_is_refused(
    checkpoint: Path, values: dict[str, Any], named: str
) -> None:
    changed(checkpoint, **values)
    with pytest.raises(CheckpointError, match=named):
        load(checkpoint)


@pytest.mark.parametrize("name", ["hidden_size", "embedding_size", "rope_theta"])
def test_what_a_config_lacks_is_named(tmp_path: Path, name: str) -> None:
    said = {key: value for key, value in FULL["7B-D"][0].items() if key != name}
    (tmp_path / "config.json").write_text(json.dumps(said), encoding="utf-8")
    with pytest.raises(CheckpointError, match=f"lacks '{name}'"):
        MolmoAdapter.skeleton(LoadRequest(model=str(tmp_path), device="cpu"))


@pytest.mark.parametrize(
    ("values", "named"),
    [
        ({"overlap_margins": [3, 3]}, "margins 3, 3"),
        ({"overlap_margins": [4, 2]}, "nothing of a crop"),
        ({"image_token_length_h": 4}, "crops of 48 x 48"),
        ({"do_normalize": False}, "without normalization"),
    ],
)
def test_other_image_settings_are_refused(moe: Path, values: dict[str, Any], named: str) -> None:
    changed(moe, "preprocessor_config.json", **values)
    with pytest.raises(CheckpointError, match=named):
        assert load(moe).processor


def test_a_missing_folder_says_so(tmp_path: Path) -> None:
    with pytest.raises(CheckpointNotFound, match="does not exist"):
        load(tmp_path / "nothing")


# ---------------------------------------------------------------------- the two generations


@pytest.mark.parametrize("trust", [False, True])
def test_each_adapter_names_the_other(checkpoint: Path, trust: bool) -> None:
    request = LoadRequest(model=str(checkpoint), device="cpu", trust_remote_code=trust)
    for way in (Molmo2Adapter.load, Molmo2Adapter.skeleton):
        with pytest.raises(CheckpointError, match=r"--adapter molmo\.$"):
            way(request)
    with pytest.raises(CheckpointError, match=r"--adapter molmo2\.$"):
        load(Molmo2Checks().checkpoint)
