"""CogVLM: the conformance kit, its layouts, its paths, padding and generation."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

import vlmlens
from vlmlens.abc.adapter import LoadRequest
from vlmlens.cli._app import app
from vlmlens.errors import DataError, SiteNotFound, SiteShapeError
from vlmlens.hf import PlacedImage
from vlmlens.samples import Sample
from vlmlens.sites import Axis
from vlmlens.testing._rounding import close
from vlmlens.testing.tiny import picture
from vlmlens.tokens import PatchGrid, TokenKind
from vlmlens_adapter_cogvlm.adapter import CogVLMAdapter, CogVLMOptions
from vlmlens_adapter_cogvlm.checks import CogVLMChecks, CogVLMEagerChecks
from vlmlens_adapter_cogvlm.model import CogVLMForConditionalGeneration
from vlmlens_adapter_cogvlm.positions import rotary_positions, takes_vision_expert

DATA = Path(__file__).parent / "data" / "cogvlm"
PATCHES = 16


class TestCogVLM(CogVLMChecks):
    pass


class TestCogVLMEager(CogVLMEagerChecks):
    pass


def tiny() -> CogVLMAdapter:
    vlm = CogVLMChecks().vlm
    assert isinstance(vlm, CogVLMAdapter)
    return vlm


def mixed() -> list[Sample]:
    """With an image and without, of several lengths."""
    return [
        Sample("long", "What is the largest thing here?", (picture(64, 48),)),
        Sample("text", "Who are you?"),
        Sample("short", "Hm?", (picture(40, 88, seed=1),)),
    ]


# ---------------------------------------------------------------------- types of tokens


def test_positions_and_experts_by_hand() -> None:
    """A beginning, `boi`, two patches, `eoi`, two words; then the same after padding."""
    types = torch.tensor([[0, 1, 1, 1, 1, 0, 0, 0, 0], [0, 0, 0, 1, 1, 1, 1, 0, 0]])
    mask = torch.tensor([[1] * 9, [0, 0, 1, 1, 1, 1, 1, 1, 1]])
    assert rotary_positions(types, mask).tolist() == [
        [0, 1, 2, 2, 3, 4, 5, 6, 7],
        [0, 0, 1, 2, 3, 3, 4, 5, 6],
    ]
    assert takes_vision_expert(types).int().tolist() == [
        [0, 1, 1, 1, 0, 0, 0, 0, 0],
        [0, 0, 0, 1, 1, 1, 0, 0, 0],
    ]
    ends = torch.tensor([[0, 1, 1, 1]])
    assert rotary_positions(ends, None).tolist() == [[0, 1, 2, 3]]
    assert takes_vision_expert(ends).int().tolist() == [[0, 1, 1, 0]]


def test_padding_on_the_right_changes_nothing() -> None:
    vlm = tiny()
    batch = vlm.encode(mixed())
    inputs = dict(batch.inputs)
    lengths = inputs["attention_mask"].sum(1).tolist()
    assert len(set(lengths)) == 3
    for name in ("input_ids", "token_type_ids", "attention_mask"):
        turned = [row.roll(n) for row, n in zip(inputs[name], lengths, strict=True)]
        inputs[name] = torch.stack(turned)
    assert not inputs["attention_mask"][1, -1]
    with torch.inference_mode():
        left = vlm.module(**batch.inputs, use_cache=False).logits
        right = vlm.module(**inputs, use_cache=False).logits
    for i, n in enumerate(lengths):
        close(left[i, -n:], right[i, :n])


@pytest.mark.parametrize("kit", [CogVLMChecks, CogVLMEagerChecks])
def test_written_tokens_are_those_of_each_sample_alone(kit: type[CogVLMChecks]) -> None:
    vlm = kit().vlm
    together = vlm.generate(vlm.encode(mixed()), max_new_tokens=8)
    alone = [vlm.generate(vlm.encode([sample]), max_new_tokens=8)[0] for sample in mixed()]
    assert [one.token_ids for one in together] == [one.token_ids for one in alone]


@pytest.mark.parametrize("template", ["base", "chat"])
def test_writing_follows_the_passes_without_a_cache(template: str) -> None:
    """Also after a prompt that ends in the image: what is written is text."""
    options = CogVLMOptions(template=template)  # type: ignore[arg-type]
    vlm = CogVLMChecks().load(options=options)
    batch = vlm.encode([Sample("s", "", (picture(64, 48),))])
    inputs = dict(batch.inputs)
    assert int(inputs["token_type_ids"][0, -1]) == (template == "base")
    for step in vlm.generate(batch, max_new_tokens=5)[0].token_ids:
        with torch.inference_mode():
            best = int(vlm.module(**inputs, use_cache=False).logits[0, -1].argmax())
        assert step == best
        for name, value in (("input_ids", step), ("token_type_ids", 0), ("attention_mask", 1)):
            inputs[name] = torch.cat([inputs[name], torch.tensor([[value]])], 1)


def test_generate_needs_no_mask() -> None:
    """transformers would guess one from the padding ids that stand for the image."""
    vlm = tiny()
    inputs = dict(vlm.encode(mixed()[:1]).inputs)
    settings = {"max_new_tokens": 3, "output_logits": True, "return_dict_in_generate": True}
    with torch.inference_mode():
        first = vlm.module.generate(**inputs, **settings)  # type: ignore[operator]
        del inputs["attention_mask"]
        second = vlm.module.generate(**inputs, **settings)  # type: ignore[operator]
    assert torch.equal(torch.stack(first.logits), torch.stack(second.logits))


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"pixel_values": None}, "no pixel_values"),
        ({"token_type_ids": None}, "0 image positions"),
        ({"input_ids": None}, "either"),
        ({"pixel_values": torch.zeros(2, 3, 32, 32)}, "the images 36"),
    ],
)
def test_inputs_that_do_not_fit_are_refused(changes: dict[str, Any], told: str) -> None:
    vlm = tiny()
    with pytest.raises(ValueError, match=told):
        vlm.module(**{**vlm.encode(mixed()[:1]).inputs, **changes})


def test_a_filled_cache_needs_positions() -> None:
    vlm = tiny()
    output = vlm.module(**vlm.encode(mixed()[:1]).inputs, use_cache=True)
    assert output.past_key_values.get_seq_length() > PATCHES
    with pytest.raises(ValueError, match="position_ids"):
        vlm.module(input_ids=torch.tensor([[5]]), past_key_values=output.past_key_values)


def test_attention_weights_of_eager_attention() -> None:
    vlm = CogVLMEagerChecks().vlm
    inputs = vlm.encode(mixed()[:1]).inputs
    with torch.inference_mode():
        output = vlm.module(**inputs, output_attentions=True, output_hidden_states=True)
    length = inputs["input_ids"].shape[1]
    assert [w.shape for w in output.attentions] == [(1, 4, length, length)] * 2
    close(output.attentions[1].sum(-1), 1)
    assert len(output.hidden_states) == 3


def test_the_embedding_site_is_not_overwritten_by_the_image() -> None:
    """Its rows at an image's positions are the padding id's, as upstream's module gives them."""
    vlm = tiny()
    batch = vlm.encode(mixed()[:1])
    table: Any = vlm.module.get_submodule("model.embed_tokens")
    torch.testing.assert_close(
        vlm.trace(batch, ["llm.embed"])["llm.embed"], table(batch.inputs["input_ids"])
    )


