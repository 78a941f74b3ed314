"""MiniCPM-V 2, V 2.6 and o 2.6: what is chosen, what is hooked, what prompts look like."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import CliRunner

import vlmlens
from vlmlens.abc import Batch
from vlmlens.abc.adapter import LoadRequest
from vlmlens.cli._app import app
from vlmlens.errors import DataError
from vlmlens.samples import Sample
from vlmlens.sites import Axis
from vlmlens.testing.adapter import distance, replaced
from vlmlens.testing.tiny import picture
from vlmlens.tokens import TokenKind
from vlmlens_adapter_minicpm.adapter import MiniCpmAdapter
from vlmlens_adapter_minicpm.checks import MiniCpm46Checks
from vlmlens_adapter_minicpm.older.adapter import MiniCpm2Adapter, MiniCpm26Adapter
from vlmlens_adapter_minicpm.older.checks import MiniCpm2Checks, MiniCpm26Checks, MiniCpmO26Checks
from vlmlens_adapter_minicpm.older.slicing import Slicing
from vlmlens_adapter_minicpm.older.towers import buckets

DATA = Path(__file__).parent / "data"
OLDER = (MiniCpm2Checks, MiniCpm26Checks, MiniCpmO26Checks)

V2 = {
    "architectures": ["MiniCPMV"], "attention_bias": False, "model_type": "minicpmv",
    "auto_map": {"AutoModel": "modeling_minicpmv.MiniCPMV"}, "bos_token_id": 1, "eos_token_id": 2,
    "dim_model_base": 256, "drop_vision_last_layer": True, "hidden_act": "silu",
    "hidden_size": 2304, "image_size": 448, "intermediate_size": 5760, "max_slice_nums": 9,
    "max_position_embeddings": 4096, "mm_use_im_start_end": True, "num_attention_heads": 36,
    "num_hidden_layers": 40, "num_key_value_heads": 36, "patch_size": 14, "pretraining_tp": 1,
    "query_num": 64, "rms_norm_eps": 1e-5, "rope_scaling": None, "rope_theta": 1e4,
    "scale_depth": 1.4, "scale_emb": 12, "scale_resolution": 448, "slice_mode": True,
    "tie_word_embeddings": False, "torch_dtype": "bfloat16", "vocab_size": 122753,
    "vision_encoder": "vit_so400m_patch14_siglip_384.webli",
}  # fmt: skip
V26 = {
    "version": 2.6, "architectures": ["MiniCPMV"], "model_type": "minicpmv", "hidden_act": "silu",
    "hidden_size": 3584, "intermediate_size": 18944, "num_hidden_layers": 28,
    "num_attention_heads": 28, "num_key_value_heads": 4, "vocab_size": 151666, "query_num": 64,
    "rms_norm_eps": 1e-6, "rope_theta": 1e6, "max_position_embeddings": 32768, "patch_size": 14,
    "use_sliding_window": False, "tie_word_embeddings": False, "drop_vision_last_layer": False,
    "slice_mode": True, "slice_config": {"max_slice_nums": 9, "patch_size": 14},
    "torch_dtype": "bfloat16",
    "vision_config": {
        "hidden_size": 1152, "image_size": 980, "intermediate_size": 4304, "patch_size": 14,
        "model_type": "siglip_vision_model", "num_attention_heads": 16, "num_hidden_layers": 27,
    },
}  # fmt: skip
"""The hub's configs; the weights of MiniCPM-V 2.6 are 16198350304 bytes there."""


def written(folder: Path, said: dict[str, Any]) -> str:
    (folder / "config.json").write_text(json.dumps(said), encoding="utf-8")
    return str(folder)


def skeleton(folder: Path, said: dict[str, Any]) -> MiniCpmAdapter:
    return MiniCpmAdapter.skeleton(LoadRequest(model=written(folder, said), device="cpu"))


def sample(prompt: str = "What is this?", *sizes: tuple[int, int], name: str = "s") -> Sample:
    return Sample(name, prompt, tuple(picture(*size, seed=i) for i, size in enumerate(sizes)))


# ---------------------------------------------------------------------- which class, which sites


