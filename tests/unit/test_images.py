"""How images become 8-bit RGB: transparency, 16 bits, pages, formats; what is told of them."""

from __future__ import annotations

import json
import os
import pickle
import re
import zlib
from pathlib import Path
from struct import pack
from typing import Any

import numpy as np
import pytest
from PIL import Image

import vlmlens
from vlmlens.compose.image_check import Checked, bad_images_error, check_images
from vlmlens.errors import FingerprintMismatch, ImageError, SpecError
from vlmlens.images import FORMATS, SUFFIXES, ImageRules, open_image, rgb
from vlmlens.runs.run import Run
from vlmlens.sample_table import SampleTable
from vlmlens.samples import Sample
from vlmlens.spec.model import make_spec


def seen(image: str | Path | Image.Image, **rules: Any) -> np.ndarray[Any, Any]:
    """The pixels that a model sees."""
    source = str(image) if isinstance(image, Path) else image
    (opened,) = Sample("a", "?", (source,), rules=ImageRules(**rules)).open_images()
    return np.asarray(opened)


def checked(*images: Path | Image.Image, **rules: Any) -> Checked:
    given = [
        Sample(str(i), "?", (str(image) if isinstance(image, Path) else image,))
        if not rules
        else Sample(str(i), "?", (str(image),), rules=ImageRules(**rules))
        for i, image in enumerate(images)
    ]
    return check_images(given)


def drawing() -> Image.Image:
    """Black lines on a transparent ground, whose hidden color is black, too."""
    image = Image.new("RGBA", (8, 8), (0, 0, 0, 0))
    for i in range(8):
        image.putpixel((i, i), (0, 0, 0, 255))
    return image


def palette() -> Image.Image:
    image = Image.new("P", (8, 8), 0)
    image.putpalette([0, 0, 0, 0, 0, 0, 250, 0, 0])
    for i in range(8):
        image.putpixel((i, i), 1)
    return image


TRANSPARENT: dict[str, tuple[Image.Image, dict[str, Any]]] = {
    "rgba.png": (drawing(), {}),
    "la.png": (drawing().convert("LA"), {}),
    "palette.png": (palette(), {"transparency": 0}),
    "palette-alpha.png": (palette(), {"transparency": bytes([0, 255, 255])}),
    "color-key.png": (
        Image.fromarray(np.where(np.eye(8)[..., None] > 0, [0, 0, 0], [9, 9, 9]).astype(np.uint8)),
        {"transparency": (9, 9, 9)},
    ),
    "gray-key.png": (
        Image.fromarray(np.where(np.eye(8) > 0, 0, 9).astype(np.uint8)),
        {"transparency": 9},
    ),
    "webp.webp": (drawing(), {"lossless": True, "exact": True}),
    "gif.gif": (palette(), {"transparency": 0}),
    "tiff.tif": (drawing(), {}),
    "tga.tga": (drawing(), {}),
    "ico.ico": (drawing(), {"sizes": [(8, 8)]}),
}


@pytest.mark.parametrize("name", TRANSPARENT)
def test_transparency_is_white_in_every_mode(tmp_path: Path, name: str) -> None:
    image, options = TRANSPARENT[name]
    image.save(tmp_path / name, **options)
    expected = np.where(np.eye(8)[..., None] > 0, 0, 255)
    assert np.array_equal(seen(tmp_path / name), np.broadcast_to(expected, (8, 8, 3)))


def test_sixteen_bit_gray_with_a_transparent_value() -> None:
    values = np.where(np.eye(8) > 0, 60_000, 7).astype(np.uint16)
    image = Image.fromarray(values)
    image.info["transparency"] = 7
    assert seen(image)[0, :2, 0].tolist() == [234, 255]


def test_the_background_can_be_chosen() -> None:
    assert seen(drawing(), background="#ff0000")[0, 1].tolist() == [255, 0, 0]
    assert seen(drawing(), background="none")[0, 1].tolist() == [0, 0, 0]
    half = Image.new("RGBA", (1, 1), (0, 0, 0, 128))
    assert seen(half)[0, 0].tolist() == [127, 127, 127]
    assert make_spec({"background": "black"}).image_rules == ImageRules("black")
    with pytest.raises(SpecError, match="background"):
        make_spec({"background": "blurple"})


