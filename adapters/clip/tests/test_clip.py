"""CLIP, SigLIP, SigLIP 2: the conformance kit, and the traps of families that write nothing."""

from __future__ import annotations

import json
import math
import re
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from vlmlens.abc.adapter import LoadRequest
from vlmlens.compose.plan import compose
from vlmlens.errors import CompositionError, DataError, MissingAnnotation
from vlmlens.hf import CropGeometry, PlacedImage, grid_patches
from vlmlens.registry import Registry
from vlmlens.runner.execution import analyze, execute
from vlmlens.samples import Sample
from vlmlens.sites import Axis
from vlmlens.spec.model import RunSpec
from vlmlens.testing._rounding import ROUNDING, close
from vlmlens.testing.tiny import picture
from vlmlens.tokens import PatchGrid
from vlmlens_adapter_clip.adapter import ClipAdapter
from vlmlens_adapter_clip.checks import ClipChecks, Siglip2Checks, SiglipChecks

ALL = pytest.mark.parametrize("kit", [ClipChecks, SiglipChecks, Siglip2Checks])
CHOICES = ("red", "a green thing", "blue")


class TestClip(ClipChecks):
    pass


class TestSiglip(SiglipChecks):
    pass


class TestSiglip2(Siglip2Checks):
    pass


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("vision_model.encoder.layers.1.mlp.fc1", "vision.block.1.mlp.fc1"),
        ("text_model.encoder.layers.1.self_attn.k_proj", "text.block.1.self_attn.k_proj"),
        ("text_model.final_layer_norm", "text.norm"),
        ("vision_model.post_layernorm", "vision.pooled"),
        ("visual_projection", "vision.projection"),
        ("text_projection", "text.projection"),
    ],
)
def test_paths_of_vlm_lens(path: str, name: str) -> None:
    (site,) = ClipChecks().vlm.sites.resolve(path)
    assert (site.name, site.path) == (name, path)


def test_limits_that_are_not_said_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(SiglipChecks, "manifest", replace(SiglipChecks.manifest, limits=()))
    result = SiglipChecks().run_check("limits_are_said")
    assert result.outcome == "failed"
    words = ["edges", "generate", "choices", "gradients", "contributions"]
    assert re.findall(r"word '(.*?)':", result.detail) == words
    clip = ("It cannot generate.", "Scores of choices stay.", "No gradients, no contributions.")
    monkeypatch.setattr(ClipChecks, "manifest", replace(ClipChecks.manifest, limits=clip))
    assert ClipChecks().run_check("limits_are_said").outcome == "passed"


# ---------------------------------------------------------------------- texts


class LeftPadded(ClipAdapter):
    @property
    def padding_side(self) -> str:
        return "left"


class BarelyFilled(ClipAdapter):
    """Fills SigLIP's texts up to the longest of a batch only."""

    def process_texts(self, texts: Sequence[str]) -> dict[str, torch.Tensor]:
        inputs = super().process_texts(texts)
        longest = int((inputs["input_ids"] != self.pad_token_id).sum(1).max())
        return {name: value[:, :longest] for name, value in inputs.items()}


class Masked(ClipAdapter):
    """Hides the filling from SigLIP."""

    def process_texts(self, texts: Sequence[str]) -> dict[str, torch.Tensor]:
        inputs = super().process_texts(texts)
        return {**inputs, "attention_mask": (inputs["input_ids"] != self.pad_token_id).long()}


def test_left_padding_is_caught() -> None:
    cls = type("Left", (ClipChecks,), {"adapter": LeftPadded})
    result = cls().run_check("batch_equals_single")
    assert result.outcome == "failed"
    assert "text.block.0" in result.detail


@pytest.mark.parametrize("mistake", [BarelyFilled, Masked])
def test_siglip_texts_are_filled_up_and_the_filling_is_seen(mistake: type[ClipAdapter]) -> None:
    kit = type("Wrong", (SiglipChecks,), {"adapter": mistake})()
    right, wrong = (
        vlm.trace(vlm.encode(kit.samples), ["text.projection"])["text.projection"]
        for vlm in (SiglipChecks().vlm, kit.vlm)
    )
    assert (right - wrong).abs().max() > 0.01


