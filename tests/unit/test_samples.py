"""Samples: JSON, groups, fingerprints, and images of every kind, healthy and damaged."""

from __future__ import annotations

import io
import json
import os
from pathlib import Path
from types import MappingProxyType

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from vlmlens.errors import DuplicateSample, ImageError
from vlmlens.samples import Sample, check_unique

ATTRIBUTE = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text()
SAMPLE = st.builds(
    Sample,
    id=st.text(min_size=1),
    prompt=st.text(),
    images=st.lists(st.text(min_size=1), max_size=3).map(tuple),
    label=st.none() | st.text(),
    choices=st.lists(st.text(), max_size=3).map(tuple),
    group=st.none() | st.text(),
    task=st.none() | st.text(),
    attributes=st.dictionaries(st.text(), ATTRIBUTE).map(MappingProxyType),
)


def picture(seed: int = 0) -> Image.Image:
    pixels = np.random.default_rng(seed).integers(0, 256, (16, 24, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


@given(SAMPLE)
def test_json_round_trip(sample: Sample) -> None:
    assert Sample.from_dict(json.loads(json.dumps(sample.to_dict()))) == sample


def test_from_dict_needs_id_and_prompt_only() -> None:
    assert Sample.from_dict({"id": "a", "prompt": "?"}) == Sample("a", "?")


def test_pillow_images_are_named_by_content() -> None:
    first, same, other = (Sample("a", "?", (picture(seed),)).to_dict() for seed in (0, 0, 1))
    assert first == same
    assert first["images"][0].startswith("sha256:")
    assert first != other


def test_split_group() -> None:
    assert Sample("a", "?", ("x.png", "y.png"), group="g").split_group == "g"
    assert Sample("a", "?", ("x.png", "y.png")).split_group == "x.png|y.png"
    assert Sample("a", "?").split_group == "a"
    assert Sample("a", "?", group="").split_group == ""
    images = [Sample(name, "?", (picture(),)).split_group for name in "ab"]
    assert images[0] == images[1]


def test_the_fingerprint_is_of_what_the_model_sees(tmp_path: Path) -> None:
    for name in ("a.png", "b.png"):
        picture().save(tmp_path / name)
    first = Sample("a", "?", (str(tmp_path / "a.png"),), label="x")
    assert first.fingerprint() == Sample("b", "?", (str(tmp_path / "b.png"),)).fingerprint()
    assert first.fingerprint() != Sample("a", "!", first.images).fingerprint()
    assert first.fingerprint() != Sample("a", "?").fingerprint()
    before = first.fingerprint()
    picture(1).save(tmp_path / "a.png")
    os.utime(tmp_path / "a.png", (1, 1))
    assert first.fingerprint() != before


def test_the_fingerprint_of_images_in_memory() -> None:
    assert (
        Sample("a", "?", (picture(),)).fingerprint()
        != Sample("a", "?", (picture(1),)).fingerprint()
    )
    turned = Image.frombytes("RGB", (16, 24), picture().tobytes())
    assert Sample("a", "?", (picture(),)).fingerprint() != Sample("a", "?", (turned,)).fingerprint()


def test_the_fingerprint_of_a_missing_image(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match="does not exist"):
        Sample("a", "?", (str(tmp_path / "x.png"),)).fingerprint()


def test_check_unique() -> None:
    check_unique([Sample("a", "?"), Sample("b", "?")])
    with pytest.raises(DuplicateSample, match=r"1 sample id .* for example 'a'") as caught:
        check_unique([Sample("a", "?"), Sample("b", "?"), Sample("a", "!")])
    assert caught.value.subject == "a"


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr", "I;16"])
@pytest.mark.parametrize("suffix", ["png", "jpg", "gif", "bmp", "tiff", "webp"])
def test_every_kind_of_image_opens_as_rgb(tmp_path: Path, mode: str, suffix: str) -> None:
    path = tmp_path / f"x.{suffix}"
    try:
        Image.new(mode, (5, 3)).save(path)
    except (OSError, ValueError):
        pytest.skip(f"Pillow writes no {mode} {suffix}")
    (image,) = Sample("a", "?", (str(path),)).open_images()
    assert (image.mode, image.size) == ("RGB", (5, 3))


def test_sixteen_bit_grey_is_scaled_and_not_clipped(tmp_path: Path) -> None:
    grey = np.array([[0, 256, 32768, 65535]], dtype=np.uint16)
    Image.fromarray(grey).save(tmp_path / "x.png")
    for image in (str(tmp_path / "x.png"), Image.fromarray(grey)):
        (opened,) = Sample("a", "?", (image,)).open_images()
        assert np.asarray(opened)[0, :, 0].tolist() == [0, 1, 128, 255]


@pytest.mark.parametrize("mode", ["I", "F"])
def test_pixels_without_an_agreed_range_are_refused(mode: str) -> None:
    with pytest.raises(ImageError, match=r"'in memory' cannot be read \(32-bit pixels"):
        Sample("a", "?", (Image.new(mode, (2, 2)),)).open_images()


def test_a_palette_with_transparency_opens_without_a_warning(tmp_path: Path) -> None:
    image = picture().quantize(8)
    image.save(tmp_path / "x.png", transparency=bytes([0, 255] * 4))
    (opened,) = Sample("a", "?", (str(tmp_path / "x.png"),)).open_images()
    expected = np.asarray(image.convert("RGB")).copy()
    expected[np.asarray(image) % 2 == 0] = 255
    assert np.array_equal(np.asarray(opened), expected)


def test_images_are_turned_upright(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    picture().save(tmp_path / "x.png", exif=exif)
    (opened,) = Sample("a", "?", (str(tmp_path / "x.png"),)).open_images()
    assert np.array_equal(np.asarray(opened), np.rot90(np.asarray(picture()), -1))


def test_a_decompression_bomb_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    picture().save(tmp_path / "x.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    with pytest.raises(ImageError, match="exceeds limit"):
        Sample("a", "?", (str(tmp_path / "x.png"),)).open_images()


def test_a_missing_image_and_a_folder(tmp_path: Path) -> None:
    for path in (tmp_path / "missing.png", tmp_path):
        with pytest.raises(ImageError, match=r"Sample 'a': the image .* cannot be read") as caught:
            Sample("a", "?", (str(path),)).open_images()
        assert caught.value.subject == str(path)


def _encoded(kind: str) -> bytes:
    target = io.BytesIO()
    picture().save(target, kind)
    return target.getvalue()


ENCODED = {kind: _encoded(kind) for kind in ("PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP")}


@pytest.mark.filterwarnings("ignore")
@settings(
    max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    st.sampled_from(sorted(ENCODED)),
    st.lists(st.tuples(st.integers(0, 120), st.integers(0, 255)), max_size=5),
    st.integers(0, 2000),
)
def test_a_damaged_file_is_an_image_error(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    kind: str,
    changes: list[tuple[int, int]],
    cut: int,
) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100_000)
    data = bytearray(ENCODED[kind])
    for position, value in changes:
        data[position % len(data)] = value
    path = tmp_path / "x"
    path.write_bytes(data[: len(data) - cut % len(data)])
    try:
        (image,) = Sample("a", "?", (str(path),)).open_images()
    except ImageError as caught:
        error = caught
    else:
        assert image.mode == "RGB"
        return
    assert error.subject == str(path)


def test_a_png_with_a_broken_chunk(tmp_path: Path) -> None:
    data = bytearray(ENCODED["PNG"])
    start = data.index(b"IDAT")
    data[start - 4 : start] = (100).to_bytes(4, "big")
    (tmp_path / "x.png").write_bytes(data)
    with pytest.raises(ImageError, match="broken PNG"):
        Sample("a", "?", (str(tmp_path / "x.png"),)).open_images()