def test_the_background_is_said_once_and_is_part_of_the_fingerprint(tmp_path: Path) -> None:
    for name in ("a.png", "b.png"):
        drawing().save(tmp_path / name)
    Image.new("RGB", (8, 8)).save(tmp_path / "c.png")
    found = checked(*sorted(tmp_path.iterdir()))
    assert len(found.notes) == 1
    assert found.notes[0].startswith(f"2 images ({tmp_path / 'a.png'}, ...) have transparency")
    assert "becomes white" in found.notes[0]
    assert found.choices == {"background": "white"}
    assert checked(tmp_path / "c.png").choices == {}
    on_white = Sample("a", "?", (str(tmp_path / "a.png"),))
    on_black = Sample("a", "?", on_white.images, rules=ImageRules("black"))
    assert on_white.fingerprint() != on_black.fingerprint()
    assert "rules" not in on_white.to_dict()
    assert Sample.from_dict(on_black.to_dict()) == on_black
    assert pickle.loads(pickle.dumps(on_black)) == on_black


# ------------------------------------------------------------------------ 16 bits


def gray(peak: int) -> Image.Image:
    return Image.fromarray(np.linspace(0, peak, 64).reshape(8, 8).astype(np.uint16))


@pytest.mark.parametrize(("peak", "bits"), [(1023, 10), (4095, 12), (1392, 12), (16383, 14)])
@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_gray_that_uses_fewer_bits_is_refused_until_the_range_is_said(
    tmp_path: Path, peak: int, bits: int, suffix: str
) -> None:
    path = tmp_path / f"x.{suffix}"
    gray(peak).save(path)
    with pytest.raises(ImageError, match=f"largest value is {peak}.*image_bits={bits}"):
        seen(path)
    (bad,) = checked(path).bad
    assert bad.reason.startswith("its 16-bit pixels use ")
    assert checked(path, bits=bits).bad == []
    assert checked(path, bits=bits).choices == {"image_bits": bits}
    assert seen(path, bits=bits).max() == peak >> (bits - 8)
    assert checked(path, bits=16).bad == []
    assert seen(path, bits=16).max() == peak >> 8


def test_values_that_do_not_fit_into_the_range_are_refused() -> None:
    with pytest.raises(ImageError, match="reach 5000, more than 12 bits hold"):
        seen(gray(5000), bits=12)
    assert seen(gray(65535)).max() == 255
    assert seen(gray(0)).max() == 0


def test_a_tiff_file_that_says_its_range_is_scaled_by_it(tmp_path: Path) -> None:
    gray(4095).save(tmp_path / "x.tif", tiffinfo={281: 4095})
    assert seen(tmp_path / "x.tif").max() == 255
    assert checked(tmp_path / "x.tif").bad == []


def test_ppm_of_more_than_eight_bits_is_scaled_by_its_own_range(tmp_path: Path) -> None:
    values = np.array([[0, 2048, 4095]], dtype=">u2")
    (tmp_path / "x.pgm").write_bytes(b"P5 3 1 4095\n" + values.tobytes())
    assert seen(tmp_path / "x.pgm")[0, :, 0].tolist() == [0, 128, 255]
    assert checked(tmp_path / "x.pgm").bad == []


def deep_png(path: Path, peak: int, clear: int | None = None) -> Path:
    """A PNG of 16-bit RGB, which Pillow does not write; its first row has the transparent value."""
    rows = np.full((4, 4, 3), peak, ">u2")
    if clear is not None:
        rows[0] = clear
    raw = b"".join(b"\0" + row.tobytes() for row in rows)

    def chunk(kind: bytes, data: bytes) -> bytes:
        return pack(">I", len(data)) + kind + data + pack(">I", zlib.crc32(kind + data))

    header = chunk(b"IHDR", pack(">IIBBBBB", 4, 4, 16, 2, 0, 0, 0))
    if clear is not None:
        header += chunk(b"tRNS", pack(">HHH", clear, clear, clear))
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(raw)) + chunk(b"IEND", b"")
    )
    return path


