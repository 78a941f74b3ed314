"""Frames of video files: the right ones, of every kind of file; what cannot be used is said."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from tests.unit._clips import SIZE, make_clip, number_of, numbers

from vlmlens.errors import MissingDependency, VideoError
from vlmlens.samples import Sample
from vlmlens.video_files import BadVideo, is_video, opened, read_frames
from vlmlens.video_frames import FrameFiles, with_frames
from vlmlens.videos import FrameRule, Video

av = pytest.importorskip("av")

GROWING = [i * 100 if i < 12 else 1200 + (i - 12) * 40 for i in range(24)]
"""Milliseconds: ten frames per second, then twenty-five."""

FILES: dict[str, dict[str, Any]] = {
    "h264.mp4": {},
    "open.mkv": {"options": {"x264-params": "open-gop=1:bframes=3:keyint=8:min-keyint=8"}},
    "vp9.webm": {"codec": "libvpx-vp9"},
    "mpeg4.avi": {"codec": "mpeg4"},
    "mpeg2.mpg": {"codec": "mpeg2video", "fps": 25},
    "h264.ts": {},
    "raw.h264": {},
    "ffv1.mkv": {"codec": "ffv1"},
    "uneven.mp4": {"times": GROWING},
    "uneven.mkv": {"times": GROWING},
    "one.mp4": {"frames": 1},
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("clips")
    for name, settings in FILES.items():
        make_clip(made / name, **settings)
    return made


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("VLMLENS_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def clip(path: Path, **known: Any) -> Sample:
    return Sample("a", "?", video=Video(str(path)), **known)


def framed(path: Path, **rule: Any) -> Sample:
    (found,) = with_frames([clip(path)], FrameRule(**rule))
    return found


# --------------------------------------------------------------------------- the right frames


@pytest.mark.parametrize("name", FILES)
def test_the_frames_are_those_of_their_numbers(folder: Path, name: str) -> None:
    total = FILES[name].get("frames", 24)
    sample = framed(folder / name)
    assert sample.video is not None
    assert sample.video.total == total
    expected = [i * total // 9 for i in range(1, 9)] if total > 8 else [0]
    assert list(sample.video.frames) == expected
    assert numbers(sample) == list(sample.video.frames)
    assert sample.video.source == str(folder / name)


@pytest.mark.parametrize("name", ["h264.mp4", "open.mkv", "mpeg2.mpg", "raw.h264"])
def test_any_frames_alone_are_the_same_as_in_a_row(folder: Path, name: str) -> None:
    path = str(folder / name)
    known = opened(path)
    row = dict(read_frames(known, range(24)))
    assert [number_of(image) for image in row.values()] == list(row) == list(range(24))
    rng = np.random.default_rng(0)
    for count in (1, 1, 2, 3):
        wanted = sorted(rng.choice(24, count, replace=False).tolist())
        for number, image in read_frames(known, wanted):
            assert np.array_equal(np.asarray(image), np.asarray(row[number]))


def test_a_shift_by_one_frame_would_be_seen(folder: Path) -> None:
    known = opened(str(folder / "h264.mp4"))
    shifted = replace(known, stamps=known.stamps[1:])
    assert [number_of(image) for _, image in read_frames(shifted, (3, 9))] == [4, 10]


def test_times_are_the_files_own(folder: Path) -> None:
    for name in ("uneven.mp4", "uneven.mkv"):
        video = framed(folder / name, count=24).video
        assert video is not None
        assert np.allclose(video.times, np.array(GROWING) / 1000, atol=2e-3)
        assert video.fps == pytest.approx(23 / (GROWING[-1] / 1000), rel=2e-3)
    even = framed(folder / "h264.mp4", count=2).video
    assert even is not None
    assert (even.fps, even.duration, even.times) == (10.0, 2.4, (0.8, 1.6))
    assert framed(folder / "raw.h264").video.times == ()  # type: ignore[union-attr]


def test_frames_per_second(folder: Path) -> None:
    assert numbers(framed(folder / "h264.mp4", count=None, fps=2.5)) == [3, 6, 10, 13, 17, 20][:6]


def test_turned_videos_are_upright(tmp_path: Path) -> None:
    path = make_clip(tmp_path / "turned.mp4", 2, turned=90)
    sample = framed(path, count=1)
    shown = np.asarray(Image.open(str(sample.images[0])).convert("L"))
    height, width = shown.shape
    assert (width, height) == SIZE[::-1]
    tops = shown[: height // 5, : width // 5], shown[: height // 5, -width // 5 :]
    bottoms = shown[-height // 5 :, : width // 5], shown[-height // 5 :, -width // 5 :]
    bright = [bool(corner.mean() > 128) for corner in (*tops, *bottoms)]
    assert bright == [False, False, True, False]  # counterclockwise: the upper left goes down


def test_a_sample_keeps_the_rest_and_others_stay(folder: Path) -> None:
    own = clip(folder / "h264.mp4", label="x", group="g", attributes={"k": 1})
    still = Sample("b", "?", (Image.new("RGB", (4, 4)),))
    shown, same = with_frames([own, still], FrameRule(count=2))
    assert (shown.label, shown.group, dict(shown.attributes)) == ("x", "g", {"k": 1})
    assert same is still
    assert with_frames([shown]) == [shown]


# --------------------------------------------------------------------------- the cache


def test_a_video_is_opened_once_for_all_runs(
    folder: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = framed(folder / "h264.mp4")
    files = sorted(cache.rglob("*.png"))
    assert len(files) == 8
    copy = cache.parent / "copy.mp4"
    copy.write_bytes((folder / "h264.mp4").read_bytes())
    assert framed(copy).images == first.images  # named by content
    monkeypatch.setitem(sys.modules, "av", None)
    assert framed(folder / "h264.mp4") == first
    with pytest.raises(MissingDependency, match=r"vlmlens\[video\]"):
        framed(folder / "h264.mp4", count=3)  # other frames: it is opened again


def test_a_changed_file_is_read_again(tmp_path: Path) -> None:
    path = make_clip(tmp_path / "a.mkv", 24, codec="ffv1")
    before = framed(path, count=2)
    make_clip(path, 12, codec="ffv1")
    after = framed(path, count=2)
    assert (numbers(before), numbers(after)) == ([8, 16], [4, 8])


def test_missing_frames_are_made_again(folder: Path) -> None:
    first = framed(folder / "vp9.webm", count=3)
    Path(str(first.images[1])).unlink()
    assert numbers(framed(folder / "vp9.webm", count=3)) == [6, 12, 18]


def test_memory_holds_one_frame_at_a_time(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    alive, most = 0, 0
    upright = sys.modules["vlmlens.video_files"]._upright

    class Counted:
        def __init__(self, image: Image.Image) -> None:
            nonlocal alive, most
            self.image, alive = image, alive + 1
            most = max(most, alive)

        def save(self, *arguments: Any, **settings: Any) -> None:
            self.image.save(*arguments, **settings)

        def __del__(self) -> None:
            nonlocal alive
            alive -= 1

    monkeypatch.setattr("vlmlens.video_files._upright", lambda frame: Counted(upright(frame)))
    framed(folder / "h264.mp4", count=20)
    assert most <= 2


# --------------------------------------------------------------------------- what cannot be used


def cut(path: Path, made: Path, share: float) -> Path:
    data = path.read_bytes()
    made.write_bytes(data[: int(len(data) * share)])
    return made


def bad(path: Path | str, **rule: Any) -> str:
    with pytest.raises(VideoError) as caught:
        with_frames([Sample("a", "?", video=Video(str(path)))], FrameRule(**rule))
    assert str(path) in caught.value.message
    return caught.value.message


def test_files_that_are_no_video(tmp_path: Path) -> None:
    (tmp_path / "empty.mp4").touch()
    (tmp_path / "text.mp4").write_text("no video")
    Image.new("RGB", (8, 8)).save(tmp_path / "picture.png")
    (tmp_path / "picture.png").rename(tmp_path / "picture.mp4")
    assert "the file is empty" in bad(tmp_path / "empty.mp4")
    assert "cannot be read" in bad(tmp_path / "text.mp4")
    assert "cannot be read" in bad(tmp_path / "picture.mp4")
    assert "no such file" in bad(tmp_path / "gone.mp4")
    assert "it is a folder" in bad(tmp_path)
    assert "no file is named" in bad("")


def test_texts_that_name_other_files_are_no_videos(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "list.mp4").write_text(f"ffconcat version 1.0\nfile {folder / 'h264.ts'}\n")
    (tmp_path / "h264.ts").write_bytes((folder / "h264.ts").read_bytes())
    (tmp_path / "near.mp4").write_text("ffconcat version 1.0\nfile h264.ts\n")
    hls = "#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\nh264.ts\n#EXT-X-ENDLIST\n"
    (tmp_path / "play.mp4").write_text(hls)
    for name in ("list.mp4", "near.mp4", "play.mp4"):
        assert "cannot be read" in bad(tmp_path / name)


@pytest.mark.parametrize("address", ["http://a.org/b.mp4", "https://a.org/b.mp4", "rtsp://a/b"])
def test_addresses_are_not_fetched(address: str) -> None:
    assert "download the video first" in bad(address)


def test_what_is_cut_off_or_damaged_is_refused(folder: Path, tmp_path: Path) -> None:
    for name in ("h264.mp4", "vp9.webm", "ffv1.mkv"):
        for share in (0.3, 0.6):
            bad(cut(folder / name, tmp_path / name, share))
    data = bytearray((folder / "ffv1.mkv").read_bytes())
    middle = len(data) // 2
    data[middle : middle + 400] = bytes(400)
    (tmp_path / "hole.mkv").write_bytes(data)
    bad(tmp_path / "hole.mkv", count=24)


def test_a_video_with_too_many_pixels_is_refused(folder: Path) -> None:
    files = FrameFiles(FrameRule(), max_pixels=SIZE[0] * SIZE[1] - 1)
    with pytest.raises(BadVideo, match="64 x 48 pixels, too many"):
        files.framed(clip(folder / "h264.mp4"))
    framed(folder / "h264.mp4")
    with pytest.raises(BadVideo, match="64 x 48 pixels, too many"):  # also where it is known
        FrameFiles(FrameRule(), max_pixels=10).framed(clip(folder / "h264.mp4"))


def test_images_beside_a_video_file_are_refused(folder: Path) -> None:
    both = Sample("a", "?", ("1.png",), video=Video(str(folder / "h264.mp4")))
    with pytest.raises(VideoError, match="has images, too"):
        with_frames([both])


def test_pipes_are_not_opened(tmp_path: Path) -> None:
    import os

    os.mkfifo(tmp_path / "pipe.mp4")
    assert "no such file" in bad(tmp_path / "pipe.mp4")


def test_videos_are_told_by_their_suffix() -> None:
    assert is_video("a/B.MP4")
    assert not is_video("a.gif")
