"""The key region of samples, and other places of equal area."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from vlmlens.samples import Sample
from vlmlens_plugins.analysis._key_regions import key_regions
from vlmlens_plugins.analysis.evidence.places import overlap, places


def _inside(*box: int, size: tuple[int, int] = (40, 60)) -> list[np.ndarray[Any, Any]]:
    found = np.zeros(size, bool)
    left, top, right, bottom = box
    found[top:bottom, left:right] = True
    return [found]


def test_random_regions_have_equal_area_and_keep_off_the_region() -> None:
    inside = _inside(5, 5, 20, 20)
    moved = places(inside, 10, np.random.default_rng(0)).shifts
    assert len(set(moved)) == 10
    assert all(overlap(inside, move) == 0 for move in moved)
    for right, down in moved:
        assert 0 <= 5 + right <= 45
        assert 0 <= 5 + down <= 25


def test_a_region_that_fills_the_image_comes_in_on_the_other_side() -> None:
    wide = _inside(0, 10, 60, 30)
    moved = places(wide, 10, np.random.default_rng(0)).shifts
    assert len(moved) == 10
    assert max(overlap(wide, move) for move in moved) < 0.3
    everything = _inside(0, 0, 60, 40)
    assert places(everything, 3, np.random.default_rng(0)).overlap == 1


def test_overlap_is_the_share_of_pixels() -> None:
    inside = _inside(0, 0, 10, 10)
    assert overlap(inside, (5, 0)) == 0.5
    assert overlap(inside, (5, 5)) == 0.25
    assert overlap(inside, (0, 0)) == 1
    some = places(_inside(10, 10, 50, 30), 10, np.random.default_rng(0))
    each = [overlap(_inside(10, 10, 50, 30), move) for move in some.shifts]
    assert some.overlap == pytest.approx(np.mean(each))


def test_large_pictures_are_counted_in_cells() -> None:
    inside = _inside(100, 100, 700, 500, size=(900, 1600))
    moved = places(inside, 10, np.random.default_rng(0)).shifts
    assert max(overlap(inside, move) for move in moved) < 0.1


def _with(regions: dict[str, Any] | None, task: str = "t", **attributes: Any) -> Sample:
    about = {} if regions is None else {"regions": json.dumps(regions)}
    return Sample("s", "?", ("x.png",), "a", task=task, attributes={**about, **attributes})


BOTH = {"cup": [0, 0, 4, 4], "cat+dog": [4, 4, 8, 8]}


@pytest.mark.parametrize(
    ("wanted", "attribute", "expected"),
    [
        (None, None, ("cup", "cat+dog")),
        (None, "cup", ("cup",)),
        (None, "cat+dog", ("cat+dog",)),
        (None, "*", ("cup", "cat+dog")),
        ("cup", "cat+dog", ("cup",)),
        ("*", "cup", ("cup", "cat+dog")),
        ({"t": "cup"}, "cat+dog", ("cup",)),
        ({"u": "cup"}, "cat+dog", ("cat+dog",)),
    ],
)
def test_the_key_region(wanted: Any, attribute: str | None, expected: tuple[str, ...]) -> None:
    named = {} if attribute is None else {"region": attribute}
    samples = [_with(BOTH, **named), _with(BOTH, "u")]
    assert key_regions(samples, wanted)[0] == expected


def test_where_others_of_the_task_name_theirs_a_sample_without_has_none() -> None:
    samples = [_with(BOTH, region="cup"), _with(BOTH), _with(BOTH, "u")]
    assert key_regions(samples, None) == [("cup",), (), ("cup", "cat+dog")]
