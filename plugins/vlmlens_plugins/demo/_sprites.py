"""How one object looks: a silhouette, its shading and its stripes, in a square box.

A sprite is computed once per shape at high resolution and scaled down with antialiasing to the
size at which it is drawn.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Final, TypeAlias

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFilter

Floats: TypeAlias = npt.NDArray[np.float32]

SHAPES: Final = ("cube", "sphere", "cone")
_MASTER: Final = 192
_STRIPE_PERIOD: Final = 0.30
_STRIPE_EDGE: Final = 3.0
_SLANT: Final = 0.26


@lru_cache(maxsize=512)
def silhouette(shape: str, size: int, mirrored: bool) -> npt.NDArray[np.bool_]:
    """Pixels of its box that an object covers, bool ``[size, size]``."""
    return np.asarray(_scaled(shape, size, mirrored)[0]) > 127


def paint(
    canvas: Image.Image,
    shape: str,
    box: tuple[int, int, int],
    *,
    mirrored: bool,
    rgb: tuple[int, int, int],
    stripes: tuple[tuple[int, int, int], float, float] | None,
) -> None:
    """Draw one object and its shadow.

    Args:
        canvas: RGB image to draw on.
        shape: One of `SHAPES`.
        box: ``(x, y, size)`` in pixels.
        mirrored: Whether light falls from the right.
        rgb: Colour of the object.
        stripes: None, or the stripes' colour, direction and phase (radians).
    """
    x, y, size = box
    shadow = _shadow(size)
    drift = -size // 8 if mirrored else size // 8
    canvas.paste((0, 0, 0), (x + drift - size // 8, y + size - size // 4), shadow)
    alpha, shade, gloss = _scaled(shape, size, mirrored)
    paintwork = np.broadcast_to(np.asarray(rgb, np.float32), (size, size, 3))
    if stripes is not None:
        weight = _stripe_weight(size, *stripes[1:])[..., None]
        paintwork = paintwork * (1 - weight) + np.asarray(stripes[0], np.float32) * weight
    light = np.asarray(shade, np.float32)[..., None] / 200
    shine = np.asarray(gloss, np.float32)[..., None]
    pixels = np.clip(paintwork * light + shine, 0, 255).astype(np.uint8)
    canvas.paste(Image.fromarray(pixels), (x, y), alpha)


@lru_cache(maxsize=512)
def _scaled(shape: str, size: int, mirrored: bool) -> tuple[Image.Image, ...]:
    layers = _master(shape)
    if mirrored:
        layers = [layer.transpose(Image.Transpose.FLIP_LEFT_RIGHT) for layer in layers]
    return tuple(layer.resize((size, size), Image.Resampling.BOX) for layer in layers)


@lru_cache(maxsize=len(SHAPES))
def _master(shape: str) -> list[Image.Image]:
    return [_image(layer) for layer in _MASTERS[shape]()]


@lru_cache(maxsize=64)
def _shadow(size: int) -> Image.Image:
    mask = Image.new("L", (size + size // 4, size // 2), 0)
    inset = size // 8
    ImageDraw.Draw(mask).ellipse((inset, inset // 2, size, size // 2 - inset // 2), fill=110)
    return mask.filter(ImageFilter.GaussianBlur(size / 16))


def _stripe_weight(size: int, angle: float, phase: float) -> Floats:
    rows, columns = np.mgrid[:size, :size].astype(np.float32) / size
    along = columns * math.cos(angle) + rows * math.sin(angle)
    wave = np.sin(along * (2 * math.pi / _STRIPE_PERIOD) + phase)
    weight: Floats = np.clip(0.5 + _STRIPE_EDGE * wave, 0, 1).astype(np.float32)
    return weight


def _image(layer: Floats) -> Image.Image:
    return Image.fromarray(np.clip(layer, 0, 255).astype(np.uint8))


def _opaque(covered: npt.NDArray[np.bool_]) -> Floats:
    return np.where(covered, np.float32(255), np.float32(0))


def _grid() -> tuple[Floats, Floats]:
    """Coordinates from -1 to 1: right and down."""
    rows, columns = np.mgrid[:_MASTER, :_MASTER].astype(np.float32)
    scale = np.float32(2 / (_MASTER - 1))
    return columns * scale - 1, rows * scale - 1


def _sphere() -> tuple[Floats, Floats, Floats]:
    right, down = _grid()
    square = right**2 + down**2
    depth = np.sqrt(np.clip(1 - square, 0, 1))
    facing = np.clip(-0.45 * right - 0.6 * down + 0.66 * depth, 0, 1)
    gloss = 130 * np.exp(-((right + 0.36) ** 2 + (down + 0.42) ** 2) / 0.045)
    return _opaque(square <= 1), 95 + 130 * facing, gloss


def _cone() -> tuple[Floats, Floats, Floats]:
    right, down = _grid()
    width = np.clip((down + 1) / 1.72, 1e-3, None)
    side = (np.abs(right) <= width) & (down <= 0.72)
    base = right**2 + ((down - 0.72) / 0.28) ** 2 <= 1
    around = np.clip(right / width, -1, 1)
    gloss = 55 * np.exp(-((around + 0.45) ** 2) / 0.03)
    return _opaque(side | base), 165 - 75 * around - 25 * around**2, gloss


def _cube() -> tuple[Floats, Floats, Floats]:
    edge, slant = _MASTER - 1, _SLANT * (_MASTER - 1)
    faces: tuple[tuple[int, list[tuple[float, float]]], ...] = (
        (190, [(0, slant), (edge - slant, slant), (edge - slant, edge), (0, edge)]),
        (235, [(0, slant), (slant, 0), (edge, 0), (edge - slant, slant)]),
        (125, [(edge - slant, slant), (edge, 0), (edge, edge - slant), (edge - slant, edge)]),
    )
    alpha, shade = (Image.new("L", (_MASTER, _MASTER), value) for value in (0, 190))
    for value, corners in faces:
        ImageDraw.Draw(alpha).polygon(corners, fill=255)
        ImageDraw.Draw(shade).polygon(corners, fill=value)
    matt = np.zeros((_MASTER, _MASTER), np.float32)
    return np.asarray(alpha, np.float32), np.asarray(shade, np.float32), matt


_MASTERS: Final = {"cube": _cube, "sphere": _sphere, "cone": _cone}
