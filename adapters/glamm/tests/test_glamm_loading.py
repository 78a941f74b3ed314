"""Loading GLaMM: without its code, from every kind of file, and what is refused."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from vlmlens.abc.adapter import LoadRequest
from vlmlens.errors import CheckpointError, CheckpointNotFound
from vlmlens_adapter_glamm.adapter import GlammAdapter, GlammOptions
from vlmlens_adapter_glamm.tiny import tiny_config

DATA = Path(__file__).parent / "data" / "glamm"
FILES = ("config.json", "model.safetensors", "tokenizer.model")


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    """The goldens' checkpoint, to change."""
    folder = tmp_path / "glamm"
    folder.mkdir()
    for name in FILES:
        shutil.copy(DATA / name, folder)
    shutil.copytree(DATA / "vision_tower", folder / "vision_tower")
    return folder


def load(folder: Path | str, *, vision_tower: str | None = None, **settings: Any) -> GlammAdapter:
    options = GlammOptions(vision_tower=vision_tower)
    chosen = {"device": "cpu", **settings}
    return GlammAdapter.load(LoadRequest(model=str(folder), options=options, **chosen))


def skeleton(folder: Path, **options: Any) -> GlammAdapter:
    chosen = GlammOptions(**options)
    return GlammAdapter.skeleton(LoadRequest(model=str(folder), device="cpu", options=chosen))


def changed(file: Path, **values: Any) -> None:
    said = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
    file.write_text(json.dumps(said | values), encoding="utf-8")


def rewritten(file: Path, change: Callable[[dict[str, torch.Tensor]], None]) -> None:
    weights = load_file(file)
    change(weights)
    save_file(weights, file)


def same_weights(one: GlammAdapter, other: GlammAdapter) -> bool:
    pairs = zip(one.module.state_dict().items(), other.module.state_dict().items(), strict=True)
    return all(a == b and torch.equal(x, y) for (a, x), (b, y) in pairs)


# ---------------------------------------------------------------------- code


@pytest.mark.parametrize("trust", [False, True])
def test_code_of_a_checkpoint_is_never_run(checkpoint: Path, tmp_path: Path, trust: bool) -> None:
    trace = tmp_path / "ran"
    for folder in (checkpoint, checkpoint / "vision_tower"):
        for name in ("configuration_glamm", "modeling_glamm", "tokenization_glamm"):
            (folder / f"{name}.py").write_text(f"open({str(trace)!r}, 'w')\n", encoding="utf-8")
        code = {
            "AutoConfig": "configuration_glamm.GLaMMConfig",
            "AutoModel": "modeling_glamm.GLaMMForCausalLM",
            "AutoModelForCausalLM": "modeling_glamm.GLaMMForCausalLM",
            "AutoImageProcessor": "modeling_glamm.GLaMMForCausalLM",
            "AutoTokenizer": ["tokenization_glamm.GLaMMTokenizer", None],
        }
        for file in ("config.json", "tokenizer_config.json", "preprocessor_config.json"):
            changed(folder / file, auto_map=code)
    vlm = load(checkpoint, trust_remote_code=trust)
    assert vlm.processor.tokenizer is vlm.tokenizer
    skeleton(checkpoint)
    assert not trace.exists()


# ---------------------------------------------------------------------- weights


