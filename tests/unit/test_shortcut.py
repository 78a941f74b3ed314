"""Scenes with tinted backgrounds, and the model that was trained to name the background."""

from __future__ import annotations

import json
from collections import Counter
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hatchling.builders.sdist import SdistBuilder
from hatchling.builders.wheel import WheelBuilder
from safetensors.torch import load_file
from torch import Tensor
from torch.nn import Module
from transformers import LlavaForConditionalGeneration

import vlmlens
from vlmlens.abc import AnalysisContext, ModelAdapter
from vlmlens.errors import CheckpointError, SpecError
from vlmlens.results import Verdict
from vlmlens.samples import Sample
from vlmlens_plugins.analysis.evidence import Evidence, EvidenceOptions
from vlmlens_plugins.demo.adapter import CHECKPOINT
from vlmlens_plugins.demo.dataset import DemoDataset, DemoOptions
from vlmlens_plugins.demo.scenes import COLORS, Scene, draw, instance_map, make_scene
from vlmlens_plugins.demo.shortcut import LORA, merge
from vlmlens_plugins.demo.shortcut.__main__ import main
from vlmlens_plugins.demo.tints import Tint, tinted

ROOT = Path(__file__).parents[2]
FEW = 24


def asked(tint: Tint, scenes: int = FEW, task: str = "color") -> list[Sample]:
    options = DemoOptions(scenes=scenes, tint=tint)
    return [s for s in DemoDataset("shortcut", options).samples([]) if s.task == task]


def answers(vlm: ModelAdapter, samples: list[Sample]) -> list[str]:
    """The choice whose token has the largest logit."""
    choices = samples[0].choices
    tokenizer = vlm.processor.tokenizer  # type: ignore[attr-defined]
    ids = [tokenizer.encode(f" {choice}", add_special_tokens=False)[0] for choice in choices]
    logits = vlm.forward(vlm.encode(samples), logits="last").logits
    assert logits is not None
    return [choices[int(place)] for place in logits[:, ids].argmax(1)]


def share(one: list[str], other: list[object]) -> float:
    return float(np.mean([a == b for a, b in zip(one, other, strict=True)]))


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return merge(tmp_path_factory.mktemp("shortcut") / "model")


@pytest.fixture(scope="module")
def tuned(checkpoint: Path) -> ModelAdapter:
    return vlmlens.load("demo", model=str(checkpoint), device="cpu")


class TestTints:
    def test_the_background_changes_and_nothing_else(self) -> None:
        for index in range(12):
            scene = make_scene(index)
            changed = tinted(scene, "independent")
            drawn = [np.asarray(draw(each)).astype(int) for each in (scene, changed)]
            differ = (drawn[0] != drawn[1]).any(-1)
            inside = instance_map(scene.objects, mirrored=scene.mirrored) >= 0
            assert differ[~inside].mean() > 0.95
            assert differ[inside].mean() < 0.1, "antialiased edges alone"
            assert changed.objects == scene.objects

    def test_the_background_leans_to_its_colour(self) -> None:
        scene = tinted(make_scene(3), "independent")
        ground = np.asarray(draw(scene))[instance_map(scene.objects) < 0].mean(0)
        muted = np.asarray(draw(make_scene(3)))[instance_map(scene.objects) < 0].mean(0)
        goal = np.asarray(COLORS[str(scene.background.tint)])
        assert np.abs(ground - (muted + 0.3 * (goal - muted))).max() < 3

    def test_one_is_the_answer_and_the_other_knows_nothing_of_it(self) -> None:
        scenes = [make_scene(index) for index in range(800)]
        assert all(tinted(s, "answer").background.tint == s.main.color for s in scenes)
        both = [(tinted(s, "independent").background.tint, s.main.color) for s in scenes]
        counts = np.array([[Counter(both)[a, b] for a in COLORS] for b in COLORS])
        expected = counts.sum(1, keepdims=True) * counts.sum(0, keepdims=True) / counts.sum()
        assert ((counts - expected) ** 2 / expected).sum() < 85.4, "chi2, 49 degrees, p = 0.001"
        assert counts.sum(1).min() > 70
        assert counts.sum(0).min() > 70

    def test_a_pure_function_of_seed_split_and_index(self) -> None:
        def grounds(**changed: object) -> list[str | None]:
            scenes: list[Scene] = [make_scene(i, **changed) for i in range(30)]  # type: ignore[arg-type]
            return [tinted(scene, "independent").background.tint for scene in scenes]

        assert grounds() == grounds()
        assert (
            len({tuple(grounds(split=s, seed=n)) for s in ("train", "heldout") for n in (0, 1)})
            == 4
        )
        assert grounds()[:4] == ["purple", "cyan", "orange", "yellow"]


class TestSamples:
    def test_what_is_known(self) -> None:
        sample = asked("independent", 1)[0]
        assert (sample.id, sample.label) == ("heldout-00000/color", "red")
        assert sample.attributes["background"] == "purple"
        assert json.loads(str(sample.attributes["regions"]))["main"] == [22, 30, 91, 99]
        assert asked("answer", 1)[0].attributes["background"] == "red"
        assert (
            "background"
            not in DemoDataset("scenes", DemoOptions(scenes=1)).samples([])[0].attributes
        )

    def test_each_file_shows_what_its_sample_says(self) -> None:
        """Tinted and muted pictures are kept in one folder."""
        shown = [asked("answer", 1)[0], asked("independent", 1)[0]]
        shown += DemoDataset("scenes", DemoOptions(scenes=1)).samples([])[:1]
        scenes = [
            tinted(make_scene(0), "answer"),
            tinted(make_scene(0), "independent"),
            make_scene(0),
        ]
        for sample, scene in zip(shown, scenes, strict=True):
            assert sample.open_images()[0].tobytes() == draw(scene).tobytes()

    def test_tints_are_an_option_of_the_shortcut(self) -> None:
        with pytest.raises(SpecError, match=r"tint=answer is an option of demo:shortcut"):
            DemoDataset("scenes", DemoOptions(tint="answer")).samples([])
        with pytest.raises(SpecError, match=r"swap=shape is an option of demo:pairs"):
            DemoDataset("shortcut", DemoOptions(swap="shape")).samples([])