def test_bfloat16_keeps_exact_angles() -> None:
    rotary: Any = CogVLMChecks().load(dtype="bfloat16").module.get_submodule("model.rotary_emb")
    assert rotary.inv_freq.dtype == torch.float32
    expected = 10000.0 ** (-torch.arange(0, 8, 2).float() / 8)
    torch.testing.assert_close(rotary.inv_freq, expected)


@pytest.mark.parametrize("device_map", ["cpu", "auto"])
def test_device_map(device_map: str) -> None:
    vlm = CogVLMChecks().load(device_map=device_map)
    batch = vlm.encode(mixed())
    found = vlm.forward(batch, logits="last").logits
    close(found, tiny().forward(batch, logits="last").logits)


# ---------------------------------------------------------------------- layouts


def test_where_the_rows_lie() -> None:
    batch = tiny().encode(mixed())
    kinds = batch.layout(0).kinds.tolist()
    special, image, text = TokenKind.SPECIAL, TokenKind.IMAGE, TokenKind.TEXT
    assert kinds[: PATCHES + 4] == [special, special, *[image] * PATCHES, special, text]
    assert set(kinds[PATCHES + 3 :]) == {text}
    grid = batch.layout(0).patches
    assert grid is not None
    np.testing.assert_allclose(grid.box[0], [0, 0, 0.25, 0.25])
    np.testing.assert_allclose(grid.box[-1], [0.75, 0.75, 1, 1])
    assert batch.layout(1).patches is None
    tower = batch.layouts[Axis.VISION]
    assert tower.total == 2 * (PATCHES + 1)
    assert [len(sample) for sample in tower.samples] == [17, 0, 17]
    assert tower.samples[2].kinds.tolist() == [special, *[image] * PATCHES]
    assert batch.layouts[Axis.PROJECTOR].total == 2 * PATCHES


