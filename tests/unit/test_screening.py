"""Screening: every kind of bad image is found with its reason, and no good one is."""

from __future__ import annotations

import io
import os
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from vlmlens.compose.image_check import bad_images_error, bad_samples, without
from vlmlens.errors import ImageError
from vlmlens.runs.run import Run
from vlmlens.samples import BadSample, Sample
from vlmlens.spec.model import make_spec


def picture(seed: int = 0, size: tuple[int, int] = (24, 16)) -> Image.Image:
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def encoded(kind: str, image: Image.Image | None = None) -> bytes:
    target = io.BytesIO()
    (image or picture()).save(target, kind)
    return target.getvalue()


def samples(*paths: Path) -> list[Sample]:
    return [Sample(path.name, "?", (str(path),)) for path in paths]


def reason(path: Path, **options: int) -> str | None:
    found = bad_samples(samples(path), **options)  # type: ignore[arg-type]
    assert all(bad.image == str(path) for bad in found)
    return found[0].reason if found else None


@pytest.fixture(autouse=True)
def _pillow_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    """What `allow_pixels` sets ends with the test."""
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", Image.MAX_IMAGE_PIXELS)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP"])
def test_a_truncated_file(tmp_path: Path, kind: str) -> None:
    data = encoded(kind)
    (tmp_path / "good").write_bytes(data)
    assert reason(tmp_path / "good") is None
    for part in (0.5, 0.9):
        (tmp_path / "cut").write_bytes(data[: int(len(data) * part)])
        assert reason(tmp_path / "cut") is not None


def test_files_that_hold_no_image(tmp_path: Path) -> None:
    (tmp_path / "empty.png").touch()
    (tmp_path / "text.png").write_text("no image at all")
    (tmp_path / "folder.png").mkdir()
    (tmp_path / "link.png").symlink_to(tmp_path / "nowhere.png")
    assert reason(tmp_path / "empty.png") == "an empty file (0 bytes)"
    assert reason(tmp_path / "text.png") == "no image in a format that Pillow reads"
    assert reason(tmp_path / "folder.png") == "cannot be read: Is a directory"
    assert reason(tmp_path / "link.png") == "a link to no file"
    assert reason(tmp_path / "missing.png") == "the file does not exist"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_that_may_not_be_read(tmp_path: Path) -> None:
    picture().save(tmp_path / "x.png")
    (tmp_path / "x.png").chmod(0)
    assert reason(tmp_path / "x.png") == "cannot be read: Permission denied"