@pytest.mark.parametrize("peak", [4095, 1023, 255])
def test_dark_sixteen_bit_color_is_refused(tmp_path: Path, peak: int) -> None:
    path = deep_png(tmp_path / "x.png", peak)
    with pytest.raises(ImageError, match="16-bit color is nearly dark"):
        seen(path)
    (bad,) = checked(path).bad
    assert "convert it to 8 bit" in bad.reason
    assert seen(path, bits=16).max() == peak >> 8
    assert seen(deep_png(path, 65535)).max() == 255
    assert checked(path).bad == []


def test_a_transparent_sixteen_bit_color(tmp_path: Path) -> None:
    path = deep_png(tmp_path / "x.png", 40_000, clear=30_000)
    assert seen(path)[:2, 0, 0].tolist() == [255, 156]


# ------------------------------------------------------------------- pages, formats


def frames(count: int) -> list[Image.Image]:
    return [Image.new("RGB", (4, 4), (40 * i + 20, 9, 9)) for i in range(count)]


@pytest.mark.parametrize("name", ["x.gif", "x.tif", "x.webp", "x.png"])
def test_of_several_pages_the_first_is_used_which_is_said_once(tmp_path: Path, name: str) -> None:
    first, *rest = frames(3)
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        first.save(tmp_path / folder / name, save_all=True, append_images=rest)
    (note,) = checked(tmp_path / "a" / name, tmp_path / "b" / name).notes
    assert note.startswith("2 images (")
    assert "several pages or frames (up to 3): only the first is used" in note
    assert checked(tmp_path / "a" / name).notes[0].startswith("1 image (")
    assert np.abs(seen(tmp_path / "a" / name) - np.asarray(first).astype(int)).max() <= 4


EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\nshowpage\n"
NO_RASTER = {
    "eps.png": EPS,
    "ps.jpg": b"%!PS-Adobe-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\nshowpage\n",
    "dos-eps.png": b"\xc5\xd0\xd3\xc6" + pack("<II", 30, len(EPS)) + bytes(18) + EPS,
    "pdf.png": b"%PDF-1.4\n1 0 obj\n",
    "wmf.png": b"\xd7\xcd\xc6\x9a\0\0" + bytes(40),
    "svg.png": b"<svg xmlns='http://www.w3.org/2000/svg'/>",
}


@pytest.mark.parametrize("name", NO_RASTER)
def test_what_is_no_raster_image_is_not_opened(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(NO_RASTER[name])
    with pytest.raises(ImageError, match="cannot identify image file"):
        seen(tmp_path / name)
    (bad,) = checked(tmp_path / name).bad
    assert bad.reason == "no image in a format that Pillow reads"


@pytest.mark.parametrize("kind", sorted(set(FORMATS) - {"PSD", "SUN", "ICNS", "MPO"}))
def test_every_format_is_read(tmp_path: Path, kind: str) -> None:
    Image.new("RGB", (16, 16), (250, 9, 9)).save(tmp_path / "x", kind)
    with open_image(tmp_path / "x") as image:
        assert (image.format, rgb(image).size) == (kind, (16, 16))


def test_heif_is_read_with_its_extra(tmp_path: Path) -> None:
    from pillow_heif import from_pillow

    from_pillow(Image.new("RGB", (16, 16), (250, 9, 9))).save(tmp_path / "x.heic")
    assert seen(tmp_path / "x.heic").shape == (16, 16, 3)
    assert checked(tmp_path / "x.heic").bad == []


def test_the_suffixes_are_those_of_pillow() -> None:
    known = Image.registered_extensions()
    assert {suffix for suffix in SUFFIXES if known.get(suffix) not in FORMATS} == set()


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "x.png")
    for path in (tmp_path / "x.png", Path("/dev/zero")):
        (bad,) = checked(path).bad
        assert bad.reason == "no file but a pipe, a socket or a device"
        with pytest.raises(ImageError, match="no file but a pipe"):
            seen(path)


# -------------------------------------------------------------- samples without an image