def test_the_whole_vision_side_has_a_layout_of_its_own() -> None:
    """`model.vision` gives the patches between two ends; their means are the projector's."""
    vlm = tiny()
    trace = vlm.trace(vlm.encode(mixed()[::2]), ["model.vision", "projector"])
    assert trace["model.vision"].shape == (2, PATCHES + 2, 32)
    rows = trace.select("projector/image.mean")
    assert isinstance(rows, torch.Tensor)
    close(trace.select("model.vision/image.mean"), rows)
    ends = trace.select("model.vision/special")
    assert [len(one) for one in ends] == [2, 2]


class EndsAreSwapped(CogVLMAdapter):
    """Believes that both ends come before the patches."""

    def patch_grid(self, image: PlacedImage) -> PatchGrid:
        return super().patch_grid(image).take(np.array([0, -1, *range(1, PATCHES + 1)]))


def test_patches_one_row_off_are_caught() -> None:
    wrong = type("Wrong", (CogVLMChecks,), {"adapter": EndsAreSwapped})
    result = wrong().run_check("layout_is_where_the_image_is")
    assert result.outcome == "failed", result


def test_two_images_are_refused() -> None:
    two = Sample("two", "Compare:", (picture(64, 48), picture(40, 88)))
    with pytest.raises(DataError, match="at most 1") as caught:
        tiny().encode([two])
    assert caught.value.subject == "two"


# ---------------------------------------------------------------------- paths


def test_the_tree_is_upstreams() -> None:
    """But for the rotary module, which stands in each of upstream's layers, and the heads."""
    upstream = (DATA.parent / "module_tree.txt").read_text(encoding="utf-8").split()
    ours = {re.sub(r"\.\d+(?=\.|$)", ".N", path) for path in tiny().sites.modules}
    added = {"model.rotary_emb", "model.layers.N.self_attn.joined_heads"}
    assert ours == {*upstream, *added}
    with pytest.raises(SiteNotFound):
        tiny().sites.resolve("model.layers.0.self_attn.rotary_emb")


def test_experts_see_their_own_rows_only() -> None:
    """As upstream: there is no telling whose row is whose, so nothing can be selected of them."""
    vlm = tiny()
    batch = vlm.encode(mixed())
    path = "model.layers.0.mlp.{}_mlp"
    trace = vlm.trace(batch, [path.format("vision"), path.format("language")])
    shapes = {name.rpartition(".")[2]: tuple(rows.shape) for name, rows in trace.items()}
    positions = batch.inputs["input_ids"].numel()
    vision = 2 * (PATCHES + 1)
    assert shapes == {"vision_mlp": (vision, 32), "language_mlp": (positions - vision, 32)}
    for name in trace:
        with pytest.raises(SiteShapeError):
            trace.select(f"{name}/last")


def full_size(folder: Path) -> Path:
    """A config of the hub's sizes, and nothing else."""
    said = json.loads((DATA / "config.json").read_text(encoding="utf-8"))
    vision = said["vision_config"] | {
        "hidden_size": 1792, "num_hidden_layers": 63, "num_heads": 16, "intermediate_size": 15360,
        "image_size": 490, "num_positions": 1226,
    }  # fmt: skip
    said |= {
        "vision_config": vision, "hidden_size": 4096, "intermediate_size": 11008,
        "num_hidden_layers": 32, "num_attention_heads": 32, "vocab_size": 32000,
        "torch_dtype": "bfloat16",
    }  # fmt: skip
    (folder / "config.json").write_text(json.dumps(said), encoding="utf-8")
    return folder


