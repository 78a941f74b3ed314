"""Opening images: which formats are read, and how pixels become what a model sees."""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

if TYPE_CHECKING:
    from PIL.Image import Image

UNREADABLE = (OSError, ValueError, SyntaxError, EOFError, RuntimeError)
"""What Pillow raises for a damaged file; a broken PNG is a SyntaxError to it, a broken AVIF a
RuntimeError."""

FORMATS: Mapping[str, tuple[str, ...]] = {
    "PNG": (".png", ".apng"),
    "JPEG": (".jpg", ".jpeg", ".jpe", ".jfif"),
    "MPO": (".mpo",),
    "WEBP": (".webp",),
    "GIF": (".gif",),
    "BMP": (".bmp",),
    "DIB": (".dib",),
    "TIFF": (".tif", ".tiff"),
    "AVIF": (".avif", ".avifs"),
    "JPEG2000": (".jp2", ".j2k", ".j2c", ".jpc", ".jpf", ".jpx"),
    "PPM": (".ppm", ".pgm", ".pbm", ".pnm"),
    "TGA": (".tga",),
    "ICO": (".ico",),
    "ICNS": (".icns",),
    "DDS": (".dds",),
    "PCX": (".pcx",),
    "PSD": (".psd",),
    "QOI": (".qoi",),
    "SGI": (".sgi",),
    "SUN": (".ras",),
}
"""Pillow's names of the formats that are read, with the suffixes of their files.

Only formats of pixels: EPS and the like are programs, which Pillow would hand to Ghostscript.
"""

HEIF = (".heic", ".heif", ".hif")
"""Suffixes of HEIF files, which need the package pillow-heif."""

SUFFIXES = frozenset(suffix for each in FORMATS.values() for suffix in each)
"""Suffixes of image files, in lower case, without those of HEIF."""

HIDDEN_COLORS = "none"
"""A background that is none: transparency is ignored, and the colors below it are shown."""

_LAYERED = ("ICO", "ICNS", "PSD")
_DARK = 14
_ORIENTATION = 0x0112
_ON_ITS_SIDE = (5, 6, 7, 8)
_MAX_SAMPLE_VALUE = 281


class NotAPlainFile(OSError):
    """A path is a pipe, a socket or a device: reading it may never end."""


class UnclearPixels(ValueError):
    """The range of an image's pixels is not known."""


@dataclass(frozen=True, slots=True)
class ImageRules:
    """How an image becomes 8-bit RGB where its file leaves that open.

    Args:
        background: The color behind transparent parts: a name, `#rrggbb`, or "none", which ignores
            transparency.
        bits: How many bits of 16-bit pixels are used; None: all, and an image that is dark then is
            an error, since fewer bits may be meant.
        size: (width, height) that the image is resized to, with Lanczos's filter, before the model
            sees it, where a benchmark's authors do so; None: it stays as it is.
    """

    background: str = "white"
    bits: int | None = None
    size: tuple[int, int] | None = None

    def __post_init__(self) -> None:
        if self.size is not None:
            width, height = self.size
            object.__setattr__(self, "size", (int(width), int(height)))

    def changed(self) -> dict[str, Any]:
        """What differs from the defaults, as JSON-ready data."""
        if self == DEFAULT:  # of each sample; `asdict` takes long
            return {}
        usual = asdict(DEFAULT)
        return {name: value for name, value in asdict(self).items() if value != usual[name]}


DEFAULT = ImageRules()


def has_heif() -> bool:
    """Whether HEIF files can be read: whether pillow-heif is installed."""
    try:
        import pillow_heif
    except ImportError:
        return False
    pillow_heif.register_heif_opener()
    return True


def open_image(path: str | Path) -> Image:
    """Open an image file, as `PIL.Image.open`, if it is a plain file in one of the `FORMATS`.

    Raises:
        OSError: It cannot be read, is a pipe or a device, or holds no such image.
    """
    check_plain(path)
    return open_content(path)


def open_content(content: str | Path | BinaryIO) -> Image:
    """Like `open_image`, of a file that is known to be a plain one, or of its content.

    Raises:
        OSError: It cannot be read, or holds no such image.
    """
    from PIL import Image as PILImage
    from PIL import UnidentifiedImageError

    PILImage.preinit()
    try:
        return PILImage.open(content, formats=_registered())
    except UnidentifiedImageError:
        PILImage.init()
        has_heif()
        if not isinstance(content, str | Path):
            content.seek(0)
        return PILImage.open(content, formats=_registered())


def check_plain(path: str | Path) -> None:
    """Raise `NotAPlainFile` for a path that is a pipe, a socket or a device."""
    mode = os.stat(path).st_mode  # noqa: PTH116 - four times faster than Path.stat
    if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):
        raise NotAPlainFile("no file but a pipe, a socket or a device")


def upright_size(image: Image) -> tuple[int, int]:
    """(width, height) of an image as a model sees it: upright. No pixels are read."""
    width, height = image.size
    turned = image.getexif().get(_ORIENTATION) in _ON_ITS_SIDE
    return (height, width) if turned else (width, height)


def rgb(image: Image, rules: ImageRules = DEFAULT) -> Image:
    """An image as a model sees it: upright, on a background, with 8 bits per channel, resized.

    What its file says beside the pixels (comments, a colour profile, the place) is left out, so
    that no copy of it says that.

    Raises:
        UnclearPixels: The range of its pixels is not known.
    """
    shown = _upright(image, rules)
    shown.info = {}
    if rules.size is None or rules.size == shown.size:
        return shown
    from PIL import Image as PILImage

    return shown.resize(rules.size, PILImage.Resampling.LANCZOS)


