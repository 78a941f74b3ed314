"""Videos in LLaVA-NeXT-Video and Qwen2-VL through `hf`, in InternVL, MiniCPM-V and SmolVLM2.

The inputs are compared with those of transformers' own video processors, which need torchvision:
`_video_goldens` says how they were computed and kept.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from tests.unit import _video_goldens as goldens
from tests.unit._video_goldens import LEVEL, close
from transformers.video_utils import VideoMetadata

from vlmlens.abc.adapter import LoadRequest
from vlmlens.compose.prompt_check import bad_prompts
from vlmlens.extraction.batching import Lengths, units
from vlmlens.passes.selection import select_in_passes
from vlmlens.samples import Sample
from vlmlens.sites import Axis
from vlmlens.testing.tiny import picture
from vlmlens.tokens import Selector
from vlmlens.videos import Video
from vlmlens_adapter_internvl.adapter import InternVLAdapter
from vlmlens_adapter_minicpm.adapter import MiniCpmAdapter
from vlmlens_adapter_smolvlm.adapter import SmolVLMAdapter
from vlmlens_plugins.hf.adapter import GenericAdapter

# transformers' processor of MiniCPM-V sums a tensor with numpy.
pytestmark = pytest.mark.filterwarnings("ignore:__array_wrap__:DeprecationWarning")

_ADAPTERS: dict[str, Any] = {
    "llavanextvideo": GenericAdapter,
    "internvl": InternVLAdapter,
    "minicpm": MiniCpmAdapter,
    "minicpm47": MiniCpmAdapter,
    "smolvlm": SmolVLMAdapter,
}


@dataclass(frozen=True)
class Made:
    name: str
    vlm: Any
    samples: list[Sample]
    kept: dict[str, Any]

    def inputs_of(self, sample: Sample) -> dict[str, Any]:
        """What transformers makes of a sample."""
        start = f"{sample.id}/"
        return {
            name.removeprefix(start): torch.from_numpy(value)
            for name, value in self.kept.items()
            if name.startswith(start)
        }


@pytest.fixture(scope="module", params=sorted(_ADAPTERS))
def made(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Made:
    folder = goldens.build(request.param, tmp_path_factory.mktemp(request.param))
    vlm = _ADAPTERS[request.param].load(LoadRequest(model=str(folder), device="cpu"))
    samples = [goldens.sample_of(name) for name in goldens.ALONE[request.param]]
    return Made(request.param, vlm, samples, goldens.kept(request.param))


def _column(vlm: Any, samples: list[Sample], column: str) -> list[np.ndarray]:
    site, _, rows = column.partition("/")
    trace = vlm.trace(vlm.encode(samples), [site])
    return [np.asarray(value) for value in trace.select(f"{site}/{rows}")]


def test_the_inputs_are_those_of_transformers_video_processor(made: Made) -> None:
    for sample in made.samples:
        found, kept = made.vlm.encode([sample]).inputs, made.inputs_of(sample)
        assert set(found) == set(kept)
        for name, wanted in kept.items():
            assert found[name].shape == wanted.shape
            tolerance = LEVEL if name.startswith("pixel") else 0
            assert (found[name] - wanted).abs().max() <= tolerance, name


def test_activations_are_those_of_a_direct_call_with_transformers_inputs(made: Made) -> None:
    """Alone and in a batch of videos of several lengths, which transformers cannot make."""
    text = Sample("text", "Hello?")
    batch = made.vlm.encode([*made.samples, text])
    trace = made.vlm.trace(batch, ["llm.block.0", "llm.block.1"])
    for number, sample in enumerate(made.samples):
        with torch.inference_mode():
            direct = made.vlm.module(**made.inputs_of(sample), output_hidden_states=True)
        assert close(trace.select("llm.block.0/all")[number], direct.hidden_states[1][0])
        logits = made.vlm.forward(made.vlm.encode([sample]), logits="last").logits
        assert close(logits[0], direct.logits[0, -1])
    alone = _column(made.vlm, [text], "llm.block.1/all")[0]
    assert close(trace.select("llm.block.1/all")[-1], alone)


@pytest.mark.parametrize("column", ["vision.block.1/image", "projector/image.frame(1)"])
def test_rows_of_the_tower_are_in_a_batch_as_alone(made: Made, column: str) -> None:
    together = _column(made.vlm, made.samples, column)
    for sample, found in zip(made.samples, together, strict=True):
        assert close(found, _column(made.vlm, [sample], column)[0])


def test_layouts_name_the_frame_of_each_row(made: Made) -> None:
    """One frame is inverted: of what enters the language model, its rows change, and no others."""
    sample = made.samples[0]
    layout = made.vlm.encode([sample]).layouts[Axis.LLM].samples[0]
    before = _column(made.vlm, [sample], "llm.block.0:in/all")[0]
    for number in (0, 3):
        frames = list(sample.images)
        frames[number] = Image.fromarray(255 - np.asarray(frames[number]))
        other = replace(sample, images=tuple(frames))
        moved = (_column(made.vlm, [other], "llm.block.0:in/all")[0] != before).any(1)
        chosen = Selector.parse(f"image.frame({number})").positions(layout)
        assert np.flatnonzero(moved).tolist() == chosen.tolist()


@pytest.fixture
def local(made: Made) -> Iterator[Any]:
    """The model with a tower whose blocks pass on what they are given: no patch sees another."""
    inner = made.vlm.module.model
    tower = getattr(inner, "vision_tower", None) or inner.vision_model
    mixing = [p for name, p in tower.named_parameters() if ".layer" in name and p.dim() == 2]
    weights = [parameter.clone() for parameter in mixing]
    for parameter in mixing:
        parameter.zero_()
    yield made.vlm
    for parameter, kept in zip(mixing, weights, strict=True):
        parameter.copy_(kept)


def test_the_places_of_rows_in_a_frame_are_where_it_is_painted(made: Made, local: Any) -> None:
    pixels = np.zeros((2, 32, 32, 3), np.uint8)
    painted = pixels.copy()
    painted[1, 25:31, 1:7] = 255
    base = made.samples[0]
    video = replace(base.video, frames=(0, 30))
    one, other = (
        replace(base, images=tuple(Image.fromarray(frame) for frame in each), video=video)
        for each in (pixels, painted)
    )
    layout = local.encode([one]).layouts[Axis.LLM].samples[0]
    before, after = (_column(local, [each], "llm.block.0:in/image")[0] for each in (one, other))
    (moved,) = np.flatnonzero((before != after).any(1))
    grid = layout.patches
    assert (grid.image[moved], grid.row[moved], grid.col[moved]) == (1, 1, 0)
    assert np.allclose(grid.box[moved], (0, 0.5, 0.5, 1))


@pytest.mark.parametrize("size", [(40, 3), (1, 1), (33, 31), (120, 64)])
def test_no_size_of_frames_is_misread(made: Made, size: tuple[int, int]) -> None:
    """transformers takes rows for channels where there are one or three of them."""
    frames = tuple(Image.new("RGB", size, (9, 90, 200)) for _ in range(3))
    video = replace(made.samples[0].video, frames=(0, 1, 2))
    batch = made.vlm.encode([Sample("1", "What?", frames, video=video)])
    (pixels,) = (value for name, value in batch.inputs.items() if name.startswith("pixel_values"))
    assert len(pixels.unique()) == 3


def test_frames_in_the_wrong_order_are_another_input(made: Made) -> None:
    sample = made.samples[0]
    other = replace(sample, images=sample.images[::-1])
    one, swapped = (_column(made.vlm, [each], "llm.block.1/last")[0] for each in (sample, other))
    assert not close(one, swapped)
    assert close(one, _column(made.vlm, [replace(sample)], "llm.block.1/last")[0])


def test_questions_on_one_video(made: Made) -> None:
    """They share a beginning in InternVL and SmolVLM2; elsewhere, nothing."""
    asked = [replace(made.samples[0], id=text, prompt=text) for text in ("Hm?", "Why is it so?")]
    other = replace(made.samples[1], id="other")
    batch = made.vlm.encode_shared([asked])
    assert (batch is not None) == (made.name in ("internvl", "smolvlm"))
    assert made.vlm.encode_shared([asked, [other]]) is None  # not as long
    if batch is None:
        return
    columns = {"llm.block.1/all": (made.vlm.sites.canonical["llm.block.1"], Selector.parse("all"))}
    (found,) = select_in_passes(made.vlm, batch, columns, batch.layouts, stop=False).values()
    for rows, one in zip(found, asked, strict=True):
        assert close(rows, _column(made.vlm, [one], "llm.block.1/all")[0])


def test_without_video_frames_are_several_images(made: Made) -> None:
    """They are not the same input: in an image there are more tokens, and no frame has a number."""
    sample = made.samples[1]
    images = made.vlm.encode([replace(sample, video=None)])
    video = made.vlm.encode([sample])
    counts = [len(each.layouts[Axis.LLM].samples[0]) for each in (images, video)]
    assert counts[0] != counts[1]


def test_frames_are_taken_where_transformers_takes_them(made: Made) -> None:
    rule, processor = made.vlm.frame_rule, made.vlm.processor.video_processor
    for total in (8, 9, 24, 299, 5000):
        known = VideoMetadata(total_num_frames=total, fps=24.0, duration=total / 24)
        asked = {} if made.name.startswith(("minicpm", "smolvlm")) else {"num_frames": 8}
        wanted = [int(number) for number in processor.sample_frames(known, **asked)]
        assert list(rule.indices(total, 24.0)) == wanted
    assert rule.asked(count=8).indices(3, None) == (0, 1, 2)


def test_qwen_through_the_generic_adapter(tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = goldens.build("qwen2", tmp_path_factory.mktemp("qwen"))
    vlm = GenericAdapter.load(LoadRequest(model=str(folder), device="cpu"))
    batch = vlm.encode([goldens.sample_of(name) for name in goldens.PROMPTS])
    for name, kept in goldens.kept("qwen2").items():
        tolerance = LEVEL if name.startswith("pixel") else 0
        assert np.abs(batch.inputs[name].numpy() - kept).max() <= tolerance
    layout = batch.layouts[Axis.LLM].samples[1]
    frames = [Selector.parse(f"image.frame({n})").positions(layout).tolist() for n in range(5)]
    assert frames[0] == frames[1] != frames[4] != frames[2] == frames[3]
    image = Sample("still", "What?", (picture(40, 32),))
    assert bad_prompts(GenericAdapter.skeleton(vlm.request), [image, batch.samples[0]]) == []
    still = vlm.encode([image])
    assert still.layouts[Axis.LLM].samples[0].patches is None


def test_a_run_puts_videos_and_images_into_batches_of_their_own() -> None:
    video = Video("", (0, 1), fps=1.0, total=2)
    samples = [
        Sample(f"{i}", "?", (picture(40, 32),) * 2, video=video if i % 3 else None)
        for i in range(9)
    ]
    lengths = Lengths(np.full(9, 20.0), np.full(9, 5.0))
    found = units(samples, lengths, size=4, budget=1000, share="nothing")
    kinds = [{samples[number].video is not None for number in unit.samples} for unit in found]
    assert all(len(kind) == 1 for kind in kinds)
    assert sorted(number for unit in found for number in unit.samples) == list(range(9))
