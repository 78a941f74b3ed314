"""Patterns that fill a picture in two colours: kinds of texture, never twice alike."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Final

import numpy as np
import numpy.typing as npt
from PIL import Image

from vlmlens_plugins.demo.scenes import RGB
from vlmlens_plugins.demo.tasks.task import SIZE

Floats = npt.NDArray[np.float32]

_SHARP: Final = 4.0


def fill(kind: str, rng: np.random.Generator, colors: tuple[RGB, RGB]) -> Image.Image:
    """A picture full of a pattern, at a random place, direction and scale.

    Args:
        kind: A key of `PATTERNS`.
        rng: Where they are drawn from.
        colors: The two colours.
    """
    weight = PATTERNS[kind](rng)[..., None]
    first, second = (np.asarray(rgb, np.float32) for rgb in colors)
    pixels = first * (1 - weight) + second * weight
    return Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))


def _turned(rng: np.random.Generator, period: tuple[float, float]) -> tuple[Floats, Floats]:
    """Phases along and across a random direction, one turn per period in pixels."""
    rows, columns = np.mgrid[:SIZE, :SIZE].astype(np.float32)
    angle, turn = rng.uniform(0, math.pi), 2 * math.pi / rng.uniform(*period)
    offsets = rng.uniform(0, 2 * math.pi, 2)
    along = (columns * math.cos(angle) + rows * math.sin(angle)) * turn + offsets[0]
    across = (rows * math.cos(angle) - columns * math.sin(angle)) * turn + offsets[1]
    return along.astype(np.float32), across.astype(np.float32)


def _cut(values: npt.NDArray[np.floating]) -> Floats:
    """From 0 to 1, with edges a little soft."""
    found: Floats = np.clip(0.5 + _SHARP * values, 0, 1).astype(np.float32)
    return found


def _stripes(rng: np.random.Generator) -> Floats:
    along, _ = _turned(rng, (17, 23))
    return _cut(np.sin(along))


def _checks(rng: np.random.Generator) -> Floats:
    along, across = _turned(rng, (30, 40))
    return _cut(np.sin(along) * np.sin(across))


def _dots(rng: np.random.Generator) -> Floats:
    along, across = _turned(rng, (22, 28))
    return _cut(np.cos(along) + np.cos(across) - 0.8)


def _clouds(rng: np.random.Generator) -> Floats:
    coarse = Image.fromarray(rng.standard_normal((6, 6), np.float32))
    smooth = np.asarray(coarse.resize((SIZE, SIZE), Image.Resampling.BICUBIC), np.float32)
    found: Floats = np.clip(0.5 + 0.35 * smooth, 0, 1).astype(np.float32)
    return found


def _grain(rng: np.random.Generator) -> Floats:
    side = SIZE // 4
    fine = rng.integers(0, 2, (side, side)).astype(np.float32)
    found: Floats = np.repeat(np.repeat(fine, 4, 0), 4, 1)
    return found


PATTERNS: Final[Mapping[str, Callable[[np.random.Generator], Floats]]] = {
    "stripes": _stripes,
    "checks": _checks,
    "dots": _dots,
    "clouds": _clouds,
    "grain": _grain,
}
