"""Video-MME: its forms, videos, subtitles and prompts."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from vlmlens.errors import DataError, DataNotFound, SpecError
from vlmlens.samples import Sample
from vlmlens.spec.model import validated
from vlmlens.video_frames import with_frames
from vlmlens.videos import FrameRule
from vlmlens_plugins.benchmarks.videomme import VideoMme, VideoMmeOptions
from vlmlens_plugins.benchmarks.videomme.subtitles import cues_in

OPTIONS = ["A. Red.", "B. Blue.", "C. Green.", "D. Brown."]
SRT = """1
00:00:00,000 --> 00:00:00,500
<font color="white" size=".72c">First words</font>

2
00:00:01,000 --> 00:00:01,600
{\\an8}Second words
in two lines

3
00:00:02,500 --> 00:00:03,000
Third
"""


def row(video: str, number: int, duration: str = "short", **cells: Any) -> dict[str, Any]:
    return {
        "video_id": "001",
        "duration": duration,
        "domain": "Knowledge",
        "sub_category": "Law",
        "url": "x",
        "videoID": video,
        "question_id": f"001-{number}",
        "task_type": "Counting Problem",
        "question": "Which color?",
        "options": OPTIONS,
        "answer": "B",
        **cells,
    }


ROWS = (row("fFjv93ACGo8", 1), row("fFjv93ACGo8", 2), row("other", 3, "long", answer="D"))


@pytest.fixture(scope="module")
def film(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """Three seconds at ten frames per second; frame n has the brightness 8 n."""
    import av

    path = tmp_path_factory.mktemp("film") / "a.mp4"
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream("mpeg4", rate=10)
        stream.width = stream.height = 32
        stream.pix_fmt = "yuv420p"
        for number in range(30):
            image = Image.new("RGB", (32, 32), (8 * number,) * 3)
            frame: Any = av.VideoFrame
            container.mux(stream.encode(frame.from_image(image)))
        container.mux(stream.encode(None))
    return path.read_bytes()


def hub(folder: Path, rows: Sequence[Mapping[str, Any]] = ROWS) -> Path:
    """A copy of the hub's repository without its videos."""
    (folder / "videomme").mkdir(parents=True)
    table = pa.Table.from_pylist([dict(each) for each in rows])
    pq.write_table(table, folder / "videomme" / "test-00000-of-00001.parquet")
    return folder


def with_videos(folder: Path, film: bytes, *names: str) -> Path:
    for name in names:
        path = folder / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(film)
    return folder


def zipped(folder: Path, **files: str) -> Path:
    with zipfile.ZipFile(folder / "subtitle.zip", "w") as archive:
        for name, text in files.items():
            archive.writestr(f"subtitle/{name}.srt", text)
    return folder


def told(source: Path | str, *prompts: str, **options: Any) -> tuple[list[Sample], str]:
    data = VideoMme(str(source), VideoMmeOptions(**options))
    samples = list(data.samples(prompts))
    return samples, "\n".join(data.notes)


# ------------------------------------------------------------------------------- forms


def test_a_copy_of_the_hubs_repository(tmp_path: Path, film: bytes) -> None:
    folder = with_videos(hub(tmp_path), film, "data/fFjv93ACGo8.mp4", "data/other.MKV")
    for source in (folder, folder / "videomme" / "test-00000-of-00001.parquet"):
        samples, notes = told(source)
        assert [s.id for s in samples] == ["001-1", "001-2", "001-3"]
        assert [s.group for s in samples] == ["fFjv93ACGo8", "fFjv93ACGo8", "other"]
        assert [s.task for s in samples] == ["short", "short", "long"]
        assert [s.label for s in samples] == ["B", "B", "D"]
        assert samples[0].choices == ("A", "B", "C", "D")
        paths = [s.video.source for s in samples if s.video]
        assert paths == [
            str(folder / "data" / n) for n in ("fFjv93ACGo8.mp4",) * 2 + ("other.MKV",)
        ]
        assert samples[0].attributes["sub_category"] == "Law"
        assert "3 questions on 2 videos (short 2, long 1)" in notes
        assert "videos are not in" not in notes


def test_frames_of_the_videos_become_images(tmp_path: Path, film: bytes) -> None:
    folder = with_videos(hub(tmp_path, ROWS[:1]), film, "fFjv93ACGo8.mp4")
    samples, _ = told(folder)
    (sample,) = with_frames(samples, FrameRule(3))
    assert sample.video is not None
    assert sample.video.frames == (7, 15, 22)
    shown = [image.getpixel((16, 16))[0] for image in sample.open_images()]  # type: ignore[index]
    assert shown == pytest.approx([56, 120, 176], abs=6)