def test_a_png_with_an_altered_byte(tmp_path: Path) -> None:
    data = bytearray(encoded("PNG"))
    data[len(data) // 2] ^= 0xFF
    (tmp_path / "x.png").write_bytes(data)
    assert "damaged or cut off" in str(reason(tmp_path / "x.png"))


def test_too_many_pixels(tmp_path: Path) -> None:
    path = tmp_path / "huge.png"
    Image.new("1", (20_000, 20_000)).save(path)
    assert "more than 178956970 pixels" in str(reason(path))
    assert reason(path, max_pixels=400_000_000) is None
    assert Image.MAX_IMAGE_PIXELS == 400_000_000
    assert len(Sample("a", "?", (str(path),)).images) == 1
    assert "400000000 pixels" not in str(reason(path))
    picture().save(tmp_path / "small.png")
    assert reason(tmp_path / "small.png", max_pixels=24 * 16) is None
    assert reason(tmp_path / "small.png", max_pixels=24 * 16 - 1) == (
        "24 x 16 pixels, the limit (max_pixels) is 383"
    )


def test_between_pillows_warning_and_its_error(tmp_path: Path) -> None:
    """Pillow warns from 89 million pixels on; they are neither bad nor worth a warning."""
    Image.new("1", (10_000, 9_500)).save(tmp_path / "large.png")
    assert reason(tmp_path / "large.png") is None
    with Image.open(tmp_path / "large.png") as image:
        assert image.size == (10_000, 9_500)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr", "I;16"])
@pytest.mark.parametrize("suffix", ["png", "jpg", "gif", "bmp", "tiff", "webp"])
def test_every_mode_that_opens_is_good(tmp_path: Path, mode: str, suffix: str) -> None:
    path = tmp_path / f"x.{suffix}"
    try:
        Image.new(mode, (5, 3)).save(path)
    except (OSError, ValueError):
        pytest.skip(f"Pillow writes no {mode} {suffix}")
    assert reason(path) is None


@pytest.mark.parametrize("mode", ["I", "F"])
def test_pixels_without_an_agreed_range(tmp_path: Path, mode: str) -> None:
    Image.new(mode, (5, 3)).save(tmp_path / "x.tiff")
    assert str(reason(tmp_path / "x.tiff")).startswith("32-bit pixels have no agreed range")


def test_odd_and_fine(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    picture().save(tmp_path / "turned.jpg", exif=exif)
    picture().save(tmp_path / "moving.gif", save_all=True, append_images=[picture(1), picture(2)])
    (tmp_path / "a-jpeg.png").write_bytes(encoded("JPEG"))
    picture(size=(1, 1)).save(tmp_path / "pixel.png")
    assert bad_samples(samples(*sorted(tmp_path.iterdir()))) == []


def test_images_in_memory_stay_usable() -> None:
    """They are read, not verified or shrunk: the model is to see them afterwards."""
    for kind in ("PNG", "JPEG"):
        lazy = Image.open(io.BytesIO(encoded(kind, picture(size=(64, 64)))))
        sample = Sample("a", "?", (lazy,))
        assert bad_samples([sample]) == []
        assert sample.open_images()[0].size == (64, 64)
    cut = Image.open(io.BytesIO(encoded("PNG")[:300]))
    (bad,) = bad_samples([Sample("a", "?", (cut,))])
    assert (bad.image, "damaged" in bad.reason) == ("in memory", True)


def test_each_bad_sample_once_in_order(tmp_path: Path) -> None:
    picture().save(tmp_path / "good.png")
    good, gone = str(tmp_path / "good.png"), str(tmp_path / "gone.png")
    given = [
        Sample("c", "?", (good, gone)),
        Sample("b", "?"),
        Sample("a", "?", (gone, gone)),
        Sample("d", "?", (good,)),
    ]
    calls: list[int] = []
    bad = bad_samples(given, advance=calls.append)
    assert [each.id for each in bad] == ["c", "a"]
    assert calls == [4]
    assert [sample.id for sample in without(given, bad)] == ["b", "d"]
    with pytest.raises(ImageError, match="No sample is left"):
        without([given[0], given[2]], bad)


def test_the_list_names_ten_and_counts_the_rest() -> None:
    bad = [BadSample(f"{i}.png", f"photos/{i}.png", "an empty file") for i in range(12)]
    error = bad_images_error(bad, 2000)
    assert error.message.startswith("12 of 2000 samples have an image that cannot be used:\n")
    assert error.message.count("an empty file") == 10
    assert error.message.endswith("  and 2 more")
    assert "--on-bad-sample skip" in error.hint
    assert error.subject == "photos/0.png"
    assert (
        "q1 (photos/x.png): why"
        in bad_images_error([BadSample("q1", "photos/x.png", "why")], 3).message
    )


def test_a_run_keeps_what_was_skipped(tmp_path: Path) -> None:
    run = Run.create(tmp_path / "run", make_spec({}), {})
    assert run.skipped == []
    bad = [BadSample("ä", "photos/ä.png", "an empty file (0 bytes)")]
    run.write_skipped(bad)
    assert Run(run.path).skipped == bad
    run.write_skipped([])
    assert run.skipped == []
    assert not (run.path / "skipped.jsonl").exists()
    run.write_skipped(bad)
    run.clear()
    assert list(run.path.iterdir()) == []


# ------------------------------------------------------------------ the processor


class Picky:
    """Encodes what is not too thin, and counts."""

    def __init__(self, *, broken: bool = False) -> None:
        self.calls = 0
        self.broken = broken

    def __call__(self, given: Sequence[Sample]) -> None:
        self.calls += 1
        for image in given[0].open_images():
            if self.broken or max(image.size) > 100 * min(image.size):
                raise ValueError("absolute aspect ratio must be smaller than 100")


def test_the_processor_is_asked_once_per_absurd_shape(tmp_path: Path) -> None:
    shapes = [(1, 1), (1, 1), (300, 2), (300, 2), (90, 60), (60, 9)]
    for i, size in enumerate(shapes):
        picture(size=size).save(tmp_path / f"{i}.png")
    given = samples(*sorted(tmp_path.iterdir()))
    encode = Picky()
    bad = bad_samples(given, encode=encode)
    assert [each.id for each in bad] == ["2.png", "3.png"]
    assert bad[0].reason == (
        "300 x 2 pixels, which the model refuses (absolute aspect ratio must be smaller than 100)"
    )
    assert encode.calls == 3  # 1 x 1; 300 x 2, and a plain image in its place


def test_a_processor_that_refuses_plain_images_too_says_nothing_of_shapes(tmp_path: Path) -> None:
    picture(size=(1, 1)).save(tmp_path / "x.png")
    assert bad_samples(samples(tmp_path / "x.png"), encode=Picky(broken=True)) == []


# ---------------------------------------------------------------- against opening

ENCODED = {kind: encoded(kind) for kind in ("JPEG", "GIF", "BMP", "TIFF", "WEBP", "PNG")}


@pytest.mark.filterwarnings("ignore")
@settings(
    max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.sampled_from(sorted(ENCODED)), st.integers(1, 2000))
def test_what_is_cut_off_is_bad_exactly_where_it_cannot_be_opened(
    tmp_path: Path, kind: str, cut: int
) -> None:
    """One exception: a PNG that lacks only its end has all its pixels, and is bad all the same."""
    data = ENCODED[kind]
    path = tmp_path / "x"
    path.write_bytes(data[: len(data) - cut % len(data)])
    try:
        samples(path)[0].open_images()
        opens = True
    except ImageError:
        opens = False
    bad = reason(path) is not None
    assert bad != opens or (bad and kind == "PNG" and cut % len(data) <= 24)


def test_it_is_cheap(tmp_path: Path) -> None:
    """A photograph of 640 x 480 takes well under the tenth of a second that a model needs."""
    smooth = picture(size=(32, 24)).resize((640, 480), Image.Resampling.BICUBIC)
    for i in range(50):
        smooth.save(tmp_path / f"{i}.jpg", quality=90)
    given = samples(*tmp_path.iterdir())
    start = time.perf_counter()
    assert bad_samples(given) == []
    assert time.perf_counter() - start < 2.5
