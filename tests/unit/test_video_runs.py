"""Videos in runs: sampled once, resumed, refused before weights are loaded."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from tests.unit._clips import make_clip, make_folder, number_of, numbers, table

import vlmlens
from vlmlens.abc import WorkUnit
from vlmlens.compose.looking import questions
from vlmlens.compose.plan import Plan, compose
from vlmlens.compose.video_reading import framed
from vlmlens.errors import DataError, MissingDependency, SpecError, VideoError
from vlmlens.registry import Registry
from vlmlens.report._pictures import to_show
from vlmlens.runs.run import Run
from vlmlens.runs.trust import vetted_sample
from vlmlens.samples import Sample
from vlmlens.spec.model import RunSpec, make_spec
from vlmlens.videos import FrameRule, Video
from vlmlens_plugins.analysis._answer_work import _blind_question
from vlmlens_plugins.analysis._blank_images import blanked, others, video_said, with_images_of
from vlmlens_plugins.analysis._sweeps.work import _parts, packed_samples

pytest.importorskip("av")

COLUMN = "llm.block.1/video.mean"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_folder(tmp_path_factory.mktemp("videos"))


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("VLMLENS_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


class Told:
    """An observer that keeps what it is told."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def stage(self, name: str, total: int | None) -> None:
        self.said.append(f"stage {name} {total}")

    def advance(self, done: int) -> None: ...

    def note(self, message: str) -> None:
        self.said.append(message)

    def warn(self, message: str) -> None:
        self.said.append(message)

    def result(self, result: Any) -> None: ...


def plan(data: Any, told: Told | None = None, **values: Any) -> Plan:
    given = {"data": str(data)} if isinstance(data, Path) else {}
    settings = {"adapter": "demo", "device": "cpu", "sites": [COLUMN], **given, **values}
    samples = None if given else data
    spec = make_spec(settings)
    return compose(spec, Registry.default(), observer=told, analyse=False, data=samples)


# --------------------------------------------------------------------------- composing


def test_rows_in_memory_and_samples(folder: Path) -> None:
    path = folder / "a.mp4"
    rows = [{"video": path, "prompt": "What?"}]
    samples = [Sample("1", "What?", video=path)]  # type: ignore[arg-type]
    for data in (rows, samples):
        (one,) = plan(data, frames=3).samples
        assert numbers(one) == [6, 12, 18]