def test_the_table_of_vlmevalkit(tmp_path: Path, film: bytes) -> None:
    with_videos(tmp_path, film, "video/fFjv93ACGo8.mp4", "video/other.mp4")
    columns = "index video video_path duration domain candidates sub_category task_type"
    names = [*columns.split(), "subtitle_path", "question", "answer"]
    rows = [
        [str(i), video, f"./video/{video}.mp4", "short", "Knowledge", str(OPTIONS), "Law",
         "Counting Problem", f"./subtitle/{video}.srt", "Which color?", "B"]
        for i, video in enumerate(("fFjv93ACGo8", "other"))
    ]  # fmt: skip
    text = "\n".join("\t".join(cells) for cells in [names, *rows])
    (tmp_path / "Video-MME.tsv").write_text(text + "\n")
    samples, notes = told(tmp_path)
    assert [s.id for s in samples] == ["0", "1"]
    assert [s.video.source for s in samples if s.video] == [
        str(tmp_path / "video" / f"{name}.mp4") for name in ("fFjv93ACGo8", "other")
    ]
    assert json.loads(str(samples[0].attributes["options"])) == OPTIONS
    assert "VLMEvalKit's table" in notes


def test_the_authors_file_of_answers(tmp_path: Path) -> None:
    asked = [
        {"question_id": f"001-{n}", "task_type": "OCR Problems", "question": "Which?",
         "options": OPTIONS, "answer": "C", "response": "C. Green."}
        for n in (1, 2)
    ]  # fmt: skip
    kinds = {"duration": "short", "domain": "Knowledge", "sub_category": "Law"}
    path = tmp_path / "output_test.json"
    path.write_text(json.dumps([{"video_id": "001", **kinds, "questions": asked}]))
    samples, notes = told(path, videos="none")
    assert [(s.id, s.label, s.group, s.video) for s in samples] == [
        ("001-1", "C", "001", None),
        ("001-2", "C", "001", None),
    ]
    assert "asked without videos" in notes
    assert "the authors' file of answers" in notes


@pytest.mark.parametrize(
    ("cells", "said"),
    [
        ({"answer": "E"}, "one of the letters A, B, C, D"),
        ({"options": ["A. Red.", "C. Blue."]}, "options that begin with"),
        ({"options": ["A. Red."]}, "two or more options"),
        ({"options": []}, "two or more options"),
        ({"question": ""}, "question is"),
        ({"videoID": ""}, "videoID is"),
    ],
)
def test_malformed_rows(tmp_path: Path, cells: dict[str, Any], said: str) -> None:
    with pytest.raises(DataError, match=said):
        told(hub(tmp_path, [row("a", 1, **cells)]), videos="none")


def test_options_without_letters_and_a_second_edition(tmp_path: Path) -> None:
    options = [f"thing {i}" for i in range(8)]
    (sample,), notes = told(hub(tmp_path, [row("a", 1, options=options)]), videos="none")
    assert sample.choices == tuple("ABCDEFGH")
    assert json.loads(str(sample.attributes["options"]))[7] == "H. thing 7"
    assert "this looks like Video-MME-v2" in notes


def test_other_tables_are_refused(tmp_path: Path) -> None:
    (tmp_path / "q.csv").write_text("question,answer\n?,A\n")
    with pytest.raises(DataError, match="in none of the forms of Video-MME: it has question, ans"):
        told(tmp_path / "q.csv")
    (tmp_path / "e").mkdir()
    with pytest.raises(DataError, match="it has nothing"):
        told(tmp_path / "e")


# ------------------------------------------------------------------- videos, subtitles


def test_missing_videos_are_said_and_keep_their_path(tmp_path: Path, film: bytes) -> None:
    folder = with_videos(hub(tmp_path), film, "data/other.mp4")
    (folder / "videos_chunked_01.zip").write_bytes(b"")
    samples, notes = told(folder)
    assert "1 of 2 videos are not in" in notes
    assert "'fFjv93ACGo8'; unpack videos_chunked_*.zip" in notes
    with pytest.raises(DataError, match="there is no such file"):
        with_frames(samples)


def test_a_video_of_another_folder_cannot_be_named(tmp_path: Path) -> None:
    rows = [row("../../etc/passwd", 1)]
    (sample,), notes = told(hub(tmp_path, rows), videos=str(tmp_path))
    assert sample.video is not None
    assert sample.video.source == str(tmp_path / "passwd.mp4")
    assert "1 of 1 videos are not in" in notes
    (tmp_path.parent / "secret.srt").write_text(SRT)
    (tmp_path / "subtitle").mkdir()
    source = tmp_path / "videomme"
    pq.write_table(
        pa.Table.from_pylist([row("../secret", 1)]), source / "test-00000-of-00001.parquet"
    )
    _, notes = told(tmp_path, videos="none", subtitles="all")
    assert "1 video without subtitles" in notes