def test_the_config_chooses() -> None:
    assert type(MiniCpm46Checks().vlm) is MiniCpmAdapter
    chosen = [type(checks().vlm) for checks in OLDER]
    assert chosen == [MiniCpm2Adapter, MiniCpm26Adapter, MiniCpm26Adapter]
    assert all(issubclass(one, MiniCpmAdapter) for one in chosen)


def test_full_sizes(tmp_path: Path) -> None:
    both = first, later = skeleton(tmp_path, V2), skeleton(tmp_path, V26)
    modules: list[Any] = [vlm.module for vlm in both]
    assert type(first) is MiniCpm2Adapter
    assert type(later) is MiniCpm26Adapter
    assert sum(p.numel() for p in later.module.parameters()) * 2 == 16198350304
    assert [len(vlm.sites.resolve("vision.block.*")) for vlm in both] == [26, 27]
    assert [len(vlm.sites.resolve("llm.block.*")) for vlm in both] == [40, 28]
    assert modules[0].vpm.pos_embed.shape == (1, 729, 1152)
    assert [module.resampler.attn.heads for module in modules] == [18, 28]
    assert first.config.head_divisor == 9
    assert first.dtype == later.dtype == "bfloat16"


OF_LLM = (
    "llm", "llm.lm_head", "llm.model", "llm.model.norm", "llm.model.embed_tokens",
    "llm.model.layers.1", "llm.model.layers.1.self_attn", "llm.model.layers.1.self_attn.q_proj",
    "llm.model.layers.1.mlp.gate_proj", "llm.model.layers.1.input_layernorm",
)  # fmt: skip
OF_RESAMPLER = (
    "resampler", "resampler.kv_proj", "resampler.attn", "resampler.attn.out_proj",
    "resampler.ln_post", "resampler.ln_kv",
)  # fmt: skip
OF_V2 = (
    "vpm", "vpm.patch_embed", "vpm.patch_embed.proj", "vpm.blocks.1", "vpm.blocks.1.attn",
    "vpm.blocks.1.attn.qkv", "vpm.blocks.1.attn.proj", "vpm.blocks.1.mlp", "vpm.blocks.1.mlp.fc1",
    "vpm.blocks.1.mlp.act", "vpm.blocks.1.norm2", "vpm.norm",
)  # fmt: skip
OF_V26 = (
    "vpm", "vpm.embeddings", "vpm.embeddings.patch_embedding", "vpm.encoder",
    "vpm.encoder.layers.1", "vpm.encoder.layers.1.self_attn", "vpm.post_layernorm",
    "vpm.encoder.layers.1.self_attn.q_proj", "vpm.encoder.layers.1.mlp.fc1",
    "vpm.encoder.layers.1.layer_norm1",
)  # fmt: skip


@pytest.mark.parametrize("checks", OLDER)
def test_upstreams_paths_are_sites_that_give_rows(checks: type[MiniCpm26Checks]) -> None:
    """Every path runs once per pass, and its rows are where its layout says."""
    vlm = checks().vlm
    tower = OF_V2 if checks is MiniCpm2Checks else OF_V26
    axes = {Axis.LLM: OF_LLM, Axis.PROJECTOR: OF_RESAMPLER, Axis.VISION: tower}
    batch = vlm.encode([sample("?", (64, 48)), sample("And this?", (24, 24), name="t")])
    for axis, path in ((axis, path) for axis, paths in axes.items() for path in paths):
        (site,) = vlm.sites.resolve(path)
        assert site.axis is axis
        trace = vlm.trace(batch, [path], logits="all")
        whole = trace.select(f"{site.name}/all")
        alone = vlm.trace(vlm.encode([batch.samples[1]]), [path], logits="all")
        assert distance(alone.select(f"{site.name}/all")[0], whole[1]) < 2e-5, path


