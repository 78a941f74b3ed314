"""Placeholders of images, and prompts that are too long: seen before weights are loaded."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

import vlmlens
from vlmlens.compose.plan import compose
from vlmlens.compose.prompt_check import bad_prompts, notes, strange_placeholders
from vlmlens.errors import DataError
from vlmlens.manifest import Manifest, PluginKind
from vlmlens.registry import Registry
from vlmlens.samples import Sample
from vlmlens.spec.model import make_spec
from vlmlens.testing.model import TinyLlava, request, tiny_model
from vlmlens.testing.tiny import picture
from vlmlens.tokens import TokenKind

IMAGE = picture(32, 32)


@pytest.fixture(scope="module")
def skeleton() -> TinyLlava:
    return TinyLlava.skeleton(request())


def asked(prompt: str, images: int = 1, **more: Any) -> Sample:
    return Sample("a", prompt, (IMAGE,) * images, **more)


@pytest.mark.parametrize(
    ("sample", "reason"),
    [
        (asked("<image> or <image>?"), "the prompt has 2 <image>, the sample 1 image"),
        (asked("Is it <image>?", images=2), "the prompt has 1 <image>, the sample 2 images"),
        (asked("<image>\nColor:", images=0), "the prompt has 1 <image>, the sample no image"),
        (asked("Which?", choices=("red", "<image>")), "the answer '<image>' holds '<image>'"),
        (asked("Which?", label="an <image>"), "the answer 'an <image>' holds '<image>'"),
        (asked("word " * 2_000), "The sample 'a' has 100"),
        (asked("word " * 2_000, images=0), "The sample 'a' has 100"),
        (asked("x" * 2_020), "The sample 'a' has 20"),
    ],
)
def test_what_cannot_be_used_is_named_with_its_id(
    skeleton: TinyLlava, sample: Sample, reason: str
) -> None:
    (found,) = bad_prompts(skeleton, [Sample("good", "Color:", (IMAGE,)), sample])
    assert found.id == "a"
    assert found.reason.startswith(reason)


@pytest.mark.parametrize(
    "sample",
    [asked("<image>\nColor:"), asked(" <image> <image>Which?", images=2), asked("Color: <image>"),
     asked("Is <image> like <image>?", images=2), asked("x" * 2_000), asked("<Image> < image >")],
)  # fmt: skip
def test_what_can_be_used_is_left_alone(skeleton: TinyLlava, sample: Sample) -> None:
    assert bad_prompts(skeleton, [sample]) == []


def test_a_placeholder_in_front_is_the_image_that_stands_there_anyway() -> None:
    vlm = tiny_model()
    plain, marked = (vlm.encode([asked(p)]) for p in ("Color:", "<image>\nColor:"))
    assert plain.inputs["input_ids"].tolist() == marked.inputs["input_ids"].tolist()
    assert notes(vlm, [asked("<image>\nColor:")] * 2) == [
        "2 prompts: <image> is left out: the image stands before the prompt anyway."
    ]


def test_between_words_the_image_stands_between_words() -> None:
    vlm = tiny_model()
    layout = vlm.encode([asked("Is this <image> or this <image> red?", images=2)]).layout(0)
    assert layout.token_ids is not None
    kinds = layout.kinds.tolist()
    first = kinds.index(TokenKind.IMAGE)
    assert kinds.count(TokenKind.IMAGE) == 32
    before = vlm.decode(layout.token_ids[:first].tolist())
    assert before.endswith("USER: Is this ")
    rest = [n for n, kind in zip(layout.token_ids[first:], kinds[first:], strict=True)
            if kind == TokenKind.TEXT]  # fmt: skip
    assert vlm.decode([int(n) for n in rest]) == " or this  red? ASSISTANT:"


def test_shared_beginnings_see_placeholders_alike() -> None:
    vlm = tiny_model()
    groups = [[asked("<image>\nColor:"), asked("Shape:"), asked("Is <image> red?")]]
    for group in (groups[0][:2], groups[0]):
        batch = vlm.encode_shared([group])
        if batch is None:
            continue
        for i, sample in enumerate(group):
            alone = vlm.encode([sample]).layout(0).token_ids
            found = batch.layout(i).token_ids
            assert alone is not None
            assert found is not None
            assert found.tolist() == alone.tolist()


def test_encode_refuses_what_the_check_refuses() -> None:
    vlm = tiny_model()
    for prompt, why in (("<image><image>", "2 <image>"), ("word " * 2_000, "tokens")):
        with pytest.raises(DataError, match=why) as caught:
            vlm.encode([Sample("fine", "Color:", (IMAGE,)), asked(prompt)])
        assert caught.value.subject == "a"


def test_without_its_images_a_prompt_loses_its_placeholders() -> None:
    """As the blind test asks: the model gets neither the image nor the text `<image>`."""
    vlm = tiny_model()
    layout = vlm.encode([asked("<image>\nColor:", images=0)]).layout(0)
    assert layout.token_ids is not None
    assert "<image>" not in vlm.decode(layout.token_ids.tolist())
    assert TokenKind.IMAGE not in layout.kinds


def manifest(name: str, *placeholders: str) -> Manifest:
    return Manifest(PluginKind.ADAPTER, name, "a:B", "x", placeholders=placeholders)


@pytest.mark.parametrize(
    ("prompt", "found"),
    [("<|image_pad|>?", "<|image_pad|>"), ("[img] [img]", "[img]"), ("<IMAGE>", "<IMAGE>")],
)
def test_placeholders_of_other_families_are_warned_about(prompt: str, found: str) -> None:
    chosen, other = manifest("own", "<image>"), manifest("other", "<|image_pad|>", "[IMG]")
    samples = [asked(prompt), asked("<image>"), asked("Color:")]
    (warning,) = strange_placeholders(chosen, [chosen, other], samples)
    assert warning.startswith(f"1 prompt: {found} stands for an image in prompts of o")
    assert "'own' reads it as text. Its own is <image>." in warning


class Told:
    """Keeps what a run says."""

    def __init__(self) -> None:
        self.notes, self.warnings = list[str](), list[str]()

    def note(self, text: str) -> None:
        self.notes.append(text)

    def warn(self, text: str) -> None:
        self.warnings.append(text)

    def stage(self, name: str, total: int) -> None: ...

    def advance(self, done: int) -> None: ...


def composed(prompts: Sequence[str], told: Any = None, **settings: Any) -> Any:
    samples = [Sample(f"s{i}", prompt, (IMAGE,)) for i, prompt in enumerate(prompts)]
    spec = make_spec({"sites": ["llm.block.0/last"], **settings})
    return compose(spec, Registry.default(), observer=told, analyse=False, data=samples)


def test_one_bad_prompt_stops_composing_or_is_skipped() -> None:
    prompts = ["Color:", "<image> <image>", "<|image_pad|> is red", "<image>\nShape:"]
    with pytest.raises(DataError, match=r"1 of 4 samples .*\n  s1: the prompt has 2 <image>"):
        composed(prompts)
    told = Told()
    plan = composed(prompts, told, on_bad_sample="skip")
    assert [sample.id for sample in plan.samples] == ["s0", "s2", "s3"]
    assert [(bad.id, bad.image) for bad in plan.skipped] == [("s1", "the prompt")]
    assert any("s1: the prompt has 2 <image>" in text for text in told.warnings)
    assert any("<|image_pad|> stands for an image" in text for text in told.warnings)
    assert any("1 prompt: <image> is left out" in text for text in told.notes)
    with pytest.raises(DataError, match="no sample is left"):
        composed(["<image><image>"], on_bad_sample="skip")


def test_a_run_with_placeholders_ends_well(tmp_path: Path) -> None:
    image = tmp_path / "red.png"
    IMAGE.save(image)
    run = vlmlens.extract(
        data=str(image), prompt=["<image>\nColor:", "Color of <image>:"],
        sites="llm.block.0/last", out=str(tmp_path / "run"), device="cpu", progress=False,
    )  # fmt: skip
    assert len(run.samples) == 2
    assert run.info["state"] == "finished"