def test_samples_without_an_image_among_others(tmp_path: Path) -> None:
    Image.new("RGB", (4, 4)).save(tmp_path / "x.png")
    image = (str(tmp_path / "x.png"),)
    given = [Sample("1", "?", image), Sample("2", "?"), Sample("3", "?", image), Sample("4", "?")]
    bad = check_images(given, text_only=False).bad
    assert [(each.id, each.image, each.reason) for each in bad] == [
        (name, "", "without an image, which 2 others have") for name in ("2", "4")
    ]
    error = bad_images_error(bad, 4)
    assert error.message.startswith("2 of 4 samples have no image, and others have one:\n  2: ")
    assert "--on-bad-sample skip" in error.hint
    assert "text_only=true" in error.hint
    assert check_images(given).bad == []
    assert check_images([given[1], given[3]], text_only=False).bad == []
    gone = Sample("5", "?", (str(tmp_path / "gone.png"),))
    both = bad_images_error(check_images([*given, gone], text_only=False).bad, 5)
    assert "an image that cannot be used, or none (2)" in both.message


def test_nothing_else_opens_images() -> None:
    """Every file goes through `open_image`, which knows the formats."""
    root = Path(__file__).parents[2]
    opening = [
        path.relative_to(root).as_posix()
        for folder in ("core", "plugins", "adapters")
        for path in (root / folder).rglob("*.py")
        if "tests" not in path.parts and re.search(r"Image\.open\(", path.read_text("utf-8"))
    ]
    assert opening == ["core/vlmlens/images.py"]


def run_of(folder: Path, data: Path, **settings: Any) -> Run:
    return vlmlens.extract(
        data=data,
        prompt="What?",
        sites="llm.block.0/last",
        device="cpu",
        out=folder,
        progress=False,
        **settings,
    )


def test_a_run_keeps_its_background(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    drawing().save(tmp_path / "photos" / "a.png")
    run = run_of(tmp_path / "run", tmp_path / "photos", background="black")
    with run.store() as store:
        assert store.get_meta()["fingerprint"]["background"] == "black"
    assert run.samples[0].open_images()[0].getextrema() == ((0, 0),) * 3
    assert any("becomes black" in note for note in run.info["notes"])
    with pytest.raises(FingerprintMismatch):
        run_of(tmp_path / "run", tmp_path / "photos", mode="resume")


def test_rows_without_an_image_stop_a_run(tmp_path: Path) -> None:
    Image.new("RGB", (24, 24)).save(tmp_path / "a.png")
    (tmp_path / "q.csv").write_text("id,image\n1,a.png\n2,\n3,a.png\n")
    with pytest.raises(ImageError, match="1 of 3 samples have no image, and others have one"):
        run_of(tmp_path / "stopped", tmp_path / "q.csv")
    skipped = run_of(tmp_path / "skipped", tmp_path / "q.csv", on_bad_sample="skip")
    assert [s.id for s in skipped.samples] == ["1", "3"]
    assert [(bad.id, bad.image) for bad in skipped.skipped] == [("2", "")]
    kept = run_of(tmp_path / "kept", tmp_path / "q.csv", text_only=True)
    assert [len(s.images) for s in kept.samples] == [1, 0, 1]


def test_an_image_is_resized_where_its_sample_says_so(tmp_path: Path) -> None:
    """As the authors of a benchmark do: Lanczos's filter, on the upright image."""
    ramp = np.linspace(0, 255, 40 * 20 * 3).astype(np.uint8).reshape(20, 40, 3)
    image = Image.fromarray(ramp)
    image.save(tmp_path / "a.png")
    resized = seen(tmp_path / "a.png", size=(16, 8))
    assert (resized == np.asarray(image.resize((16, 8), Image.Resampling.LANCZOS))).all()
    assert (resized != np.asarray(image.resize((16, 8), Image.Resampling.NEAREST))).any()
    plain = Sample("a", "?", (str(tmp_path / "a.png"),))
    small = Sample("a", "?", plain.images, rules=ImageRules(size=(16, 8)))
    assert small.fingerprint() != plain.fingerprint()
    back = Sample.from_dict(json.loads(json.dumps(small.to_dict())))
    assert back == small
    assert hash(back.rules) == hash(small.rules)
    assert SampleTable([small])[0].rules.size == (16, 8)
    assert check_images([small]).seen.areas.tolist() == [16 * 8]
    assert check_images([plain]).seen.areas.tolist() == [40 * 20]
