"""Videos of SmolVLM2; their tensors are held against transformers' in test_video_families."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from vlmlens.abc.adapter import LoadRequest
from vlmlens.errors import CheckpointError, DataError, MissingDependency
from vlmlens.hf.image_processing import missing_filter
from vlmlens.hf.video_processing import TorchVideos
from vlmlens.samples import Sample
from vlmlens.testing.tiny import picture
from vlmlens.tokens import Selector, TokenKind
from vlmlens.videos import FrameRule, Video
from vlmlens_adapter_smolvlm.adapter import SmolVLMAdapter
from vlmlens_adapter_smolvlm.checks import SmolVLM2Checks, SmolVLMChecks

FRAMES = tuple(picture(40, 32, seed=i) for i in range(3))


@pytest.fixture(scope="module")
def vlm(tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = shutil.copytree(SmolVLM2Checks().checkpoint, tmp_path_factory.mktemp("v") / "model")
    settings = {
        "video_processor_type": "SmolVLMVideoProcessor", "max_image_size": {"longest_edge": 36},
        "video_sampling": {"fps": 1, "max_frames": 4, "video_size": {"longest_edge": 72}},
    }  # fmt: skip
    (folder / "video_preprocessor_config.json").write_text(json.dumps(settings))
    return SmolVLMAdapter.load(LoadRequest(model=str(folder), device="cpu"))


def _sample(prompt: str, frames: tuple[int, ...] = (0, 24, 1680), **known: Any) -> Sample:
    video = Video("", frames, **{"fps": 24.0, "total": 2400, **known})
    return Sample("v", prompt, FRAMES[: len(frames)], video=video)


def test_a_prompt_says_how_many_frames_and_when(vlm: Any) -> None:
    layout = vlm.encode([_sample("Why?")]).layout(0)
    said = vlm.decode(layout.token_ids[layout.kinds == TokenKind.TEXT].tolist())
    assert said == (
        "User: You are provided the following series of three frames from a 0:01:10 [H:MM:SS] "
        "video.\n\nFrame from 00:00:\nFrame from 00:01:\nFrame from 01:10:\n\nWhy?\nAssistant:"
    )
    question = Selector.parse("question").positions(layout)
    assert vlm.decode(layout.token_ids[question].tolist()) == "Why?"


def test_a_video_may_stand_between_words(vlm: Any) -> None:
    layout = vlm.encode([_sample("Before <video> after?")]).layout(0)
    said = vlm.decode(layout.token_ids[layout.kinds == TokenKind.TEXT].tolist())
    assert said.startswith("User: Before You are")
    assert said.endswith("01:10:\n\n after?\nAssistant:")
    assert len(layout.positions(TokenKind.IMAGE)) == 3 * 4


def test_in_a_batch_each_video_is_announced_with_its_own_number_of_frames(vlm: Any) -> None:
    batch = vlm.encode([_sample("Why?"), _sample("Why?", (0, 24)), Sample("t", "Hm?")])
    texts = [vlm.decode(batch.layout(i).token_ids.tolist()) for i in range(3)]
    assert ["three frames" in text for text in texts] == [True, False, False]
    assert "two frames" in texts[1]
    assert batch.inputs["pixel_values"].shape[:2] == (2, 3)


def test_without_times_a_video_is_refused(vlm: Any) -> None:
    with pytest.raises(DataError, match="does not say fps"):
        vlm.encode([_sample("Why?", fps=None)])


def test_frames_are_taken_as_asked(vlm: Any) -> None:
    rule = vlm.frame_rule
    assert rule.indices(240, 24.0) == (24, 88, 152, 216)  # a second at either end is left out
    assert rule.indices(72, 24.0) == (0, 35, 71)  # not of a short video
    assert rule.asked(count=2).indices(240, 24.0) == (24, 216)
    assert rule.asked(fps=0.2).indices(240, 24.0) == (24, 216)
    assert rule.asked(count=2).indices(30, None) == FrameRule(count=2).indices(30, None)


@pytest.mark.parametrize(("kit", "tiles"), [(SmolVLMChecks, 5), (SmolVLM2Checks, 1)])
def test_in_the_classes_of_idefics3_frames_are_several_images(kit: Any, tiles: int) -> None:
    found: Any = kit().vlm
    assert found.takes_video == (tiles == 1)
    assert found.frame_rule == FrameRule()  # its settings say nothing of frames
    assert found.encode([_sample("Why?")]).inputs["pixel_values"].shape[1] == 3 * tiles


def test_frames_that_do_not_fit_the_model_are_refused(vlm: Any, tmp_path: Path) -> None:
    folder = shutil.copytree(vlm.request.model, tmp_path / "copy")
    settings = {"video_processor_type": "SmolVLMVideoProcessor"}  # frames of 364 pixels
    (folder / "video_preprocessor_config.json").write_text(json.dumps(settings))
    other = SmolVLMAdapter.skeleton(LoadRequest(model=str(folder)))
    with pytest.raises(CheckpointError, match="4 image tokens for a frame; the model makes 484"):
        other.encode([_sample("Why?")])
    assert len(other.encode([Sample("a", "Hm?", FRAMES[:1])]).layout(0))


@pytest.mark.parametrize(("number", "torch_version"), [(1, "2.11.0"), (4, "2.13.0+cpu")])
def test_filters_that_torch_lacks_are_named(
    monkeypatch: pytest.MonkeyPatch, number: int, torch_version: str
) -> None:
    assert not missing_filter(1)
    monkeypatch.setattr(torch, "__version__", torch_version)
    with pytest.raises(MissingDependency, match=f"asks for the filter {number} of Pillow"):
        TorchVideos.resize(None, torch.zeros(1, 3, 8, 8), None, resample=number)
