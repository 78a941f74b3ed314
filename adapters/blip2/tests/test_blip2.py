"""BLIP-2: the conformance kit on both language models, and the traps of the family."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from vlmlens.abc.adapter import LoadRequest
from vlmlens.errors import CheckpointError, CompositionError, DataError, EditError, SiteSilent
from vlmlens.passes.edits import WrittenEdit
from vlmlens.samples import Sample
from vlmlens.sites import Axis, SiteTemplate
from vlmlens.testing._rounding import close
from vlmlens.testing.tiny import picture
from vlmlens.tokens import TokenKind
from vlmlens_adapter_blip2.adapter import Blip2Adapter
from vlmlens_adapter_blip2.checks import FlanT5Checks, OptChecks

BOTH = pytest.mark.parametrize("kit", [OptChecks, FlanT5Checks])


class TestOpt(OptChecks):
    pass


class TestFlanT5(FlanT5Checks):
    pass


@pytest.mark.parametrize(
    ("legacy", "name", "path"),
    [
        ("vision_model.post_layernorm", "vision.norm", "vision_model.post_layernorm"),
        ("vision_model.encoder.layers.2.mlp.fc1", "vision.block.2.mlp.fc1",
         "vision_model.encoder.layers.2.mlp.fc1"),
        ("qformer.encoder.layer.1.output_query.dense", "qformer.block.1.output_query.dense",
         "qformer.encoder.layer.1.output_query.dense"),
        ("language_model.model.decoder.layers.1.final_layer_norm",
         "llm.block.1.final_layer_norm", "language_model.model.decoder.layers.1.final_layer_norm"),
        ("language_projection", "projector", "language_projection"),
    ],
)  # fmt: skip
def test_paths_of_vlm_lens(legacy: str, name: str, path: str) -> None:
    (site,) = OptChecks().vlm.sites.resolve(legacy)
    assert (site.name, site.path) == (name, path)


# ---------------------------------------------------------------------- modules that fire oddly


@BOTH
def test_the_two_calls_of_the_vision_norm_are_two_sites(kit: Any) -> None:
    vlm, samples = kit().vlm, kit().samples
    batch = vlm.encode(samples)
    trace = vlm.trace(batch, ["vision.block.*", "vision.norm", "vision.pooled"])
    norm = vlm.module.get_submodule("vision_model.post_layernorm")
    everything = norm(trace["vision.block.2"])
    close(trace["vision.norm"], everything)
    close(trace.select("vision.pooled/last"), norm(everything[:, 0]))
    assert trace["vision.norm"].ndim == 3


def test_not_to_say_which_call_is_meant_is_an_error() -> None:
    vague = SiteTemplate("vision.norm", ("vision_model.post_layernorm",), Axis.VISION)
    cls = type("Vague", (Blip2Adapter,), {"templates": (vague,)})
    vlm = cls.load(LoadRequest(str(OptChecks().checkpoint), device="cpu"))
    with pytest.raises(SiteSilent, match=r"ran 2 times.*"):
        vlm.trace(vlm.encode(OptChecks().samples), ["vision.norm"])


def test_a_module_that_never_runs_is_an_error() -> None:
    vlm = OptChecks().vlm
    with pytest.raises(SiteSilent, match="did not run"):
        vlm.trace(vlm.encode(OptChecks().samples), ["language_model.model"])


def test_the_flattened_norm_of_an_opt_layer_is_read_per_sample() -> None:
    kit = OptChecks()
    batch = kit.vlm.encode(kit.samples)
    trace = kit.vlm.trace(batch, ["llm.block.0.final_layer_norm"])
    assert trace["llm.block.0.final_layer_norm"].ndim == 2
    together = trace.select("llm.block.0.final_layer_norm/last")
    for i, sample in enumerate(kit.samples):
        one = kit.vlm.encode([sample])
        alone = kit.vlm.trace(one, ["llm.block.0.final_layer_norm"])
        close(together[i], alone.select("llm.block.0.final_layer_norm/last")[0])


# ---------------------------------------------------------------------- layouts


@BOTH
def test_queries_have_no_place_and_patches_have(kit: Any) -> None:
    batch = kit().vlm.encode(kit().samples)
    prompt = batch.layout(0, Axis.LLM if kit is OptChecks else Axis.ENCODER)
    assert prompt.kinds[:32].tolist() == [TokenKind.IMAGE] * 32
    assert prompt.patches is None
    assert batch.layout(0, Axis.PROJECTOR).patches is None
    vision = batch.layout(0, Axis.VISION)
    assert vision.kinds[0] == TokenKind.SPECIAL
    assert vision.patches is not None
    assert len(vision.patches) == len(vision) - 1 == 16


def test_the_encoder_holds_the_prompt_and_the_decoder_the_answer() -> None:
    kit = FlanT5Checks()
    batch = kit.vlm.encode(kit.samples, answers=["a", "bcd", "ef"])
    start = kit.vlm.config.text_config.decoder_start_token_id  # type: ignore[attr-defined]
    for i, length in enumerate((1, 3, 2)):
        decoder = batch.layout(i)
        assert decoder.token_ids is not None
        assert decoder.token_ids[0] == start
        assert decoder.kinds.tolist() == [TokenKind.SPECIAL] + [TokenKind.ANSWER] * length
        assert TokenKind.ANSWER not in batch.layout(i, Axis.ENCODER).kinds


def test_encoder_blocks_equal_transformers_own_hidden_states() -> None:
    kit = FlanT5Checks()
    batch = kit.vlm.encode(kit.samples)
    trace = kit.vlm.trace(batch, ["llm.encoder.block.*", "llm.encoder.norm"])
    with torch.inference_mode():
        output = kit.vlm.module(**batch.inputs, output_hidden_states=True)
    states = output.language_model_outputs.encoder_hidden_states
    close(trace["llm.encoder.block.0"], states[1])
    close(trace["llm.encoder.norm"], states[-1])


@pytest.mark.parametrize("how", ["cut", "cut(renormalise=false)"])
def test_cross_attention_is_not_cut(how: str) -> None:
    """Its keys are rows of the encoder, and selectors of the decoder's would name others."""
    vlm = FlanT5Checks().vlm
    batch = vlm.encode(FlanT5Checks().samples[:1], answers=["yes"])
    edit = WrittenEdit.parse(f"llm.block.0.layer.1.EncDecAttention / last <- all[0] = {how}").cut
    with vlm.edited([edit]), pytest.raises(EditError, match="cross-attention"):
        vlm.forward(batch)