@pytest.mark.parametrize("kit", [SiglipChecks, Siglip2Checks])
def test_last_is_the_position_that_siglip_reads(kit: Any) -> None:
    vlm = kit().vlm
    trace = vlm.trace(vlm.encode(kit().samples), ["text.norm", "text.projection"])
    head = vlm.module.get_submodule("text_model.head")
    close(head(trace.select("text.norm/last")), trace["text.projection"])


def test_last_is_the_position_that_clip_reads() -> None:
    vlm, samples = ClipChecks().vlm, ClipChecks().samples
    trace = vlm.trace(vlm.encode(samples), ["text.norm", "text.projection"])
    head = vlm.module.get_submodule("text_projection")
    close(head(trace.select("text.norm/last")), trace["text.projection"])


@ALL
def test_texts_that_would_be_cut_are_refused(kit: Any) -> None:
    vlm = kit().vlm
    longest = vlm.config.text_config.max_position_embeddings
    first = kit().samples[0]
    long = replace(first, prompt="a very long text " * 20)
    long_choice = replace(first, choices=("red", "a very long text " * 20))
    with pytest.raises(DataError, match=f"tokens; .* reads {longest}"):
        vlm.encode([kit().samples[1], long])
    with pytest.raises(DataError, match=f"reads {longest}"):
        vlm.choice_scores([long_choice])
    for sample in (long, long_choice):
        assert "a very long text" in vlm.read_prompt(sample).problem
    assert not vlm.read_prompt(replace(first, choices=("red",))).problem


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("kit", [SiglipChecks, Siglip2Checks])
def test_siglip_follows_the_padding_side_of_its_tokenizer(
    kit: Any, side: str, tmp_path: Path
) -> None:
    shutil.copytree(kit().checkpoint, tmp_path, dirs_exist_ok=True)
    settings = tmp_path / "tokenizer_config.json"
    said = {**json.loads(settings.read_text(encoding="utf-8")), "padding_side": side}
    settings.write_text(json.dumps(said), encoding="utf-8")
    vlm = ClipAdapter.load(LoadRequest(model=str(tmp_path), device="cpu"))
    batch = vlm.encode(kit().samples)
    prompts = [sample.prompt for sample in kit().samples]
    theirs = vlm.tokenizer(prompts, padding="max_length", max_length=64, return_tensors="pt")
    assert batch.inputs["input_ids"].tolist() == theirs["input_ids"].tolist()
    found = vlm.trace(batch, ["text.projection"])["text.projection"]
    with torch.inference_mode():
        wanted = vlm.module.get_text_features(input_ids=theirs["input_ids"]).pooler_output
    close(found, wanted)
    last = batch.layout(0).token_ids[-1]
    assert (last == vlm.pad_token_id) == (side == "right")


# ---------------------------------------------------------------------- images


class Squashed(ClipAdapter):
    """Takes SigLIP 2's raster for the square one that its position table has."""

    def patch_grid(self, image: PlacedImage) -> PatchGrid:
        right = super().patch_grid(image)
        return grid_patches(image.image, 4, 4, (1, 1), CropGeometry(4, 4)).take(
            torch.arange(16).numpy()[: len(right)]
        )


def test_a_wrong_raster_is_caught() -> None:
    cls = type("Wrong", (Siglip2Checks,), {"adapter": Squashed})
    result = cls().run_check("layout_is_where_the_image_is")
    assert result.outcome == "failed"


def test_naflex_rasters_have_the_shape_of_the_image() -> None:
    batch = Siglip2Checks().vlm.encode(Siglip2Checks().samples)
    shapes = batch.inputs["spatial_shapes"].tolist()
    assert len({tuple(shape) for shape in shapes}) == 3
    for i, (rows, cols) in enumerate(shapes):
        layout = batch.layout(i, Axis.VISION)
        assert layout.patches is not None
        assert len(layout) == rows * cols == len(layout.patches)
        assert layout.rows[0] == 20 * i


@ALL
@pytest.mark.parametrize("images", [(), (picture(32, 32), picture(32, 32))])
def test_every_sample_needs_exactly_one_image(kit: Any, images: Any) -> None:
    odd = Sample("odd", "?", images, choices=CHOICES)
    for refuse in (kit().vlm.encode, kit().vlm.choice_scores):
        with pytest.raises(DataError, match=f"'odd' has {len(images)} images"):
            refuse([odd])