def test_names_of_upstreams_paths() -> None:
    first, later = MiniCpm2Checks().vlm, MiniCpm26Checks().vlm
    names = {"vpm.blocks.1.attn.qkv": "vision.block.1.attn.qkv", "vpm.norm": "vision.norm",
             "resampler": "projector", "llm.model.layers.0.mlp": "llm.block.0.mlp",
             "llm.lm_head": "llm.head"}  # fmt: skip
    assert [first.sites.resolve(path)[0].name for path in names] == list(names.values())
    (site,) = later.sites.resolve("vpm.encoder.layers.1.mlp.fc1")
    assert site.name == "vision.block.1.mlp.fc1"
    with pytest.raises(vlmlens.errors.SiteNotFound, match=r"vpm\.encoder"):
        first.sites.resolve("vpm.encoder.layers.1")


@pytest.mark.parametrize("path", ["vpm.encoder.layers.26", "llm.model.layers.27", "llm.lm_head"])
def test_the_command_line_lists_sites_of_a_config_alone(tmp_path: Path, path: str) -> None:
    command = ["sites", "--adapter", "minicpm", "--model", written(tmp_path, V26), "--json"]
    done = CliRunner().invoke(app, command)
    assert done.exit_code == 0, done.output
    assert path in [site["path"] for site in json.loads(done.stdout)["sites"]]


def test_an_edit_of_the_projector_reaches_the_language_model() -> None:
    for checks in OLDER:
        vlm = checks().vlm
        batch = vlm.encode([sample("?", (64, 48))])
        plain = vlm.trace(batch, ["projector"], logits="last")
        gone = vlm.trace(batch, [], logits="last", edits={"projector": torch.zeros_like})
        assert distance(plain.logits, gone.logits) > 1e-2


# ---------------------------------------------------------------------- layouts


@pytest.mark.parametrize("checks", OLDER)
def test_slices_are_named_in_order(checks: type[MiniCpm26Checks]) -> None:
    vlm = checks().vlm
    batch = vlm.encode([sample("?", (24, 24)), sample("?", (64, 48)), sample("?")])
    sizes, length = batch.inputs["target_sizes"], batch.inputs["pixel_values"].shape[1]
    assert len(sizes) == 1 + 5
    none, some = batch.layout(0, Axis.VISION), batch.layout(1, Axis.VISION)
    assert list(dict.fromkeys(some.patches.view)) == ["global", *(f"tile {i}" for i in range(4))]  # type: ignore[union-attr]
    assert none.rows.tolist() == list(range(int(sizes[0].prod())))
    firsts = [int(rows) for rows in some.rows if rows % length == 0]
    assert firsts == [slice_ * length for slice_ in range(1, 6)]
    assert len(some) == int(sizes[1:].prod(1).sum())
    assert len(batch.layout(2, Axis.VISION)) == len(batch.layout(2, Axis.PROJECTOR)) == 0
    assert [len(batch.layout(i, Axis.PROJECTOR)) for i in (0, 1)] == [3, 15]
    kinds = batch.layout(1).kinds
    assert int((kinds == TokenKind.IMAGE).sum()) == 15
    assert batch.layout(1).patches is None


class Unpadded(MiniCpm26Adapter):
    """Forgets that slices are filled up."""

    def image_layouts(self, images: Any, grids: Any) -> Any:
        layouts = super().image_layouts(images, grids)
        packed = 0
        for one in layouts[Axis.VISION].samples:
            one.rows[:] = range(packed, packed + len(one))
            packed += len(one)
        return layouts