def split(file: Path, kind: str, write: Callable[[Any, Path], object]) -> None:
    """Two shards with an index, in place of one file."""
    weights = load_file(file)
    names = sorted(weights)
    halves = (names[: len(names) // 2], names[len(names) // 2 :])
    listed = {}
    for i, half in enumerate(halves):
        shard = f"{Path(kind).stem}-{i}{Path(kind).suffix}"
        write({name: weights[name] for name in half}, file.parent / shard)
        listed.update(dict.fromkeys(half, shard))
    index = {"weight_map": listed}
    (file.parent / f"{kind}.index.json").write_text(json.dumps(index), encoding="utf-8")
    file.unlink()


@pytest.mark.parametrize(
    ("kind", "write"), [("model.safetensors", save_file), ("pytorch_model.bin", torch.save)]
)
def test_shards_hold_the_same_weights(
    checkpoint: Path, kind: str, write: Callable[[Any, Path], object]
) -> None:
    split(checkpoint / "model.safetensors", kind, write)
    tower = checkpoint / "vision_tower"
    torch.save(load_file(tower / "model.safetensors"), tower / "pytorch_model.bin")
    (tower / "model.safetensors").unlink()
    assert same_weights(load(DATA), load(checkpoint))


class Harmful:
    def __init__(self, path: str) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return (open, (self.path, "w"))


@pytest.mark.parametrize("folder", ["", "vision_tower"])
def test_pickled_code_is_not_run(checkpoint: Path, tmp_path: Path, folder: str) -> None:
    trace = tmp_path / "ran"
    torch.save({"a": Harmful(str(trace))}, checkpoint / folder / "pytorch_model.bin")
    (checkpoint / folder / "model.safetensors").unlink()
    with pytest.raises(CheckpointError, match="more than tensors"):
        load(checkpoint)
    assert not trace.exists()


GAUSSIAN = "model.grounding_encoder.prompt_encoder.pe_layer.positional_encoding_gaussian_matrix"


@pytest.mark.parametrize(
    ("name", "ours"),
    [
        ("model.layers.1.mlp.up_proj.weight", "language_model.layers.1.mlp.up_proj.weight"),
        (GAUSSIAN, "shared_image_embedding.positional_embedding"),
        ("model.grounding_encoder.mask_decoder.iou_token.weight", "mask_decoder.iou_token.weight"),
        ("model.region_encoder.roi_align.updims.bias", "region_encoder.roi_align.updims.bias"),
        ("lm_head.weight", "lm_head.weight"),
    ],
)
def test_a_missing_weight_is_named(checkpoint: Path, name: str, ours: str) -> None:
    def drop(weights: dict[str, torch.Tensor]) -> None:
        del weights[name]

    rewritten(checkpoint / "model.safetensors", drop)
    with pytest.raises(CheckpointError, match=rf"missing: .*{ours}"):
        load(checkpoint)


@pytest.mark.parametrize(
    "name",
    [
        "model.layers.2.mlp.up_proj.weight",
        "model.vision_tower.vision_tower.vision_model.post_layernorm.weight",
        "model.grounding_encoder.mask_decoder.iou_prediction_head.layers.3.weight",
        "model.mm_projector.4.weight",
    ],
)
def test_a_left_over_weight_is_named(checkpoint: Path, name: str) -> None:
    def add(weights: dict[str, torch.Tensor]) -> None:
        weights[name] = torch.zeros(2)

    rewritten(checkpoint / "model.safetensors", add)
    with pytest.raises(CheckpointError, match="left over"):
        load(checkpoint)


def test_a_weight_of_another_shape_is_named(checkpoint: Path) -> None:
    def cut(weights: dict[str, torch.Tensor]) -> None:
        weights[GAUSSIAN] = weights[GAUSSIAN][:, 1:].clone()

    rewritten(checkpoint / "model.safetensors", cut)
    with pytest.raises(CheckpointError, match=r"of another shape: .*positional_embedding"):
        load(checkpoint)


def test_stored_angles_are_ignored(checkpoint: Path) -> None:
    def drop(weights: dict[str, torch.Tensor]) -> None:
        angles = [name for name in weights if name.endswith("inv_freq")]
        assert angles
        for name in angles:
            weights[name] += 1

    rewritten(checkpoint / "model.safetensors", drop)
    one, other = load(DATA), load(checkpoint)
    assert same_weights(one, other)
    buffers = dict(other.module.named_buffers())
    assert all(torch.equal(buffers[n], b) for n, b in one.module.named_buffers())


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_tables_that_are_not_stored_are_made(dtype: str) -> None:
    """Rotary angles and CLIP's position numbers; they must not be what memory held."""
    buffers = dict(load(DATA, dtype=dtype).module.named_buffers())
    angles = buffers["model.language_model.rotary_emb.inv_freq"]
    wanted = 10000.0 ** -(torch.arange(0, 10, 2) / 10)
    torch.testing.assert_close(
        angles.float(), wanted, atol=0, rtol=1e-6 if dtype == "float32" else 1e-2
    )
    places = buffers["model.vision_tower.vision_tower.embeddings.position_ids"]
    assert places.tolist() == [list(range(37))]


def test_a_device_map(checkpoint: Path) -> None:
    placed = load(checkpoint, device_map="cpu")
    assert same_weights(load(DATA), placed)


# ---------------------------------------------------------------------- the vision tower


def test_the_tower_may_lie_elsewhere(checkpoint: Path, tmp_path: Path) -> None:
    (checkpoint / "vision_tower").rename(tmp_path / "elsewhere")
    with pytest.raises(CheckpointNotFound, match="vision tower") as missing:
        load(checkpoint)
    assert "options.adapter.vision_tower" in missing.value.hint
    (tmp_path / "empty").mkdir()
    with pytest.raises(CheckpointNotFound, match="vision tower"):
        load(checkpoint, vision_tower=str(tmp_path / "empty"))
    found = load(checkpoint, vision_tower=str(tmp_path / "elsewhere"))
    assert same_weights(load(DATA), found)
    assert found.describe()["vision_tower"]["checkpoint"] == "elsewhere"


def test_the_option_wins_and_is_described(checkpoint: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    shutil.copytree(checkpoint / "vision_tower", other)

    def double(weights: dict[str, torch.Tensor]) -> None:
        weights["vision_model.pre_layrnorm.weight"] *= 2

    rewritten(other / "model.safetensors", double)
    one, two = load(checkpoint), load(checkpoint, vision_tower=str(other))
    assert not same_weights(one, two)
    assert one.describe()["vision_tower"] != two.describe()["vision_tower"]
    assert one.describe()["digest"] == two.describe()["digest"]


def test_a_whole_clip_is_a_tower_too(checkpoint: Path) -> None:
    tower = checkpoint / "vision_tower"

    def whole(weights: dict[str, torch.Tensor]) -> None:
        weights["text_model.embeddings.token_embedding.weight"] = torch.zeros(3, 2)
        weights["vision_model.embeddings.position_ids"] = torch.arange(37)[None]
        for name in ("text_projection.weight", "visual_projection.weight", "logit_scale"):
            weights[name] = torch.zeros(2)

    rewritten(tower / "model.safetensors", whole)
    said = json.loads((tower / "config.json").read_text(encoding="utf-8"))
    both = {"model_type": "clip", "architectures": ["CLIPModel"], "vision_config": said}
    (tower / "config.json").write_text(json.dumps(both), encoding="utf-8")
    assert same_weights(load(DATA), load(checkpoint))


def test_weights_of_a_tower_under_todays_names(checkpoint: Path) -> None:
    file = checkpoint / "vision_tower" / "model.safetensors"
    weights = load_file(file)
    save_file({name.removeprefix("vision_model."): t for name, t in weights.items()}, file)
    assert same_weights(load(DATA), load(checkpoint))


@pytest.mark.parametrize("name", ["post_layernorm.weight", "encoder.layers.10.mlp.fc1.bias"])
def test_a_missing_weight_of_the_tower_is_named(checkpoint: Path, name: str) -> None:
    def drop(weights: dict[str, torch.Tensor]) -> None:
        del weights[f"vision_model.{name}"]

    rewritten(checkpoint / "vision_tower" / "model.safetensors", drop)
    with pytest.raises(CheckpointError, match=rf"missing: .*{name}"):
        load(checkpoint)


def test_a_tower_of_another_width_is_refused(checkpoint: Path) -> None:
    changed(checkpoint / "vision_tower" / "config.json", hidden_size=20)
    with pytest.raises(CheckpointError, match="width 16"):
        load(checkpoint)


def test_a_tower_with_too_few_layers_is_refused(checkpoint: Path) -> None:
    changed(checkpoint / "vision_tower" / "config.json", num_hidden_layers=9)
    with pytest.raises(CheckpointError, match="9 layers"):
        load(checkpoint)


def test_a_config_that_names_no_tower_is_refused(checkpoint: Path) -> None:
    changed(checkpoint / "config.json", vision_tower=None, mm_vision_tower=None)
    with pytest.raises(CheckpointError, match="names no vision tower"):
        load(checkpoint)


@pytest.mark.parametrize(
    ("values", "named"),
    [
        ({"architectures": ["LlavaLlamaForCausalLM"]}, "LlavaLlamaForCausalLM"),
        ({"architectures": None}, "None"),
        ({"mm_vision_select_feature": "cls_patch"}, "cls_patch"),
    ],
)
def test_another_architecture_is_refused(
    checkpoint: Path, values: dict[str, Any], named: str
) -> None:
    changed(checkpoint / "config.json", **values)
    with pytest.raises(CheckpointError, match=named):
        load(checkpoint)


# ---------------------------------------------------------------------- the config alone


def test_the_real_sizes_from_config_json_alone(tmp_path: Path) -> None:
    """What config.json does not say has upstream's values, the published tower's included."""
    said = {name: value for name, value in tiny_config().items() if "golden" not in name}
    said |= {
        "vision_tower": "openai/clip-vit-large-patch14-336",
        "mm_vision_tower": "openai/clip-vit-large-patch14-336", "vocab_size": 32007,
        "hidden_size": 4096, "intermediate_size": 11008, "num_hidden_layers": 32,
        "num_attention_heads": 32, "mm_hidden_size": 1024, "out_dim": 256,
        "torch_dtype": "bfloat16",
    }  # fmt: skip
    (tmp_path / "config.json").write_text(json.dumps(said), encoding="utf-8")
    vlm = skeleton(tmp_path)
    assert vlm.dtype == "bfloat16"
    for pattern, count in (("vision.block.*", 24), ("llm.block.*", 32), ("grounding.block.*", 32)):
        assert len(vlm.sites.resolve(pattern)) == count
    shapes = {name: tuple(tensor.shape) for name, tensor in vlm.module.state_dict().items()}
    sam, regions = "model.grounding_encoder", "model.region_encoder"
    for name, shape in {
        "lm_head.weight": (32007, 4096),
        "model.mm_projector.0.weight": (4096, 1024),
        "model.text_hidden_fcs.0.2.weight": (256, 4096),
        f"{sam}.vision_encoder.layers.0.attn.qkv.weight": (3840, 1280),
        f"{sam}.vision_encoder.layers.0.attn.rel_pos_h": (27, 80),
        f"{sam}.vision_encoder.layers.7.attn.rel_pos_h": (127, 80),
        f"{sam}.vision_encoder.layers.0.mlp.lin1.weight": (5120, 1280),
        f"{sam}.vision_encoder.pos_embed": (1, 64, 64, 1280),
        f"{sam}.vision_encoder.neck.conv1.weight": (256, 1280, 1, 1),
        f"{sam}.shared_image_embedding.positional_embedding": (2, 128),
        f"{sam}.mask_decoder.mask_tokens.weight": (4, 256),
        f"{sam}.mask_decoder.transformer.layers.0.mlp.lin1.weight": (2048, 256),
        f"{sam}.mask_decoder.output_hypernetworks_mlps.3.proj_out.weight": (32, 256),
        f"{sam}.mask_decoder.iou_prediction_head.proj_out.weight": (4, 256),
        f"{sam}.prompt_encoder.mask_embed.conv3.weight": (256, 16, 1, 1),
        f"{regions}.mlvl_fuse.input_conv.3.weight": (1024, 1026, 1, 1),
        f"{regions}.mlvl_fuse.fuse_convs.4.gn.weight": (1024,),
        f"{regions}.roi_align.flatten_linear.weight": (1024, 200704),
        f"{regions}.roi_align.pos_embedd.3.weight": (1024, 256),
        f"{regions}.roi_align.updims.weight": (4096, 1024),
    }.items():
        assert shapes[name] == shape, name
    norms = [m for m in vlm.module.modules() if isinstance(m, torch.nn.GroupNorm)]
    assert {(norm.num_groups, norm.eps) for norm in norms} == {(64, 1e-5)}
    decoder = vlm.module.get_submodule(f"{sam}.mask_decoder.transformer")
    assert {m.eps for m in decoder.modules() if isinstance(m, torch.nn.LayerNorm)} == {1e-5}
    scales = vlm.module.get_submodule(f"{regions}.roi_align.roi_layers")
    assert [m.scale for m in scales] == [8 / 14, 4 / 14, 2 / 14, 1 / 14]  # type: ignore[union-attr]
    assert vlm.widths()["model.text_hidden_fcs.0"] == 256