# ---------------------------------------------------------------------- similarity


@ALL
def test_choice_scores_are_the_softmax_of_transformers_own_similarities(kit: Any) -> None:
    vlm = kit().vlm
    samples = [replace(sample, choices=CHOICES) for sample in kit().samples]
    for sample, scores in zip(samples, vlm.choice_scores(samples), strict=True):
        texts = vlm.process_texts([f"{sample.prompt} {choice}" for choice in CHOICES])
        pixels = vlm.encode([sample]).inputs
        with torch.inference_mode():
            output = vlm.module(**{**pixels, **texts})
        logits = output.logits_per_image[0]
        close(scores, logits.log_softmax(0), scale=max(1.0, float(logits.abs().max())))


class Unnormalized(ClipAdapter):
    def choice_scores(self, samples: Sequence[Sample]) -> list[list[float]]:
        return [[score - 1 for score in scores] for scores in super().choice_scores(samples)]


class Blindfolded(ClipAdapter):
    def open_images(self, samples: Sequence[Sample]) -> list[list[Any]]:
        return [[picture(32, 32)] for _ in samples]


@pytest.mark.parametrize("mistake", [Unnormalized, Blindfolded])
def test_wrong_scores_are_caught(mistake: type[ClipAdapter]) -> None:
    cls = type("Wrong", (ClipChecks,), {"adapter": mistake})
    assert cls().run_check("choice_scores").outcome == "failed"


def test_scores_that_the_manifest_does_not_offer_are_caught() -> None:
    silent = replace(ClipChecks.manifest, offers=frozenset())
    cls = type("Silent", (ClipChecks,), {"manifest": silent})
    assert "does not offer" in cls().run_check("choice_scores").detail


@ALL
def test_projections_are_what_is_compared(kit: Any) -> None:
    vlm = kit().vlm
    batch = vlm.encode(kit().samples)
    trace = vlm.trace(batch, ["vision.projection", "text.projection"])
    image, text = (
        torch.nn.functional.normalize(trace.select(f"{side}.projection/last"), dim=-1)
        for side in ("vision", "text")
    )
    with torch.inference_mode():
        output = vlm.module(**batch.inputs)
    close(image, output.image_embeds)
    close(text, output.text_embeds)


@ALL
def test_an_empty_prompt_leaves_the_choice_alone(kit: Any) -> None:
    vlm = kit().vlm
    bare = replace(kit().samples[0], prompt="", choices=("a red thing", "a blue thing"))
    split = replace(bare, prompt="a", choices=("red thing", "blue thing"))
    assert vlm.choice_scores([bare]) == vlm.choice_scores([split])


@ALL
def test_what_needs_a_language_model_says_that_there_is_none(kit: Any) -> None:
    vlm = kit().vlm
    batch = vlm.encode(kit().samples)
    for call in (
        lambda: vlm.forward(batch, logits="last"),
        lambda: vlm.generate(batch, max_new_tokens=1),
        lambda: vlm.answer_ids("yes"),
        lambda: vlm.encode(kit().samples, answers=["a", "b", "c"]),
    ):
        with pytest.raises(CompositionError, match="no language model head"):
            call()
    assert vlm.readout() is None