def test_frames_become_images_by_the_rule(folder: Path) -> None:
    told = Told()
    data = table(folder, [{"video": name, "prompt": "?"} for name in ("a.mp4", "b.webm")] * 2)
    found = plan(data, told, limit=3).samples
    assert [numbers(each) for each in found] == [
        [i * 24 // 9 for i in range(1, 9)],
        [i * 12 // 9 for i in range(1, 9)],
        [i * 24 // 9 for i in range(1, 9)],
    ]
    assert "stage read videos 2" in told.said  # each file once
    assert (
        "3 samples with a video: 8 frames each (numbers i*n/9 of n, i = 1 to 8), given to the "
        "model as several images, not as a video. Scores are not comparable with published video "
        "figures." in told.said
    )


def test_the_user_says_how_many(folder: Path) -> None:
    data = table(folder, [{"video": "a.mp4", "prompt": "?"}])
    assert numbers(plan(data, frames=2).samples[0]) == [8, 16]
    assert len(plan(data, fps=5).samples[0].images) == 12
    short = table(folder, [{"video": "b.webm", "prompt": "?"}], "short.jsonl")
    assert len(plan(short, frames=99).samples[0].images) == 12
    with pytest.raises(DataError, match="Give one of both"):
        plan(data, frames=2, fps=5)
    with pytest.raises(SpecError, match="no sample has a video"):
        plan([Sample("a", "?")], frames=2, sites=["llm.block.1/last"])
    with pytest.raises(SpecError, match="chosen already"):
        plan(list(plan(data).samples), fps=2)


class Family:
    """Stands for an adapter."""

    frame_rule = FrameRule(count=4, spread="ends")
    takes_video = True

    def __init__(self, most: int = 99) -> None:
        self.most = most

    def encode(self, samples: Sequence[Sample]) -> None:
        (sample,) = samples
        if len(sample.images) > self.most:
            raise DataError(f"It takes {self.most} images.", hint="Choose another adapter.")


def test_too_many_frames_for_the_model_say_how_to_take_fewer(folder: Path) -> None:
    data = table(folder, [{"video": "a.mp4", "prompt": "?"}], "long.jsonl")
    with pytest.raises(DataError, match="tokens") as caught:
        plan(data, frames=20)
    assert "--set frames=4" in caught.value.hint


def test_a_family_has_its_own_rule(folder: Path) -> None:
    samples = [Sample("a", "?", video=Video(str(folder / "a.mp4")))]
    family: Any = Family()
    found = framed(RunSpec(), samples, lambda: family, Told())
    assert numbers(found.samples[0]) == [0, 8, 15, 23]
    assert found.notes == [
        "1 sample with a video: 4 frames each (4 of n, evenly from the first to the last), given "
        "to the model as a video."
    ]


def test_a_family_of_one_image_refuses_before_a_video_is_read(folder: Path, cache: Path) -> None:
    samples = [Sample("a", "?", video=Video(str(folder / "a.mp4")))]
    family: Any = Family(most=1)
    with pytest.raises(
        DataError,
        match=r"1 images.*Tried with 2 frames of its video, given as a video.*frames=1",
    ):
        framed(RunSpec(), samples, lambda: family, Told())
    assert not list(cache.rglob("*.png"))
    one = framed(RunSpec(frames=1), samples, lambda: family, Told())
    assert numbers(one.samples[0]) == [0]


def test_bad_videos_are_listed_or_skipped(folder: Path) -> None:
    (folder / "bad.mp4").write_text("no video")
    names = ["a.mp4", "bad.mp4", "gone.mp4"]
    data = table(folder, [{"id": n, "video": n, "prompt": "?"} for n in names])
    with pytest.raises(VideoError) as caught:
        plan(data)
    assert "2 of 3 samples have a video that cannot be used" in caught.value.message
    assert "gone.mp4" in caught.value.message
    assert "--on-bad-sample skip" in caught.value.hint
    told = Told()
    made = plan(data, told, on_bad_sample="skip")
    assert made.samples.ids == ["a.mp4"]
    assert [bad.id for bad in made.skipped] == ["bad.mp4", "gone.mp4"]
    assert any("They are skipped" in line for line in told.said)
    with pytest.raises(VideoError, match=r"No sample is left\. Replace the files\."):
        plan([Sample("a", "?", video=Video("gone.mp4"))], on_bad_sample="skip")


def test_without_pyav_videos_are_refused(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(MissingDependency, match=r"vlmlens\[video\]"):
        plan([Sample("a", "?", video=Video(str(folder / "a.mp4")))])
    frames = tuple(str(folder / f"f{number}.png") for number in range(3))
    assert plan([Sample("a", "?", frames, video=Video(fps=1))]).samples[0].images == frames


# --------------------------------------------------------------------------- running


def test_a_run_keeps_the_frames_and_goes_on_without_the_file(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vlmlens.compose.recall.SETTLED", -1e6)
    source = tmp_path / "own"
    source.mkdir()
    (source / "a.mp4").write_bytes((folder / "a.mp4").read_bytes())
    data = table(source, [{"id": "a", "video": "a.mp4", "prompt": "What?"}])
    settings: dict[str, Any] = {
        "adapter": "demo", "device": "cpu", "data": str(data), "sites": [COLUMN], "frames": 3,
        "out": tmp_path / "run",
    }  # fmt: skip
    first = vlmlens.extract(**settings)
    video = first.samples[0].video
    assert video is not None
    assert (video.frames, video.times) == ((6, 12, 18), (0.6, 1.2, 1.8))
    mean = np.asarray(first.activations[COLUMN])
    records = (tmp_path / "run" / "samples.jsonl").read_text()
    told = Told()
    vlmlens.extract(**settings, mode="resume", observer=told)
    assert "stage read videos 1" not in told.said  # taken from the run
    assert any("several images" in line for line in told.said)
    assert (tmp_path / "run" / "samples.jsonl").read_text() == records
    (source / "a.mp4").unlink()
    again = vlmlens.extract(
        adapter="demo", device="cpu", data=first, sites=[COLUMN], out=tmp_path / "again"
    )
    assert np.array_equal(np.asarray(again.activations[COLUMN]), mean)
    assert again.samples[0].video == video


def test_another_sampling_is_no_resumption(folder: Path, tmp_path: Path) -> None:
    data = table(folder, [{"id": "a", "video": "a.mp4", "prompt": "What?"}])
    settings: dict[str, Any] = {
        "adapter": "demo", "device": "cpu", "data": str(data), "sites": [COLUMN],
        "out": tmp_path / "run",
    }  # fmt: skip
    vlmlens.extract(**settings, frames=2)
    with pytest.raises(vlmlens.VlmlensError, match="another prompt or image"):
        vlmlens.extract(**settings, frames=3, mode="resume")


def test_a_changed_video_is_seen_when_a_run_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vlmlens.compose.recall.SETTLED", -1e6)
    make_clip(tmp_path / "a.mkv", 24, codec="ffv1")
    data = table(tmp_path, [{"id": "a", "video": "a.mkv", "prompt": "What?"}])
    settings: dict[str, Any] = {
        "adapter": "demo", "device": "cpu", "data": str(data), "sites": [COLUMN],
        "frames": 2, "out": tmp_path / "run",
    }  # fmt: skip
    vlmlens.extract(**settings)
    make_clip(tmp_path / "a.mkv", 12, codec="ffv1")
    with pytest.raises(vlmlens.VlmlensError, match="another prompt or image"):
        vlmlens.extract(**settings, mode="resume")


def test_a_foreign_run_names_no_video_to_open(folder: Path, tmp_path: Path) -> None:
    outside = Sample("a", "?", video=Video(str(folder / "a.mp4")))
    vetted = vetted_sample(outside, tmp_path)
    with pytest.raises(VideoError, match="cannot be used"):
        plan([vetted])
    assert vetted_sample(outside, folder) is outside


SCORE = """
from vlmlens.abc import Analysis
from vlmlens.results import Result


class Score(Analysis):
    def uses(self, samples):
        return frozenset({USED})

    def run(self, context):
        return Result("score", f"{len(context.samples)} samples")
"""


def test_videos_are_not_read_where_nothing_looks_at_them(folder: Path, tmp_path: Path) -> None:
    rows = [{"id": n, "video": n, "prompt": "?"} for n in ("a.mp4", "gone.mp4")]
    data = table(folder, rows, "answers.jsonl")
    for used, name in (("", "own"), ("'model'", "asks")):
        (tmp_path / f"{name}.py").write_text(
            SCORE.replace("{USED}", f"({used},)" if used else "()")
        )
    settings: dict[str, Any] = {"adapter": "demo", "device": "cpu", "data": str(data)}
    run = vlmlens.run(
        **settings, analysis=f"{tmp_path / 'own.py'}:Score", out=tmp_path / "run", observer=Told()
    )
    assert run.results["score"].title == "2 samples"
    assert [each.video and each.video.decoded for each in run.samples] == [False, False]
    with pytest.raises(VideoError, match="gone"):
        vlmlens.run(**settings, analysis=f"{tmp_path / 'asks.py'}:Score", out=tmp_path / "other")


def test_a_look_takes_videos(folder: Path) -> None:
    (one, two) = questions([folder / "a.mp4"], ["What?"], against=folder / "b.webm")
    assert (one.images, one.video) == ((), Video(str((folder / "a.mp4").resolve())))
    assert two.video == Video(str((folder / "b.webm").resolve()))
    with pytest.raises(DataError, match="nothing differs"):
        questions([folder / "a.mp4"], ["What?"], against=folder / "a.mp4")


# --------------------------------------------------------------------------- other images


def clip(name: str, level: int) -> Sample:
    frames = tuple(Image.new("RGB", (8, 8), (level + i,) * 3) for i in range(2))
    video = Video(f"{name}.mp4", (0, level), fps=2.0, total=level + 1)
    return Sample(name, "?", frames, video=video)


@pytest.mark.parametrize("blank", ["gray", "noise", "mean", "shuffle"])
def test_blank_frames_are_still_frames_of_a_video(blank: str) -> None:
    sample = clip("a", 10)
    made = blanked(sample, blank, 0)
    assert sample.video is not None
    assert made.video is not None
    assert (made.video.frames, made.video.fps) == (sample.video.frames, 2.0)
    assert blanked(sample, "none", 0).video is None


def test_another_videos_frames_come_with_their_numbers() -> None:
    samples = [clip("a", 10), clip("b", 20)]
    still = [Sample(n, "?", (Image.new("RGB", (8, 8), c),) * 2) for n, c in (("c", 1), ("d", 2))]
    pairs = others([*samples, *still], 0)
    assert {name: other.id for name, other in pairs.items()} == {
        "a": "b", "b": "a", "c": "d", "d": "c",
    }  # fmt: skip
    assert with_images_of(samples[0], samples[1]).video == samples[1].video
    assert with_images_of(samples[0], still[0]).video is None


def test_samples_that_travel_together_keep_their_videos() -> None:
    samples = [clip("a", 10), Sample("s", "?", (Image.new("RGB", (8, 8)),)), clip("b", 20)]
    packed, parts = packed_samples(samples)
    told = json.loads(json.dumps(parts))
    found = _parts(WorkUnit(packed, {"parts": told}))
    assert [each.video for each in found] == [
        each.video and each.video.as_seen() for each in samples
    ]
    assert [each.images for each in found] == [each.images for each in samples]
    own = samples[0]
    told = {"blanks": [{"images": [2, 4], **video_said(samples[2])}]}
    both = WorkUnit(replace(own, images=own.images + samples[2].images), told)
    shown = _blind_question(both, own, 0)
    assert (shown.images, shown.video) == (samples[2].images, samples[2].as_seen().video)


def test_the_report_and_its_pictures_take_eight_frames(folder: Path, tmp_path: Path) -> None:
    data = table(folder, [{"id": n, "video": n, "prompt": "?"} for n in ("a.mp4", "b.webm")])
    run = vlmlens.run(
        adapter="demo", device="cpu", data=str(data), sites=["llm.block.5/last"],
        analysis="logit-lens", out=tmp_path / "run",
    )  # fmt: skip
    page = run.report_path.read_text()
    assert page.count("data:image/png;base64") >= 8
    assert list(to_show(run.samples[0])) == [1, 3, 5, 7]
    assert Run(run.path).samples[1].video == run.samples[1].video
    assert number_of(str(run.samples[0].images[3])) == 10