class LeftPadded(Blip2Adapter):
    @property
    def padding_side(self) -> str:
        return "left"


def test_left_padding_of_flan_t5_is_caught() -> None:
    cls = type("Left", (FlanT5Checks,), {"adapter": LeftPadded})
    result = cls().run_check("batch_equals_single")
    assert result.outcome == "failed"
    assert "llm.encoder.block.0" in result.detail


# ---------------------------------------------------------------------- processor


def test_a_tokenizer_that_knows_the_image_token_already_works(tmp_path: Path) -> None:
    folder = tmp_path / "named"
    shutil.copytree(OptChecks().checkpoint, folder)
    file = folder / "tokenizer_config.json"
    settings = json.loads(file.read_text())
    settings["extra_special_tokens"] = {"image_token": "<image>"}
    file.write_text(json.dumps(settings))
    vlm = Blip2Adapter.load(LoadRequest(str(folder), device="cpu"))
    assert vlm.tokenizer.image_token == "<image>"
    plain, named = (v.encode(OptChecks().samples) for v in (OptChecks().vlm, vlm))
    assert (plain.inputs["input_ids"] == named.inputs["input_ids"]).all()


@BOTH
def test_a_processor_that_leaves_the_image_out_is_refused(kit: Any, tmp_path: Path) -> None:
    folder = tmp_path / "old"
    shutil.copytree(kit().checkpoint, folder)
    file = folder / "processor_config.json"
    settings = json.loads(file.read_text())
    assert settings.pop("num_query_tokens") == 32
    file.write_text(json.dumps(settings))
    vlm = Blip2Adapter.load(LoadRequest(str(folder), device="cpu"))
    with pytest.raises(CheckpointError, match="32 image tokens"):
        vlm.encode(kit().samples)


@pytest.mark.parametrize("images", [(), (picture(32, 32), picture(32, 32))])
def test_every_sample_needs_exactly_one_image(images: Any) -> None:
    with pytest.raises(DataError, match=f"'odd' has {len(images)} images"):
        OptChecks().vlm.encode([OptChecks().samples[0], Sample("odd", "?", images)])


# ---------------------------------------------------------------------- logits and text


@BOTH
def test_last_logits_are_the_last_of_all(kit: Any) -> None:
    vlm = kit().vlm
    batch = vlm.encode(kit().samples, answers=["a", "bcd", "ef"])
    every = vlm.forward(batch, logits="all").logits.flatten(0, 1)
    last = torch.stack([every[batch.layout(i).rows[-1]] for i in range(3)])
    close(vlm.forward(batch, logits="last").logits, last)


@BOTH
def test_generation_goes_on_from_an_answer(kit: Any) -> None:
    vlm, sample = kit().vlm, kit().samples[0]
    text = vlm.generate(vlm.encode([sample], answers=["yes"]), max_new_tokens=1)[0].text
    logits = vlm.forward(vlm.encode([sample], answers=["yes"]), logits="last").logits
    assert text == vlm.tokenizer.decode(logits.argmax(-1), skip_special_tokens=True)


def test_an_encoder_decoder_does_not_go_on_from_unequal_answers() -> None:
    kit = FlanT5Checks()
    batch = kit.vlm.encode(kit.samples, answers=["a", "bcd", "ef"])
    with pytest.raises(CompositionError, match="answers of different lengths"):
        kit.vlm.generate(batch, max_new_tokens=1)