# ---------------------------------------------------------------------- composition


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Four pictures of two labels, in sub-folders."""
    for i in range(4):
        folder = tmp_path / "photos" / ("reddish", "greenish")[i % 2]
        folder.mkdir(parents=True, exist_ok=True)
        picture(40, 30, seed=i).save(folder / f"{i}.png")
    return tmp_path / "photos"


def _spec(data: Path, **more: Any) -> RunSpec:
    return RunSpec(
        adapter="siglip", model=str(ClipChecks().checkpoint), data=str(data),
        prompt=["a photo of something"], **more,
    )  # fmt: skip


def test_the_logit_lens_says_why_it_cannot(photos: Path) -> None:
    with pytest.raises(CompositionError, match="needs 'readout', which the adapter 'clip'"):
        compose(_spec(photos, analysis={"logit-lens": {}}), Registry.default())


def test_the_blind_test_compares_choices_and_needs_some(photos: Path, tmp_path: Path) -> None:
    plan = compose(_spec(photos, analysis={"blind-test": {}}), Registry.default())
    assert list(plan.analyses) == ["blind-test"]
    table = tmp_path / "bare.jsonl"
    table.write_text('{"image": "photos/reddish/0.png", "prompt": "a photo"}\n')
    with pytest.raises(MissingAnnotation, match="neither choices nor a label"):
        compose(_spec(table, analysis={"blind-test": {}}), Registry.default())


EDIT = "vision.block.0/image = zero"


@pytest.mark.parametrize("asked", [{"blind-test": {}}, {"probe": {"answers": "ask"}}])
def test_what_compares_choices_is_refused_under_edits(photos: Path, asked: Any) -> None:
    """Composing loads no weights."""
    with pytest.raises(CompositionError, match="outside of its passes") as caught:
        compose(_spec(photos, analysis=asked, edits=[EDIT]), Registry.default())
    assert caught.value.subject in asked


def test_a_run_under_edits_goes_without_them(photos: Path, tmp_path: Path) -> None:
    more = {"sites": ["vision.block.1/image.mean"], "out": str(tmp_path / "run")}
    plan = compose(_spec(photos, edits=[EDIT], **more), Registry.default())
    assert "outside of its passes" in plan.left_out["blind-test"]
    run = execute(plan)
    assert [edit["edit"] for edit in run.info["model"]["edits"]] == [EDIT]
    with pytest.raises(CompositionError, match="outside of its passes"):
        analyze(run, {"blind-test": {}}, Registry.default())


def test_a_run_probes_and_tests_blindly_by_similarity(photos: Path, tmp_path: Path) -> None:
    done = execute(compose(
        _spec(photos, analysis={"blind-test": {}}, out=str(tmp_path / "run")), Registry.default()
    ))  # fmt: skip
    result = done.results["blind-test"]
    assert any("writes nothing" in note for note in result.notes)
    assert "4 samples have no choices" in result.warnings[0]
    vlm = ClipChecks().vlm
    table = result.table("blind-answers").columns
    for name, given, probability in zip(
        table["sample"], table["answer_image"], table["probability_image"], strict=True
    ):
        sample = next(one for one in done.samples if one.id == name)
        closed = replace(sample, choices=("greenish", "reddish"))
        (scores,) = vlm.choice_scores([closed]) or [[]]
        assert given == closed.choices[scores.index(max(scores))]
        logits = 7.4  # as large as they get
        assert probability == pytest.approx(math.exp(max(scores)), abs=ROUNDING * logits)
    with done.store() as store:
        columns = [info.name for info in store.columns()]
    assert columns[0].startswith("vision.block.0/")
    assert "text.block.1/last" in columns


# ------------------------------------------------------------------- without a prompt


def pictures(folder: Path) -> str:
    picture(32, 32).save(folder / "a.png")
    picture(32, 32, seed=1).save(folder / "b.png")
    return str(folder)


def composed(data: str, *sites: str) -> Any:
    spec = RunSpec(
        adapter="clip", model=str(ClipChecks().checkpoint), data=data, sites=list(sites),
        device="cpu",
    )  # fmt: skip
    return compose(spec, Registry.default(), analyse=False)


def test_columns_of_the_vision_tower_need_no_prompt(tmp_path: Path) -> None:
    plan = composed(pictures(tmp_path), "vision.block.*/image.mean", "vision.projection")
    assert len(plan.samples) == 2
    assert any("'a photo' stands in" in note for note in plan.notes)


@pytest.mark.parametrize("sites", [(), ("text.block.0/last",), ("vision.pooled", "text.norm/all")])
def test_columns_that_a_text_reaches_need_one(tmp_path: Path, sites: tuple[str, ...]) -> None:
    with pytest.raises(DataError, match="without a question") as caught:
        composed(pictures(tmp_path), *sites)
    assert "--prompt" in caught.value.hint
    assert "vision.block" in caught.value.hint


def test_other_trouble_with_the_data_is_told_as_it_is(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="No installed dataset reads"):
        composed(str(tmp_path), "vision.block.*/image.mean")