def test_the_hub_needs_the_folder_of_the_videos() -> None:
    from vlmlens_plugins.benchmarks.videomme.files import VideoFiles

    with pytest.raises(DataNotFound, match="Where are the videos") as error:
        VideoFiles(None, None)
    assert "options.dataset.videos=none" in error.value.hint


@pytest.mark.parametrize("packed", [True, False])
def test_subtitles_of_all_times_and_of_frames(tmp_path: Path, film: bytes, packed: bool) -> None:
    folder = with_videos(hub(tmp_path), film, "data/fFjv93ACGo8.mp4", "data/other.mp4")
    zipped(folder, fFjv93ACGo8=SRT)
    if not packed:
        with zipfile.ZipFile(folder / "subtitle.zip") as archive:
            archive.extractall(folder)
        (folder / "subtitle.zip").unlink()
    before = "This video's subtitles are listed below:\n"
    samples, notes = told(folder, subtitles="all")
    every = "First words\nSecond words in two lines\nThird\n"
    assert samples[0].prompt.startswith(f"{before}{every}Select the best answer")
    assert samples[2].prompt.startswith("Select the best answer")
    assert [s.attributes["subtitles"] for s in samples] == [True, True, False]
    assert not any("subtitle_text" in s.attributes for s in samples)
    assert "subtitles of 1 video are shown, all of them" in notes
    assert "1 video without subtitles, for example 'other'" in notes
    # One frame in the middle is shown at 1.5 s; two from first to last at 0 s and 2.9 s.
    samples, notes = told(folder, subtitles="1")
    assert samples[0].prompt.startswith(f"{before}Second words in two lines\nSelect")
    assert "those at the frames" in notes
    samples, _ = told(folder, subtitles="2", prompt="lmms-eval")
    assert f"{before[:-1]} \nFirst words\nThird\nSelect" in samples[0].prompt
    assert f"{before[:-1]} \nNo subtitles available\nSelect" in samples[2].prompt


def test_subtitles_that_are_not_there_stop(tmp_path: Path) -> None:
    folder = hub(tmp_path)
    with pytest.raises(DataNotFound, match="There are no subtitles in"):
        told(folder, videos="none", subtitles="all")
    zipped(folder, fFjv93ACGo8=SRT)
    with pytest.raises(SpecError, match="need the videos"):
        told(folder, videos="none", subtitles="4")
    with pytest.raises(SpecError, match="expected off, all or a number of frames"):
        validated(VideoMmeOptions, {"subtitles": "some"}, where="videomme")
    (folder / "subtitle.zip").write_bytes(b"PK nothing")
    with pytest.raises(DataError, match="no zip archive"):
        told(folder, videos="none", subtitles="all")
    zipped(folder, fFjv93ACGo8="no times here")
    with pytest.raises(DataError, match="no line of times"):
        told(folder, videos="none", subtitles="all")


def test_cues_in_odd_files() -> None:
    text = "\ufeff1\r\n0:00:01.5 --> 0:00:02,25 X1:0\r\n<i>a</i>  b\r\n\r\n\r\n2\r\nnothing\r\n"
    (cue,) = cues_in(text.lstrip("\ufeff"))
    assert (cue.start, cue.end, cue.text) == (1.5, 2.25, "a b")
    assert list(cues_in("")) == []
    assert list(cues_in("1\n00:00:01,000 --> 00:00:02,000\n\n")) == []


# ----------------------------------------------------------------------------- prompts


def test_styles_of_prompts(tmp_path: Path) -> None:
    folder = hub(tmp_path, ROWS[:1])
    best = "Select the best answer to the following multiple-choice question based on the video"
    only = "Respond with only the letter (A, B, C, or D) of the correct option."
    asked = "Which color?\nA. Red.\nB. Blue.\nC. Green.\nD. Brown."
    letter = "\nAnswer with the option's letter from the given choices directly."
    wanted = {
        "official": f"{best}. {only}\n{asked}\nThe best answer is:",
        "lmms-eval": f"{best} and the subtitles. {only}\n{asked}\n{letter}",
        "lmms-eval-llava": f"{best} and the subtitles. {only}\n{asked}\nThe best answer is:",
        "lmms-eval-qwen": f"Question: {asked.replace('?', '?' + chr(10) + 'Options:', 1)}\n"
        "Answer with the option letter only.",
        "vlmevalkit": f"\nThese are the frames of a video. {best}. {only}\nQuestion: {asked}\n"
        "Answer: ",
        "none": "Which color?",
    }
    for style, prompt in wanted.items():
        (sample,), _ = told(folder, videos="none", prompt=style)
        assert sample.prompt == prompt, style
    _, notes = told(zipped(folder, x=SRT), "What?", videos="none", subtitles="all")
    assert "prompts of --prompt have no subtitles" in notes
