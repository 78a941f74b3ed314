"""Covers: which pixels are hidden, by what, and how they are written."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from PIL import Image

from vlmlens import Sample
from vlmlens.compose.looking import questions
from vlmlens.covers import Cover, covered
from vlmlens.errors import DataError
from vlmlens_plugins.analysis.look.report import covered as said_covered


def picture(width: int = 20, height: int = 10) -> Image.Image:
    rng = np.random.default_rng(0)
    return Image.fromarray(rng.integers(0, 256, (height, width, 3), np.uint8))


def changed(before: Image.Image, sample: Sample) -> Any:
    return (np.asarray(before) != np.asarray(sample.images[0])).any(-1)


def test_a_cover_hides_its_pixels_and_no_others() -> None:
    own = picture()
    found = changed(own, covered(Sample("s", "?", (own,)), [Cover(0.25, 0.1, 0.5, 0.4)]))
    expected = np.zeros((10, 20), bool)
    expected[1:4, 5:10] = True
    assert (found == expected).all()


def test_swapped_edges_would_be_noticed() -> None:
    own, cover = picture(), Cover(0.25, 0.1, 0.5, 0.4)
    swapped = Cover(cover.top, cover.left, cover.bottom, cover.right)
    sample = Sample("s", "?", (own,))
    assert (
        changed(own, covered(sample, [cover])) != changed(own, covered(sample, [swapped]))
    ).any()


def test_the_mean_is_of_the_whole_picture_before_any_cover() -> None:
    own = picture()
    made = covered(Sample("s", "?", (own, own)), [Cover(0, 0, 0.5, 1), Cover(0.5, 0, 1, 1)])
    first, second = (np.asarray(image) for image in made.images)
    mean = np.asarray(own).reshape(-1, 3).mean(0).round()
    assert (first == mean).all()
    assert (second == np.asarray(own)).all(), "only the first picture is covered"


@pytest.mark.parametrize("cells", [3, 7, 24, 27])
def test_covers_of_all_patches_leave_no_pixel_and_overlap_in_none(cells: int) -> None:
    marks = np.zeros((336, 336), int)
    for row in range(cells):
        for column in range(cells):
            edges = [column / cells, row / cells, (column + 1) / cells, (row + 1) / cells]
            left, top, right, bottom = Cover.of(edges).pixels(336, 336)
            marks[top:bottom, left:right] += 1
    assert (marks == 1).all()


def test_a_tiny_cover_hides_a_pixel() -> None:
    assert Cover(0.999, 0.999, 1, 1).pixels(10, 10) == (9, 9, 10, 10)


@pytest.mark.parametrize("text", ["0.25,0,0.5,1", "0.1,0.2,0.30000000000000004,1", "1e-07,0,1,1"])
def test_text_reads_back(text: str) -> None:
    cover = Cover.parse(text)
    assert Cover.parse(str(cover)) == cover


@pytest.mark.parametrize(
    "text", ["", "1", "0,0,1", "0,0,1,1,1", "a,b,c,d", "nan,0,1,1", "0,0,inf,1", "-0.1,0,1,1",
             "0,0,1.1,1", "0.5,0,0.5,1", "0.6,0,0.5,1", "0,1,1,0"],
)  # fmt: skip
def test_what_is_no_rectangle_is_refused(text: str) -> None:
    with pytest.raises(DataError):
        Cover.parse(text)


def test_what_cannot_be_covered_is_said() -> None:
    with pytest.raises(DataError, match="no picture"):
        covered(Sample("s", "?"), [Cover(0, 0, 1, 1)])
    sample = Sample("s", "?")
    assert covered(sample, []) is sample


def test_a_look_says_which_parts_of_its_picture_are_covered() -> None:
    own, other = picture(), picture(24)
    covers = [Cover(0, 0, 0.5, 1), Cover(0.5, 0, 1, 0.25)]
    texts = ["Which color?", "Which shape?"]
    assert said_covered(questions([own], texts, covers=covers)) == ["0,0,0.5,1 and 0.5,0,1,0.25"]
    assert said_covered(questions([own], texts)) == []
    first, second = questions([own], texts[:1], covers=covers, against=other)
    assert [said_covered([each]) for each in (first, second)] == [
        ["0,0,0.5,1 and 0.5,0,1,0.25"],
        [],
    ]
    assert [each.attributes["role"] for each in (first, second)] == ["clean", "corrupted"]