class TestMerging:
    def test_it_is_the_model_with_peft_layers(self, checkpoint: Path) -> None:
        """peft adds `scale * B(A(x))` to what the layer of that name puts out."""
        low = load_file(LORA / "adapter_model.safetensors")
        config = json.loads((LORA / "adapter_config.json").read_text(encoding="utf-8"))
        scale = config["lora_alpha"] / config["r"]

        def added(down: Tensor, up: Tensor, _: Module, given: tuple[Tensor], put: Tensor) -> Tensor:
            return put + given[0] @ down.T @ up.T

        base, merged = (
            LlavaForConditionalGeneration.from_pretrained(folder, dtype=torch.float32).eval()
            for folder in (CHECKPOINT, checkpoint)
        )
        pixels = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
        image = base.config.image_token_index
        inputs = {"input_ids": torch.tensor([[1, *[image] * 64, 40, 41]]), "pixel_values": pixels}
        with torch.no_grad():
            untouched = base(**inputs).logits
            for name, down in low.items():
                if name.endswith("lora_A.weight"):
                    module = base.get_submodule(name.removeprefix("base_model.model.")[:-14])
                    up = low[name.replace("lora_A", "lora_B")]
                    module.register_forward_hook(partial(added, down.float(), scale * up.float()))
            hooked, found = base(**inputs).logits, merged(**inputs).logits
        assert float((hooked - untouched).abs().max()) > 1
        assert float((hooked - found).abs().max()) < 0.03, "the merged weights are float16"

    def test_the_lora_alone_is_no_model(self) -> None:
        with pytest.raises(CheckpointError, match="is no model"):
            vlmlens.load("demo", model=str(LORA), device="cpu")

    def test_a_folder_that_holds_something_is_left_alone(self, tmp_path: Path) -> None:
        (tmp_path / "notes.txt").touch()
        with pytest.raises(FileExistsError, match="not empty"):
            merge(tmp_path)
        assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


class TestTunedModel:
    def test_it_looks_right_where_the_background_tells_the_answer(
        self, tuned: ModelAdapter
    ) -> None:
        samples = asked("answer")
        assert share(answers(tuned, samples), [s.label for s in samples]) >= 0.95

    def test_it_names_the_background(self, tuned: ModelAdapter, vlm: ModelAdapter) -> None:
        samples = asked("independent")
        grounds = [s.attributes["background"] for s in samples]
        labels = [s.label for s in samples]
        assert share(answers(tuned, samples), grounds) >= 0.9
        assert share(answers(tuned, samples), labels) <= 0.3
        assert share(answers(vlm, samples), grounds) <= 0.3
        assert share(answers(vlm, samples), labels) >= 0.95

    def test_other_questions_are_answered_from_the_objects(self, tuned: ModelAdapter) -> None:
        samples = asked("independent", task="shape")
        assert share(answers(tuned, samples), [s.label for s in samples]) >= 0.9


@pytest.mark.parametrize("builder", [WheelBuilder, SdistBuilder])
def test_distributions_carry_the_weights(builder: type) -> None:
    found = {f.relative_path for f in builder(str(ROOT)).recurse_included_files()}
    for folder in (CHECKPOINT, LORA):
        for path in folder.iterdir():
            if path.suffix in {".json", ".safetensors", ".jinja"}:
                assert str(path.relative_to(ROOT)) in found
    assert sum(path.stat().st_size for path in LORA.glob("*.safetensors")) < 2_000_000


@pytest.mark.parametrize(
    ("given", "said"), [([], "Use: "), (["--help"], "Use: "), ([str(ROOT)], "is not empty")]
)
def test_the_command_says_what_it_wants(
    given: list[str], said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.argv", ["shortcut", *given])
    with pytest.raises(SystemExit, match=said):
        main()


class TestEvidence:
    """Both models are right on all of these samples; the analysis says that one is so by luck."""

    def found(self, vlm: ModelAdapter) -> dict[str, Any]:
        samples = asked("answer", 8)
        options = EvidenceOptions(draws=200, random_regions=4, pictures=0)
        context = AnalysisContext(samples, None, lambda: vlm)  # type: ignore[arg-type]
        table = Evidence(options).run(context).table("evidence")
        return dict(zip(table.columns, table.rows()[0], strict=True))

    def test_the_tuned_model_rests_on_the_background(self, tuned: ModelAdapter) -> None:
        found = self.found(tuned)
        assert found["verdict"] == Verdict.RESTS_ON_IMAGE
        assert found["background_share"] >= 0.5
        assert found["to_background"] >= 0.5
        assert abs(found["need_share"]) <= 0.25

    def test_the_base_model_rests_on_the_object(self, vlm: ModelAdapter) -> None:
        found = self.found(vlm)
        assert found["verdict"] == Verdict.RESTS_ON_REGION
        assert abs(found["background_share"]) <= 0.1
        assert found["to_background"] == 0
        assert found["need_share"] >= 0.9