def _upright(image: Image, rules: ImageRules) -> Image:
    from PIL import ImageOps

    made = _eight_bits(image, rules.bits)
    if image.getexif().get(_ORIENTATION, 1) != 1:
        exif = made.getexif()
        exif[_ORIENTATION] = image.getexif()[_ORIENTATION]
        made = ImageOps.exif_transpose(made)
    if rules.background != HIDDEN_COLORS and is_transparent(made):
        return _on(made, rules.background)
    return made.convert("RGBA").convert("RGB") if is_transparent(made) else made.convert("RGB")


def check_mode(mode: str) -> None:
    """Raise `UnclearPixels` for a Pillow mode whose pixels have no agreed range."""
    if mode in ("I", "F"):
        raise UnclearPixels("32-bit pixels have no agreed range; convert it to 8 bit")


def is_transparent(image: Image) -> bool:
    """Whether an image has an alpha channel or a transparent color; it is not decoded."""
    return image.has_transparency_data


def is_deep(image: Image) -> bool:
    """Whether an image that was just opened has 16 bits per channel; it is not decoded."""
    return image.mode.startswith("I;16") or _deep_color(image) or _scaled(image)


def pages(image: Image) -> int:
    """The number of pages or frames of an image that was just opened."""
    if image.format in _LAYERED or not getattr(image, "is_animated", False):
        return 1
    return int(getattr(image, "n_frames", 1))


def _registered() -> list[str]:
    from PIL import Image as PILImage

    return [name for name in (*FORMATS, "HEIF") if name in PILImage.OPEN]


def _on(image: Image, color: str) -> Image:
    from PIL import Image as PILImage

    shown = (image.convert("LA") if image.mode == "La" else image).convert("RGBA")
    ground = PILImage.new("RGBA", shown.size, color)
    ground.alpha_composite(shown)
    return ground.convert("RGB")


def _eight_bits(image: Image, bits: int | None) -> Image:
    """The image with 8 bits per channel; it is not changed itself."""
    if _scaled(image):
        return _gray(image, 16)
    check_mode(image.mode)
    if image.mode.startswith("I;16"):
        return _gray(image, bits or _declared(image))
    if _deep_color(image):
        clear = image.info.get("transparency")
        if isinstance(clear, tuple):
            image.info["transparency"] = tuple(value >> 8 for value in clear)
        _check_deep_color(image, bits)
    return image


def _gray(image: Image, bits: int | None) -> Image:
    """16-bit grey as 8-bit grey, with alpha where one of its values is transparent."""
    import numpy as np
    from PIL import Image as PILImage

    values = np.asarray(image)
    peak = int(values.max(initial=0))
    used = peak.bit_length()
    if bits is None and 0 < used <= _DARK:
        raise UnclearPixels(
            f"its 16-bit pixels use {used} bits (the largest value is {peak}), so that it is "
            f"nearly dark; say their range with --set image_bits={_likely(used)} (in Python, "
            f"ImageRules(bits={_likely(used)})), or with 16 if it is meant to be dark"
        )
    bits = bits or 16
    if used > bits:
        raise UnclearPixels(f"its 16-bit pixels reach {peak}, more than {bits} bits hold")
    gray = PILImage.fromarray((values >> (bits - 8)).astype(np.uint8))
    if "transparency" in image.info:
        opaque = np.where(values == image.info["transparency"], 0, 255).astype(np.uint8)
        gray.putalpha(PILImage.fromarray(opaque))
    return gray


def _likely(used: int) -> int:
    """The range that is meant, most likely: 10, 12 or 14 bits."""
    return next(bits for bits in (10, 12, _DARK) if used <= bits)


def _check_deep_color(image: Image, bits: int | None) -> None:
    """Refuse 16-bit color that is dark: Pillow keeps the upper byte of each channel."""
    peak = max(high for _, high in image.convert("RGB").getextrema())  # type: ignore[misc]
    if bits is None and peak >= 1 << (_DARK - 8):
        return
    if bits != 16:
        raise UnclearPixels(
            "its 16-bit color is nearly dark, or uses fewer than 16 bits, which Pillow cannot "
            "scale; convert it to 8 bit, or --set image_bits=16 if it is meant as it is"
        )


def _deep_color(image: Image) -> bool:
    """Whether Pillow drops the lower byte of each channel of a file when it decodes it."""
    arguments = [str(tile[3]) for tile in getattr(image, "tile", ())]
    return not image.mode.startswith("I") and any(";16" in each for each in arguments)


def _scaled(image: Image) -> bool:
    """Whether it is a PPM file of more than 8 bits, which Pillow scales to 16 bits in mode I."""
    return image.format == "PPM" and image.mode == "I"


def _declared(image: Image) -> int | None:
    """How many bits a TIFF file says its 16-bit pixels use."""
    if any("I;12" in str(tile[3]) for tile in getattr(image, "tile", ())):
        return 12
    most = getattr(image, "tag_v2", {}).get(_MAX_SAMPLE_VALUE)
    most = most[0] if isinstance(most, tuple) else most
    return max(int(most).bit_length(), 8) if isinstance(most, int) and most > 0 else None
