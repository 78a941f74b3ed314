"""What the blind test shows instead of the image."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from PIL import Image
from pydantic import ValidationError

from vlmlens.abc import ForwardOutput
from vlmlens.abc.unit_batches import run_here
from vlmlens.errors import MissingAnnotation
from vlmlens.samples import Sample
from vlmlens_plugins.analysis._blank_images import blanked, image_sizes, others
from vlmlens_plugins.analysis._scoring import AnswerScorer
from vlmlens_plugins.analysis.blind_test import BlindOptions, BlindTest
from vlmlens_plugins.analysis.blind_test.closed_questions import ClosedQuestions
from vlmlens_plugins.analysis.blind_test.conditions import Conditions
from vlmlens_plugins.analysis.blind_test.open_questions import FirstTokenQuestions

RNG = np.random.default_rng(0)


def picture(width: int = 30, height: int = 20) -> Image.Image:
    return Image.fromarray(RNG.integers(0, 256, (height, width, 3), dtype=np.uint8))


def sample(i: int = 0, **more: Any) -> Sample:
    return Sample(f"s{i}", **{"prompt": "?", "images": (picture(),), "group": f"g{i}", **more})


def shown(one: Sample, blank: Any, seed: int = 0, **more: Any) -> Any:
    (image,) = blanked(one, blank, seed, **more).open_images()
    return np.asarray(image).astype(int)


@pytest.mark.parametrize("blank", ["gray", "black", "white", "noise"])
def test_blanks_have_the_size_of_the_image_and_show_nothing(blank: Any, tmp_path: Path) -> None:
    picture = Image.new("RGB", (30, 20), (255, 0, 0))
    exif = picture.getexif()
    exif[0x0112] = 6
    picture.save(tmp_path / "turned.jpg", exif=exif)
    sample = Sample("s", "?", images=(str(tmp_path / "turned.jpg"), Image.new("RGB", (30, 20))))
    assert image_sizes(sample) == [image.size for image in sample.open_images()]
    first, second = blanked(sample, blank, 0).open_images()
    assert (first.size, second.size) == ((20, 30), (30, 20))
    deviation = np.asarray(first).std()
    assert deviation > 50 if blank == "noise" else deviation == 0


def test_noise_is_seeded_per_sample() -> None:
    sample = Sample("s", "?", images=(Image.new("RGB", (8, 8)),))

    def pixels(identifier: str, seed: int) -> bytes:
        return blanked(replace(sample, id=identifier), "noise", seed).open_images()[0].tobytes()

    assert pixels("a", 0) == pixels("a", 0)
    assert len({pixels("a", 0), pixels("b", 0), pixels("a", 1)}) == 3


def test_without_images_only_text_is_left() -> None:
    sample = Sample("s", "?", images=(Image.new("RGB", (8, 8)),))
    assert blanked(sample, "none", 0).images == ()


def test_the_mean_color_is_that_of_the_upright_rgb_image() -> None:
    one = sample()
    pixels = np.asarray(one.open_images()[0], float)
    found = shown(one, "mean")
    assert found.shape == pixels.shape
    assert (found == pixels.mean((0, 1)).round()).all()


def test_a_blur_keeps_the_mean_and_little_else() -> None:
    one = sample(images=(picture(64, 64),))
    before = np.asarray(one.open_images()[0], float)
    weak, strong = shown(one, "blur", blur=0.02), shown(one, "blur", blur=0.3)
    assert before.std() > 3 * weak.std() > 3 * strong.std()
    assert strong.mean() == pytest.approx(before.mean(), abs=3)


@pytest.mark.parametrize(("width", "height"), [(32, 32), (37, 45), (5, 3)])
def test_shuffling_moves_patches_and_changes_none(width: int, height: int) -> None:
    one = sample(images=(picture(width, height),))
    before = np.asarray(one.open_images()[0]).astype(int)
    found = shown(one, "shuffle", grid=8)
    rows, columns = min(8, height), min(8, width)
    high, wide = height // rows, width // columns

    def patches(pixels: Any) -> list[bytes]:
        return [
            pixels[r * high : (r + 1) * high, c * wide : (c + 1) * wide].tobytes()
            for r in range(rows)
            for c in range(columns)
        ]

    assert sorted(patches(found)) == sorted(patches(before))
    assert patches(found) != patches(before)
    assert (found[rows * high :] == before[rows * high :]).all()
    assert (found[:, columns * wide :] == before[:, columns * wide :]).all()
    assert (shown(one, "shuffle", 1) != found).any()
    assert (shown(replace(one, id="t"), "shuffle") != found).any()


def test_every_group_is_shown_another_ones_images() -> None:
    samples = [sample(i, group=f"g{i // 3}") for i in range(12)]
    pairs = [sample(20 + i, images=(picture(), picture())) for i in range(2)]
    found = {name: one.images for name, one in others([*samples, *pairs], 0).items()}
    owner = {id(image): s.group for s in [*samples, *pairs] for image in s.images}
    for one in [*samples, *pairs]:
        assert len(found[one.id]) == len(one.images)
        assert {owner[id(image)] for image in found[one.id]}.isdisjoint({one.group})
    donors = {owner[id(found[one.id][0])] for one in samples}
    assert donors == {one.group for one in samples}
    assert found.keys() == others([*samples, *pairs], 0).keys()
    assert any(others(samples, s)["s0"].images != found["s0"] for s in range(1, 5))


def test_one_group_alone_has_no_other() -> None:
    alone = [sample(i, group="g") for i in range(3)]
    with pytest.raises(MissingAnnotation, match="cannot be shown another sample's image"):
        BlindTest(BlindOptions(blank="other")).check(alone, ())


def test_kinds_are_named_once_and_may_be_one_word() -> None:
    assert BlindOptions(blank="noise").blank == ("noise",)
    assert BlindOptions(blank=["shuffle", "none"]).decisive == ("none",)
    assert BlindOptions(blank=["shuffle", "blur"]).decisive == ("shuffle", "blur")
    for wrong in ([], ["gray", "gray"], "purple"):
        with pytest.raises(ValidationError):
            BlindOptions(blank=wrong)


class Measuring:
    """Answers by the size of the image that it is shown; notes what it was asked."""

    active_edits: ClassVar[list[Any]] = []

    def __init__(self) -> None:
        self.asked: list[list[str]] = []

    def choice_scores(self, samples: Any) -> list[list[float]]:
        self.asked.append([one.id for one in samples])
        return [[0.0, -self._width(one)] for one in samples]

    def encode(self, samples: Any) -> Any:
        return samples

    def forward(self, batch: Any, *, logits: str) -> ForwardOutput:
        self.asked.append([one.id for one in batch])
        return ForwardOutput(torch.tensor([[0.0, self._width(one)] for one in batch]))

    def decode(self, token_ids: Any) -> str:
        return str(token_ids)

    def answer_ids(self, answer: str) -> list[int]:
        return [len(answer)]

    def _width(self, one: Sample) -> float:
        return float(sum(width for width, _ in image_sizes(one)))


TWELVE = [
    sample(
        i,
        prompt="ab"[i % 2],
        images=(picture(30 + 2 * (i % 4 == 1), 20),),
        choices=("x", "y"),
        attributes={"regions": f'{{"thing": [0, 0, {i + 1}, 9]}}'},
    )
    for i in range(12)
]
"""Two prompts, one of which is asked about images of two sizes. Their regions do not count."""


@pytest.mark.parametrize(
    ("blank", "asked"), [("gray", 3), ("none", 2), ("noise", 12), ("mean", 12), ("other", 12)]
)
@pytest.mark.parametrize("kind", [ClosedQuestions, FirstTokenQuestions])
def test_equal_blank_questions_are_asked_once(blank: Any, asked: int, kind: Any) -> None:
    """The same question about another sample's image may be that sample's own question."""
    vlm: Any = Measuring()
    options = BlindOptions(blank=blank)
    conditions = Conditions(TWELVE, options, 0)
    questions: Any
    if kind is ClosedQuestions:
        questions = ClosedQuestions(conditions, options, 5)
    else:
        questions = FirstTokenQuestions(conditions, 5, AnswerScorer(vlm))
    questions.put("task", TWELVE)
    results = run_here(
        vlm, questions.work, questions.units, 5, warn=pytest.fail, progress=lambda *steps: None
    )
    assert vlm.asked[0] == ["s0", "s1", "s2", "s3", "s4"]
    both = 6 if (kind, blank) == (ClosedQuestions, "other") else 0
    assert sum(map(len, vlm.asked)) == 12 + asked - both
    assert len(questions.answers(results)["task"].samples) == 12
    if kind is ClosedQuestions and blank == "gray":
        widths = [-y for _, y in results[12:]]
        assert widths == [vlm._width(one) for one in TWELVE]
