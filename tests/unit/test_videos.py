"""Which frames of a video a sample's images are, and the rules by which frames are taken."""

from __future__ import annotations

import json
import pickle
import re
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from vlmlens.errors import DataError
from vlmlens.extraction.batching import _key
from vlmlens.sample_table import SampleTable
from vlmlens.samples import Sample, check_encodable, with_prompts
from vlmlens.videos import FrameRule, Spread, Video

SHOWN = Video("a.mp4", (2, 5), (0.2, 0.5), fps=10.0, total=8, duration=0.8)
PICTURE = Image.new("RGB", (8, 8))
SPREADS: list[Spread] = ["interior", "start", "middle", "ends"]


def of_clip(**changed: Any) -> Sample:
    return Sample("a", "What?", ("1.png", "2.png"), video=replace(SHOWN, **changed))


# --------------------------------------------------------------------------- the field


def test_json_pickle_and_packing_keep_a_video() -> None:
    waiting = Sample("b", "?", video=Path("b.mp4"))  # type: ignore[arg-type]
    samples = [of_clip(), waiting, Sample("c", "?", ("1.png",))]
    for sample in samples:
        again = Sample.from_dict(json.loads(json.dumps(sample.to_dict())))
        assert again == sample == pickle.loads(pickle.dumps(sample))
    table = SampleTable(samples)
    assert list(table) == samples
    assert table.videos == 2
    assert [asked.video for asked in with_prompts(samples, ["x", "y"])][:2] == [SHOWN, SHOWN]
    assert "video" not in samples[2].to_dict()


def test_lines_of_a_run_tell_how_many_videos_there_are() -> None:
    lines = [json.dumps(each.to_dict()).encode() for each in (of_clip(), Sample("c", "?"))]
    table = SampleTable.of_lines(lines, Sample.from_dict)
    assert (table.videos, table[0].video) == (1, SHOWN)


def test_numbers_of_other_kinds_become_pythons_own() -> None:
    video = Video("a", np.arange(3), np.array([0, 0.5, 1]), fps=np.float32(2))  # type: ignore[arg-type]
    assert json.loads(json.dumps(video.to_dict())) == {
        "source": "a",
        "frames": [0, 1, 2],
        "times": [0.0, 0.5, 1.0],
        "fps": 2.0,
    }


@pytest.mark.parametrize(
    "wrong",
    [
        {"frames": (1, 0)},
        {"frames": (-1, 0)},
        {"frames": (0.5,)},
        {"frames": (True,)},
        {"frames": 3},
        {"frames": ("1",)},
        {"frames": (5,), "total": 5},
        {"frames": (1, 2), "times": (0.1,)},
        {"frames": (1,), "times": (float("nan"),)},
        {"fps": 0},
        {"fps": float("inf")},
        {"fps": "fast"},
        {"duration": -1},
    ],
)
def test_numbers_that_make_no_sense_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(DataError, match="video 'a'"):
        Video("a", **wrong)


def test_a_frame_may_come_twice() -> None:
    assert Video("a", (3, 3)).frames == (3, 3)


def test_seconds_are_the_files_own_or_by_the_rate() -> None:
    assert SHOWN.seconds == (0.2, 0.5)
    assert replace(SHOWN, times=(), fps=20.0).seconds == (0.1, 0.25)
    assert replace(SHOWN, times=(), fps=None).seconds is None


def test_images_without_a_file_are_all_frames_in_order() -> None:
    sample = Sample("a", "?", ("1.png", "2.png", "3.png"), video=Video(fps=2))
    assert sample.video == Video("", (0, 1, 2), fps=2, total=3)
    assert sample.video.seconds == (0, 0.5, 1)


def test_a_sample_that_lost_its_images_has_no_video() -> None:
    assert replace(of_clip(), images=()).video is None
    assert replace(Sample("a", "?", video=Video("a.mp4")), images=()).video == Video("a.mp4")


def test_the_fingerprint_is_of_the_frames_and_not_of_the_files_name() -> None:
    def fingerprint(sample: Sample) -> str:
        return sample.fingerprint(["1", "2"])

    first = fingerprint(of_clip())
    assert first == fingerprint(of_clip(source="elsewhere.mkv"))
    for changed in ({"frames": (2, 6)}, {"times": (0.2, 0.6)}, {"fps": 5.0}, {"total": 9}):
        assert fingerprint(of_clip(**changed)) != first
    assert fingerprint(replace(of_clip(), video=None)) != first
    assert fingerprint(of_clip().as_seen()) == first


def test_samples_of_one_video_are_one_group() -> None:
    ids = {of_clip().split_group, of_clip(frames=(1, 3)).split_group}
    assert ids == {"a.mp4"}
    assert replace(of_clip(), group="g").split_group == "g"
    assert of_clip(source="").split_group == "1.png|2.png"


