"""demo:captions: both analyses of captions find the rate that was planted."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from vlmlens.abc import AnalysisContext, ModelAdapter, Options
from vlmlens.errors import DataNotFound, SpecError
from vlmlens.results import Result, Verdict
from vlmlens.samples import Sample
from vlmlens_plugins.analysis.benchmark import BenchmarkScores
from vlmlens_plugins.analysis.benchmark.options import BenchmarkScoreOptions
from vlmlens_plugins.analysis.captions import Captions
from vlmlens_plugins.analysis.captions.options import CaptionOptions
from vlmlens_plugins.demo.captions import captions
from vlmlens_plugins.demo.dataset import DemoDataset, DemoOptions
from vlmlens_plugins.demo.scenes import make_scene
from vlmlens_plugins.storage.memory import MemoryStore, forget

FEW = 60


@pytest.fixture(scope="module", autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> object:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("VLMLENS_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="module")
def samples() -> list[Sample]:
    return list(DemoDataset("captions", DemoOptions(scenes=FEW)).samples([]))


def no_model() -> ModelAdapter:
    raise AssertionError("the model is not needed")


def run(analysis: Captions | BenchmarkScores, samples: Sequence[Sample]) -> Result:
    forget("demo-captions")
    analysis.check(samples, [])
    with MemoryStore.open("demo-captions", mode="a", options=Options()) as store:
        return analysis.run(AnalysisContext(samples, store, no_model, generated={}))


def first_row(found: Result) -> dict[str, Any]:
    table = next(table for table in found.tables if table.name == "captions-scores")
    return {column: values[0] for column, values in table.columns.items()}


def counted(samples: Sequence[Sample]) -> dict[str, float]:
    """What was planted, counted without any reader of texts."""
    wrong = [len(json.loads(str(sample.attributes["hallucinated"]))) for sample in samples]
    there = [len(json.loads(str(sample.attributes["objects"]))) for sample in samples]
    return {
        "chair_i": sum(wrong) / (sum(wrong) + sum(there)),
        "chair_s": sum(count > 0 for count in wrong) / len(samples),
        "recall": 1.0,
    }


def test_both_analyses_find_what_was_planted(samples: list[Sample]) -> None:
    planted = counted(samples)
    assert 0.19 < planted["chair_i"] < 0.21
    found = run(Captions(CaptionOptions(texts="answer", draws=200)), samples)
    row = first_row(found)
    assert {name: row[name] for name in planted} == pytest.approx(planted)
    assert found.findings[0].verdict is Verdict.DIFFERS
    scored = run(BenchmarkScores(BenchmarkScoreOptions(draws=200)), samples)
    assert f"chair_i {100 * planted['chair_i']:.1f} %" in scored.findings[0].text
    for name in ("opera", "lmms-eval"):
        assert any(f"Not read by the parser {name}" in note for note in scored.notes)


def test_the_note_tells_the_rate() -> None:
    made = DemoDataset("captions", DemoOptions(scenes=8, hallucinated=0.5))
    planted = counted(made.samples([]))
    assert planted["chair_i"] == 0.5
    assert "50.0%" in made.notes[0]


@pytest.mark.parametrize("rate", [0.0, 0.1, 0.25, 1 / 3, 0.5])
@pytest.mark.parametrize("scenes", [1, 7, 40])
def test_the_rate_is_kept_to_the_nearest_mention(rate: float, scenes: int) -> None:
    drawn = [make_scene(i) for i in range(scenes)]
    found = captions(drawn, rate=rate, seed=3)
    wrong = sum(len(one.hallucinated) for one in found)
    mentions = sum(one.mentions for one in found)
    assert abs(wrong - rate * mentions) <= 1
    for one, scene in zip(found, drawn, strict=True):
        assert not any(scene.contains(*name.split()) for name in one.hallucinated)
        assert all(f" {item.color} {item.shape}" in one.text for item in scene.objects)
        assert one.mentions == scene.number + len(one.hallucinated)
    assert captions(drawn, rate=rate, seed=3) == found
    assert rate == 0 or scenes < 40 or captions(drawn, rate=rate, seed=4) != found


def test_captions_of_other_scenes_are_seen(samples: list[Sample]) -> None:
    texts = [sample.attributes["answer"] for sample in samples]
    moved = [
        replace(sample, attributes={**sample.attributes, "answer": text})
        for sample, text in zip(samples, [*texts[1:], texts[0]], strict=True)
    ]
    found = run(Captions(CaptionOptions(texts="answer", draws=200)), moved)
    row = first_row(found)
    assert row["chair_i"] > 0.8


def test_options_of_other_sources_are_refused() -> None:
    with pytest.raises(SpecError, match="hallucinated"):
        DemoDataset("scenes", DemoOptions(hallucinated=0.3)).samples([])
    with pytest.raises(SpecError, match="pairs"):
        DemoDataset("captions", DemoOptions(pairs=3)).samples([])
    with pytest.raises(DataNotFound) as caught:
        DemoDataset("xyz", DemoOptions()).samples([])
    assert "demo:captions" in caught.value.hint


def test_prompts_are_other_wordings(samples: list[Sample]) -> None:
    made = DemoDataset("captions", DemoOptions(scenes=2)).samples(["What is there?"])
    assert [sample.prompt for sample in made] == ["What is there?"] * 2
    assert made[0].attributes["answer"]
    assert Path(str(samples[0].images[0])).is_file()