@pytest.mark.parametrize(
    ("path", "name", "width"),
    [
        ("model.vision.transformer.layers.62", "vision.block.62", 1792),
        ("model.vision.linear_proj", "projector", 4096),
        ("model.layers.31", "llm.block.31", 4096),
        ("model.layers.3.mlp", "llm.block.3.mlp", None),
        ("model.layers.3.self_attn", "llm.block.3.self_attn", None),
        ("model.layers.0.input_layernorm", "llm.block.0.input_layernorm", 4096),
        ("model.norm", "llm.norm", 4096),
        ("lm_head", "llm.head", 32000),
        ("model.vision.patch_embedding", "model.vision.patch_embedding", None),
    ],
)
def test_paths_at_full_size(path: str, name: str, width: int | None, tmp_path: Path) -> None:
    vlm = CogVLMAdapter.skeleton(LoadRequest(model=str(full_size(tmp_path)), device="cpu"))
    (site,) = vlm.sites.resolve(path)
    assert (site.name, site.path) == (name, path)
    assert vlm.widths().get(path) == width
    assert vlm.dtype == "bfloat16"


def test_lengths_at_full_size(tmp_path: Path) -> None:
    """What upstream counted with the real tokenizer."""
    vlm = CogVLMAdapter.skeleton(LoadRequest(model=str(full_size(tmp_path)), device="cpu"))
    (tmp_path / "tokenizer.json").write_bytes((DATA / "tokenizer.json").read_bytes())
    said = json.loads((DATA / "real_tokenizer_layout.json").read_text(encoding="utf-8"))
    for layout in said["layouts"].values():
        assert vlm.processor.slots == layout["num_vision_tokens"]
        assert 1 + vlm.processor.slots + len(layout["text_ids"]) == layout["total_len"]
    layouts = vlm.encode([Sample("s", "What?", (picture(64, 48),))]).layouts
    assert layouts[Axis.VISION].total == 1226
    assert layouts[Axis.PROJECTOR].total == 1225


def test_the_command_line_lists_sites_of_a_config_alone(tmp_path: Path) -> None:
    command = ["sites", "--adapter", "cog-vlm", "--model", str(full_size(tmp_path)), "--json"]
    done = CliRunner().invoke(app, command)
    assert done.exit_code == 0, done.output
    names = [site["site"] for site in json.loads(done.stdout)["sites"]]
    assert len(names) == 63 + 1 + 1 + 32 + 1 + 1
    assert {"vision.block.62", "projector", "llm.block.31", "llm.head"} <= set(names)


# ---------------------------------------------------------------------- a whole run


def test_a_whole_run_on_the_goldens_checkpoint(tmp_path: Path) -> None:
    for seed, label in enumerate(("red", "green")):
        (tmp_path / "photos" / label).mkdir(parents=True)
        for i in range(12):
            file = tmp_path / "photos" / label / f"{i:02d}.png"
            picture(48 + i, 64 - i, seed=seed).save(file)
    run = vlmlens.run(
        adapter="cog_vlm", model=str(DATA), data=str(tmp_path / "photos"), prompt="What is it?",
        device="cpu", out=str(tmp_path / "run"), analysis=["probe", "logit-lens", "blind-test"],
        sites=["vision.block.*/image.mean", "projector/image.mean", "llm.block.*/last",
               "model.layers.1.mlp/last", "model.vision/image.mean"],
    )  # fmt: skip
    assert run.info["state"] == "finished"
    assert set(run.results) == {"probe", "logit-lens", "blind-test"}
    assert all(result.findings for result in run.results.values())
    assert all(len(run.activations[name]) == 24 for name in run.activations)
    assert run.info["model"]["class"] == CogVLMForConditionalGeneration.__name__
    assert run.info["model"]["template"] == "chat"