def test_equal_frames_of_other_videos_share_nothing() -> None:
    keys = {_key(each) for each in (of_clip(), of_clip(fps=5.0), replace(of_clip(), video=None))}
    assert len(keys) == 3
    assert _key(of_clip(source="b.mp4")) == _key(of_clip())


@pytest.mark.parametrize(
    ("sample", "said"),
    [
        (Sample("a", "?", video=Video("a.mp4")), "'a.mp4' with 0 frames and 0 images.*with_frames"),
        (Sample("a", "?", (PICTURE,), video=SHOWN), "2 frames and 1 image"),
        (Sample("a", "?", (PICTURE,), video=Video("a.mp4")), "0 frames and 1 image"),
        (Sample("a", "?", video=Video()), "a video with 0 frames"),
    ],
)
def test_a_video_whose_frames_are_not_the_images_is_not_encoded(sample: Sample, said: str) -> None:
    with pytest.raises(DataError) as caught:
        check_encodable([sample])
    assert re.search(said, str(caught.value))
    with pytest.raises(DataError):
        sample.open_images()


def test_a_repr_tells_frames_from_images() -> None:
    assert repr(of_clip()) == "<Sample 'a': 2 frames, prompt 'What?'>"
    assert repr(Sample("a", "?", video=SHOWN)) == "<Sample 'a': 0 images, prompt '?'>"
    assert repr(Sample("a", "?", video=Video("a.mp4"))) == "<Sample 'a': a video, prompt '?'>"


# --------------------------------------------------------------------------- rules


def test_the_default_is_the_eight_interior_points() -> None:
    assert FrameRule().indices(90, None) == (10, 20, 30, 40, 50, 60, 70, 80)
    assert FrameRule().indices(90, None) == tuple(i * 90 // 9 for i in range(1, 9))


@pytest.mark.parametrize(
    ("spread", "found"),
    [
        ("interior", (20, 40, 60, 80)),
        ("start", (0, 25, 50, 75)),
        ("middle", (12, 37, 62, 87)),
        ("ends", (0, 33, 66, 99)),
    ],
)
def test_where_frames_lie(spread: Spread, found: tuple[int, ...]) -> None:
    assert FrameRule(count=4, spread=spread).indices(100, None) == found


@given(st.integers(1, 500), st.integers(1, 64), st.sampled_from(SPREADS))
def test_frames_are_there_in_order_and_once(total: int, count: int, spread: Spread) -> None:
    found = FrameRule(count=count, spread=spread).indices(total, None)
    assert len(found) == len(set(found)) == min(count, total)
    assert list(found) == sorted(found)
    assert 0 <= found[0] <= found[-1] < total


def test_ends_are_the_nearest_to_even_steps() -> None:
    for total in range(2, 80):
        for count in range(2, min(total, 20)):
            even = [round(Fraction(i * (total - 1), count - 1)) for i in range(count)]
            assert even == list(FrameRule(count=count, spread="ends").indices(total, None))
            floats = np.linspace(0, total - 1, count).round()  # numpy's halves are not exact
            assert np.abs(floats - even).max() <= 1


def test_frames_per_second_of_the_video() -> None:
    rule = FrameRule(count=None, fps=2, least=4, most=10, multiple=2, spread="start")
    assert len(rule.indices(90, 30.0)) == 6
    assert len(rule.indices(100, 30.0)) == 6
    assert len(rule.indices(30, 30.0)) == 4  # at least
    assert len(rule.indices(3_000, 30.0)) == 10  # at most
    assert rule.indices(3, 30.0) == (0, 1)  # down to a multiple
    assert rule.indices(1, 30.0) == (0,)  # a video with fewer gives them all
    with pytest.raises(DataError, match="not known"):
        rule.indices(100, None)


def test_a_count_is_rounded_to_the_nearest_multiple() -> None:
    rule = FrameRule(count=5, multiple=4)
    assert (len(rule.indices(99, None)), len(FrameRule(count=1, multiple=4).indices(99, None))) == (
        4,
        4,
    )
    assert rule.said == "numbers i*n/5 of n, i = 1 to 4"


def test_the_user_asks_otherwise() -> None:
    rule = FrameRule(spread="middle")
    assert rule.asked() is rule
    assert rule.asked(count=2).indices(100, None) == (25, 75)
    assert rule.asked(fps=1).indices(100, 50.0) == (25, 75)
    with pytest.raises(DataError, match="count 2 and fps 1"):
        rule.asked(count=2, fps=1)


@pytest.mark.parametrize("wrong", [{"count": None}, {"count": 0}, {"most": 0}, {"fps": 1.0}])
def test_a_rule_needs_one_positive_number(wrong: dict[str, Any]) -> None:
    with pytest.raises(DataError, match="Give one of both"):
        FrameRule(**wrong)
