"""Videos in Qwen2-VL, Qwen2.5-VL and Qwen3-VL: inputs, activations, layouts.

The inputs are compared with those of transformers' own video processors, which need torchvision:
`_video_goldens` says how they were computed and kept.
"""

from __future__ import annotations

import itertools
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
from vlmlens.errors import DataError
from vlmlens.passes.selection import select_in_passes
from vlmlens.passes.soft_prompt import SoftPrompt
from vlmlens.samples import Sample
from vlmlens.sites import Axis
from vlmlens.testing.tiny import picture
from vlmlens.tokens import Selector, TokenKind
from vlmlens.videos import Video
from vlmlens_adapter_qwen2vl.adapter import QwenVLAdapter, QwenVLOptions

_FAMILIES = ("qwen2", "qwen25", "qwen3")


@dataclass(frozen=True)
class Made:
    name: str
    vlm: Any
    samples: dict[str, Sample]
    kept: dict[str, Any]


@pytest.fixture(scope="module", params=_FAMILIES)
def made(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Made:
    folder = goldens.build(request.param, tmp_path_factory.mktemp(request.param))
    vlm = QwenVLAdapter.load(LoadRequest(model=str(folder), device="cpu"))
    samples = {name: goldens.sample_of(name) for name in goldens.PROMPTS}
    return Made(request.param, vlm, samples, goldens.kept(request.param))


def _hidden(made: Made, samples: list[Sample], column: str) -> list[np.ndarray]:
    site, _, rows = column.partition("/")
    trace = made.vlm.trace(made.vlm.encode(samples), [site])
    return [np.asarray(value) for value in trace.select(f"{site}/{rows}")]


def test_the_inputs_are_those_of_transformers_video_processor(made: Made) -> None:
    inputs = made.vlm.encode(list(made.samples.values())).inputs
    assert set(inputs) == set(made.kept)
    for name, kept in made.kept.items():
        found = inputs[name].numpy()
        assert found.shape == kept.shape, name
        tolerance = LEVEL if name == "pixel_values_videos" else 0
        assert np.abs(found - kept).max() <= tolerance, name
    levels = np.abs(inputs["pixel_values_videos"].numpy() - made.kept["pixel_values_videos"])
    assert (levels > 1e-6).mean() < 0.01


def test_activations_are_those_of_a_direct_call_with_transformers_inputs(made: Made) -> None:
    batch = made.vlm.encode(list(made.samples.values()))
    trace = made.vlm.trace(batch, ["llm.block.0", "llm.block.1"])
    inputs = {name: torch.from_numpy(value) for name, value in made.kept.items()}
    with torch.inference_mode():
        direct = made.vlm.module(**inputs, output_hidden_states=True)
    # Qwen3-VL adds features of its tower behind these blocks: there, the logits must tell.
    for block in () if made.name == "qwen3" else (0, 1):
        wanted = direct.hidden_states[block + 1].flatten(0, 1)
        found = trace.select(f"llm.block.{block}/all")
        for layout, rows in zip(batch.layouts[Axis.LLM].samples, found, strict=True):
            assert close(rows, wanted[layout.rows])
    logits = made.vlm.forward(batch, logits="all").logits.flatten(0, 1)
    for layout in batch.layouts[Axis.LLM].samples:
        assert close(logits[layout.rows], direct.logits.flatten(0, 1)[layout.rows])


def test_a_sample_is_in_a_batch_as_alone(made: Made) -> None:
    samples = list(made.samples.values())
    with_text = [*samples, Sample("text", "Hello?")]
    for column, batch in (
        ("vision.block.1/image", samples), ("projector/image", samples),
        ("llm.block.2/all", with_text),
    ):  # fmt: skip
        together = _hidden(made, batch, column)
        for number in (1, len(batch) - 1):
            alone = _hidden(made, [batch[number]], column)[0]
            assert close(together[number], alone), (column, batch[number].id)


def test_virtual_tokens_behind_videos_are_what_words_are(made: Made) -> None:
    """Positions along time, too, go on as behind that many more words."""
    samples = [made.samples["odd"], made.samples["small"]]
    worded = made.vlm.encode([replace(one, prompt=f"ab {one.prompt}") for one in samples])
    site = made.vlm.sites.canonical["llm.embed"]
    ids = made.vlm.tokenizer("ab ", return_tensors="pt")["input_ids"]
    with torch.no_grad():
        vectors = made.vlm.module.get_submodule(site.path)(ids)[0]
    with made.vlm.prompted(SoftPrompt(vectors)):
        found = made.vlm.forward(made.vlm.encode(samples), logits="last").logits
    wanted = made.vlm.forward(worded, logits="last").logits
    plain = made.vlm.forward(made.vlm.encode(samples), logits="last").logits
    assert close(found, wanted)
    assert not close(found, plain)


def test_layouts_name_the_frames_that_rows_stand_for(made: Made) -> None:
    """A frame's lower right token is painted: the rows that change are those that say so."""
    for name, number in (("even", 2), ("odd", 4), ("odd", 1)):
        sample = made.samples[name]
        batch = made.vlm.encode([sample])
        layout = batch.layouts[Axis.VISION].samples[0]
        grid = layout.patches
        last = (grid.row >= grid.rows - 2) & (grid.col >= grid.cols - 2)
        painted = list(sample.images)
        painted[number] = _corner_painted(painted[number])
        moved = _hidden(made, [replace(sample, images=tuple(painted))], "vision.block.0:in/all")[0]
        changed = np.flatnonzero(
            (moved != _hidden(made, [sample], "vision.block.0:in/all")[0]).any(1)
        )
        assert set(np.flatnonzero(grid.of_image(number) & last)) & set(changed)
        assert set(changed) <= set(np.flatnonzero(grid.of_image(number)))
        chosen = Selector.parse(f"image.frame({number})").positions(layout)
        assert set(changed) <= set(chosen.tolist())


def _corner_painted(frame: Any) -> Any:
    pixels = np.array(frame)
    pixels[-3:, -3:] = 255 - pixels[-3:, -3:]
    return Image.fromarray(pixels)


def test_frames_of_a_step_share_their_rows(made: Made) -> None:
    layout = made.vlm.encode([made.samples["odd"]]).layouts[Axis.LLM].samples[0]

    def rows(selector: str) -> list[int]:
        return Selector.parse(selector).positions(layout).tolist()

    assert rows("image.frame(0)") == rows("image.frame(1)") != rows("image.frame(2)")
    parts = [rows(f"image.frame({number})") for number in (0, 2, 4)]
    assert (
        [row for part in parts for row in part]
        == rows("video")
        == layout.positions(TokenKind.IMAGE).tolist()
    )
    assert layout.patches.span.tolist()[-1] == 1


def test_image_tokens_of_the_language_model_are_the_projectors_rows(made: Made) -> None:
    batch = made.vlm.encode(list(made.samples.values()))
    trace = made.vlm.trace(batch, ["projector", "llm.block.0:in"])
    pairs = zip(trace.select("projector/image"), trace.select("llm.block.0:in/image"), strict=True)
    for projected, given in pairs:
        assert torch.equal(torch.as_tensor(projected), torch.as_tensor(given))


def test_frames_in_the_wrong_order_are_another_input(made: Made) -> None:
    sample = made.samples["even"]
    other = replace(sample, images=sample.images[::-1])
    one, swapped = (_hidden(made, [each], "llm.block.2/last")[0] for each in (sample, other))
    assert not close(one, swapped)
    pixels = made.vlm.encode([other]).inputs["pixel_values_videos"].numpy()
    kept = made.kept["pixel_values_videos"][: len(pixels)]
    assert np.abs(pixels - kept).max() > 10 * LEVEL


def test_another_rate_matters_where_the_family_reads_time(made: Made) -> None:
    sample = made.samples["even"]
    slower = replace(sample, video=replace(sample.video, fps=1.0))
    same = close(*(_hidden(made, [each], "llm.block.2/image")[0] for each in (sample, slower)))
    assert same == (made.name == "qwen2")
    texts = {made.vlm.decode(made.vlm.encode([each]).inputs["input_ids"][0]) for each in
             (sample, slower)}  # fmt: skip
    assert (len(texts) == 2) == (made.name == "qwen3")


def test_unknown_rates_are_refused_and_not_guessed(made: Made) -> None:
    """transformers assumes 24 frames per second without saying so."""
    sample = made.samples["even"]
    unknown = replace(sample, video=Video("", sample.video.frames))
    said = made.vlm.read_prompt(unknown).problem
    if made.name == "qwen2":
        assert said == ""
        assert close(*(_hidden(made, [each], "llm.block.2/last")[0] for each in (sample, unknown)))
        return
    assert said == "its video does not say fps and total"
    with pytest.raises(DataError, match="does not say fps and total"):
        made.vlm.encode([unknown])


def test_generated_text_is_that_of_transformers(made: Made) -> None:
    batch = made.vlm.encode(list(made.samples.values()))
    found = made.vlm.generate(batch, max_new_tokens=4)
    inputs = {name: torch.from_numpy(value) for name, value in made.kept.items()}
    with torch.inference_mode():
        direct = made.vlm.module.generate(**inputs, max_new_tokens=4, do_sample=False)
    length = made.kept["input_ids"].shape[1]
    for one, row in zip(found, direct[:, length:].tolist(), strict=True):
        assert list(one.token_ids) == row[: len(one.token_ids)]


def test_what_is_said_of_a_given_answer_is_what_was_seen_while_generating(made: Made) -> None:
    """Positions go on in the same way, though time may have gone beyond them."""
    sample = made.samples["wide"]
    slow = replace(sample, video=replace(sample.video, fps=0.5))
    batch = made.vlm.encode([slow])
    marks = (made.vlm.image_token_id, made.vlm.video_token_id)
    found = made.vlm.module.generate(
        **batch.inputs, max_new_tokens=3, do_sample=False, output_logits=True,
        return_dict_in_generate=True, suppress_tokens=[*made.vlm.special_ids, *marks],
    )  # fmt: skip
    ids = found.sequences[0, batch.inputs["input_ids"].shape[1] :].tolist()
    given = made.vlm.encode([slow], answers=[ids])
    logits = made.vlm.forward(given, logits="all").logits[0]
    for step, seen in enumerate(found.logits):
        assert close(seen[0], logits[step - len(ids) - 1])


def test_questions_on_one_video_share_their_beginning(made: Made) -> None:
    """Even where time has gone beyond the positions of the text; no video shares with images."""
    sample = made.samples["wide"]
    slow = replace(sample, video=replace(sample.video, fps=0.5))
    asked = [replace(slow, id=prompt, prompt=prompt) for prompt in ("Hm?", "Why is it so?")]
    other = replace(slow, id="other", images=slow.images[::-1])
    batch = made.vlm.encode_shared([asked, [other]])
    assert len(batch.passes) == 2
    columns = {
        name: (made.vlm.sites.canonical[name.partition("/")[0]], Selector.parse(rows))
        for name in ("llm.block.2/all", "projector/image.frame(1)")
        for rows in [name.partition("/")[2]]
    }
    found = select_in_passes(made.vlm, batch, columns, batch.layouts, stop=False)
    for name, shared in found.items():
        for rows, one in zip(shared, [*asked, other], strict=True):
            assert close(rows, _hidden(made, [one], name)[0]), name
    still = Sample("still", "What?", (picture(40, 32),))
    assert made.vlm.encode_shared([asked, [still]]) is None


def test_a_placeholder_says_where_the_video_stands(made: Made) -> None:
    sample = made.samples["even"]
    between = replace(sample, prompt="Look: <video> What is it?")
    text = made.vlm.decode(made.vlm.encode([between]).inputs["input_ids"][0])
    assert text.index("Look:") < text.index("<|video_pad|>") < text.index(" What is it?")
    before = replace(sample, prompt="<video>\nWhat is it?")
    encoded = [made.vlm.encode([each]).inputs["input_ids"].tolist() for each in (before, sample)]
    assert made.vlm.read_prompt(before).note
    assert encoded[0] != encoded[1]  # the line break is the user's
    for prompt in ("<video> or <video>?", "<|image_pad|> What?"):
        assert made.vlm.read_prompt(replace(sample, prompt=prompt)).problem
        with pytest.raises(DataError, match="cannot be used"):
            made.vlm.encode([replace(sample, prompt=prompt)])


def test_the_question_is_found_behind_frames_and_times(made: Made) -> None:
    for prompt in ("Which colour?", "Look: <video> Which colour?"):
        sample = replace(made.samples["even"], prompt=prompt)
        layout = made.vlm.encode([sample]).layouts[Axis.LLM].samples[0]
        rows = Selector.parse("question").positions(layout)
        text = made.vlm.decode(layout.token_ids[rows].tolist())
        assert text.replace(" ", "") == prompt.replace("<video>", "").replace(" ", "")
        (word,) = [Selector.parse("word(colour)").positions(layout)]
        assert made.vlm.decode(layout.token_ids[word].tolist()).strip() == "colour"


def test_what_cannot_be_a_video_is_refused(made: Made) -> None:
    sample = made.samples["even"]
    picture_only = Sample("still", "What?", (picture(40, 32),))
    with pytest.raises(DataError, match="cannot be in one batch"):
        made.vlm.encode([sample, picture_only])
    ragged = (*sample.images[:3], picture(48, 32))
    with pytest.raises(DataError, match="differ in size"):
        made.vlm.encode([replace(sample, images=ragged)])
    one = replace(
        sample, images=sample.images[:1], video=replace(sample.video, frames=(0,), times=())
    )
    if made.name == "qwen3":
        with pytest.raises(DataError, match="has 1 frame, and 2 are needed"):
            made.vlm.encode([one])
    else:
        assert made.vlm.encode([one]).inputs["video_grid_thw"][0, 0] == 1


def test_frames_are_taken_where_transformers_takes_them(made: Made) -> None:
    rule, processor = made.vlm.frame_rule, made.vlm.processor.video_processor
    for total, fps in itertools.product((4, 7, 24, 299, 450, 2457, 5000), (0.5, 24.0, 29.97)):
        known = VideoMetadata(total_num_frames=total, fps=fps)
        for found, asked in (
            (rule.indices(total, fps), {"fps": 2}),
            (rule.asked(count=4).indices(total, None), {"num_frames": 4}),
        ):
            wanted = processor.sample_frames(known, **asked)
            assert list(found) == [int(number) for number in wanted], (total, fps)
    assert [len(rule.indices(total, 24.0)) for total in (1, 2)] == [1, 2]


def test_the_area_of_frames_is_an_option(made: Made) -> None:
    options = QwenVLOptions(video_max_pixels=600, video_min_pixels=64)
    request = replace(made.vlm.request, options=options)
    smaller = QwenVLAdapter(made.vlm.module, request)
    sample = made.samples["even"]
    found, wanted = (
        len(one.encode([sample]).layouts[Axis.LLM].samples[0]) for one in (smaller, made.vlm)
    )
    assert found < wanted