@pytest.mark.parametrize("check", ["layout_is_where_the_image_is", "batch_equals_single"])
def test_a_wrong_layout_is_caught(check: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from vlmlens_adapter_minicpm.older import adapter
    from vlmlens_adapter_minicpm.older.config import Generation

    chosen = {**adapter.GENERATIONS, Generation.V26: Unpadded}
    monkeypatch.setattr(adapter, "GENERATIONS", chosen)
    kit: Any = type("Kit", (MiniCpm26Checks,), {"adapter": MiniCpmAdapter})()
    assert isinstance(kit.vlm, Unpadded)
    assert kit.run_check(check).outcome == "failed"


# ---------------------------------------------------------------------- prompts


def text_of(checks: type[MiniCpm26Checks], *samples: Sample) -> str:
    vlm = checks().vlm
    layout = vlm.encode(samples).layout(0)
    assert layout.token_ids is not None
    return vlm.decode(layout.token_ids.tolist())


def test_images_are_numbered() -> None:
    one = "<image>" + "<unk>" * 3 + "</image>"
    text = text_of(MiniCpmO26Checks, sample("Which?", (20, 24), (24, 20)))
    assert f"user\n<image_id>0</image_id>{one}\n<image_id>1</image_id>{one}\nWhich?<" in text
    assert text_of(MiniCpm26Checks, sample("Hm?")).endswith(
        "<|im_start|>user\nHm?<|im_end|>\n<|im_start|>assistant\n"
    )


def test_the_first_generation_without_an_image() -> None:
    vlm = MiniCpm2Checks().vlm
    ids = vlm.encode([sample("Hm?")]).inputs["input_ids"][0].tolist()
    assert ids[0] == 1
    assert vlm.decode(ids[1:]).strip() == "<用户>Hm?<AI>"


def test_the_first_generation_takes_one_image() -> None:
    with pytest.raises(DataError, match="2 images") as caught:
        MiniCpm2Checks().vlm.encode([sample("?", (9, 9), (9, 9), name="two")])
    assert caught.value.subject == "two"


@pytest.mark.parametrize("checks", OLDER)
@pytest.mark.parametrize("mark", ["<image>", "</image>", "<image><unk><unk><unk></image>"])
def test_marks_in_a_prompt_are_refused(checks: type[MiniCpm26Checks], mark: str) -> None:
    for asked in (sample(f"Is {mark} here?", (24, 24)), sample(f"Is {mark} here?")):
        with pytest.raises(DataError, match="is a token for images or videos"):
            checks().vlm.encode([asked])


def test_an_image_without_its_place_is_an_error() -> None:
    vlm = MiniCpm26Checks().vlm
    batch = vlm.encode([sample("?", (24, 24))])
    types = batch.inputs["mm_token_type_ids"]
    for wrong in (torch.zeros_like(types), None):
        with pytest.raises(ValueError, match="0 image positions, 3 tokens"):
            vlm.forward(replaced(batch, mm_token_type_ids=wrong))


# ---------------------------------------------------------------------- what is not attended to


def holes(batch: Batch) -> torch.Tensor:
    """The mask that MiniCPM-V 2.6's own processor makes of a prompt."""
    ids: torch.Tensor = batch.inputs["input_ids"]
    return (ids != 0).long()


def plainly(vlm: Any, batch: Batch, mask: torch.Tensor, steps: int = 0) -> Any:
    """Logits of the whole sequence, or greedy ids, with positions 0, 1, 2, ... and that mask."""
    ids, types = batch.inputs["input_ids"], batch.inputs["mm_token_type_ids"]
    images = {name: batch.inputs[name] for name in ("pixel_values", "target_sizes")}
    for step in range(steps + 1):
        places = torch.arange(ids.shape[1])[None]
        with torch.inference_mode():
            logits = vlm.module(
                ids, attention_mask=mask, position_ids=places, mm_token_type_ids=types, **images
            ).logits
        if step == steps:
            return ids[0, ids.shape[1] - steps :].tolist() if steps else logits
        ids = torch.cat([ids, logits[:, -1:].argmax(-1)], 1)
        mask = torch.nn.functional.pad(mask, (0, 1), value=1)
        types = torch.nn.functional.pad(types, (0, 1))
    raise AssertionError


def test_an_exclamation_mark_is_not_attended_to_in_v26_alone() -> None:
    asked = sample("Stop! What! is this?", (24, 24))
    for checks, hidden in ((MiniCpm26Checks, True), (MiniCpmO26Checks, False)):
        vlm = checks().vlm
        batch = vlm.encode([asked])
        assert int((holes(batch) == 0).sum()) == 2
        ones = torch.ones_like(holes(batch))
        masks = {True: holes(batch), False: ones}
        found = vlm.forward(batch, logits="all").logits
        assert distance(plainly(vlm, batch, masks[hidden]), found) < 2e-5
        assert distance(plainly(vlm, batch, masks[not hidden]), found) > 1e-3
        (new,) = vlm.generate(batch, max_new_tokens=5)
        assert list(new.token_ids) == plainly(vlm, batch, masks[hidden], len(new.token_ids))
        assert vlm.describe()["unattended_id"] == (0 if hidden else None)


def test_a_mark_that_is_not_attended_to_is_still_a_token() -> None:
    vlm = MiniCpm26Checks().vlm
    asked = sample("Stop! What?", (24, 24))
    batch = vlm.encode([asked, sample("A much longer question than that! Or is it?", name="t")])
    ids = batch.layout(0).token_ids
    assert ids is not None
    assert "Stop! What?" in vlm.decode(ids.tolist())
    together = vlm.trace(batch, ["llm.block.1"]).select("llm.block.1/all")
    alone = vlm.trace(vlm.encode([asked]), ["llm.block.1"]).select("llm.block.1/all")
    assert distance(alone[0], together[0]) < 2e-5


def test_a_mark_in_an_answer_is_attended_to() -> None:
    """As if the model had written it."""
    vlm = MiniCpm26Checks().vlm
    batch = vlm.encode([sample("Stop! What?", (24, 24))], answers=["Oh! no"])
    prompt = batch.inputs["input_ids"].shape[1] - len(vlm.answer_ids("Oh! no"))
    unattended = batch.inputs["unattended"][0]
    assert int(unattended[:prompt].sum()) == 1
    assert not unattended[prompt:].any()
    assert (batch.inputs["input_ids"][0, prompt:] == 0).any()


def test_what_is_left_out_is_said() -> None:
    said = [checks().vlm.describe() for checks in OLDER]
    assert said[2]["left_out"] == ["apm", "audio_projection_layer", "tts"]
    assert all("left_out" not in one for one in said[:2])
    assert [one["generation"] for one in said] == ["MiniCPM-V 2", "MiniCPM-V 2.6", "MiniCPM-o 2.6"]


# ---------------------------------------------------------------------- tables, a whole run


def test_slices_of_real_sizes() -> None:
    rows = json.loads((DATA / "slicing_fullsize.json").read_text(encoding="utf-8"))["rows"]
    assert len(rows) > 10
    for row in rows:
        cut = Slicing(448, 14, 9).cut(row["width"], row["height"])
        assert (list(cut.grid) if cut.grid else None) == row["grid_cols_rows"], row
        assert list(cut.source) == row["source_size_wh"], row
        assert (list(cut.size) if cut.grid else None) == row["slice_size_wh"], row


def test_buckets_of_real_positions() -> None:
    path = DATA / "navit_buckets_70.json"
    table = json.loads(path.read_text(encoding="utf-8"))["buckets"]
    assert len(table) == 70
    for number, row in table.items():
        assert list(buckets(int(number), 70)) == row
    floors = [n for n in range(1, 71) if list(buckets(n, 70)) != [i * 70 // n for i in range(n)]]
    assert floors == [25, 49, 50, 55, 58]


@pytest.mark.parametrize("golden", ["v2", "v2_6", "o_2_6"])
def test_a_whole_run_on_the_goldens_checkpoint(golden: str, tmp_path: Path) -> None:
    for seed, label in enumerate(("red", "green")):
        (tmp_path / "photos" / label).mkdir(parents=True)
        for i in range(12):
            file = tmp_path / "photos" / label / f"{i:02d}.png"
            picture(40 + i, 52 - i, seed=seed).save(file)
    vision = "vpm.blocks.1" if golden == "v2" else "vpm.encoder.layers.1"
    run = vlmlens.run(
        adapter="minicpm", model=str(DATA / golden), data=str(tmp_path / "photos"), device="cpu",
        prompt="What color?", out=str(tmp_path / "run"),
        analysis=["probe", "logit-lens", "blind-test"],
        sites=["vision.block.*/image.mean", "projector/image.mean", "llm.block.*/last",
               f"{vision}.mlp/image.mean", "llm.model.layers.1.mlp/last"],
    )  # fmt: skip
    assert run.info["state"] == "finished"
    assert set(run.results) == {"probe", "logit-lens", "blind-test"}
    assert all(result.findings for result in run.results.values())
    assert all(len(run.activations[name]) == 24 for name in run.activations)
