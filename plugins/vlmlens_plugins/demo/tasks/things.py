"""Objects of tasks: where they are put, and how they are drawn in front of a plain background."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
from PIL import Image

from vlmlens_plugins.demo._sprites import paint, silhouette
from vlmlens_plugins.demo.scenes import COLORS, RGB
from vlmlens_plugins.demo.tasks.task import SIZE

QUARTERS: Final = ((35, 35), (93, 35), (35, 93), (93, 93))
"""Where the objects of a picture with four are, before they are moved a little."""

_MOVED: Final = 6
_GRAIN: Final = 4


@dataclass(frozen=True, slots=True)
class Thing:
    """An object of a task.

    Attributes:
        color: A key of `COLORS`.
        shape: One of `SHAPES`.
        x: Left edge of its box in pixels; `y`: the top edge.
        size: Side of the box in pixels.
        rgb: The colour as drawn.
        clear: From 1, seen as it is, to 0, lost in the haze.
        stripes: None, or the stripes' colour, direction and phase (radians).
    """

    color: str
    shape: str
    x: int
    y: int
    size: int
    rgb: RGB
    clear: float = 1.0
    stripes: tuple[RGB, float, float] | None = None

    def at(self, across: float, down: float) -> tuple[int, int]:
        """The pixel at a place in its box, from 0 to 1 each way."""
        return self.x + int(across * self.size), self.y + int(down * self.size)


def background(rng: np.random.Generator, low: int, high: int) -> RGB:
    """A muted colour of that brightness."""
    red, green, blue = (rng.integers(low, high + 1) + rng.integers(-10, 11, 3)).tolist()
    return red, green, blue


def tinged(rng: np.random.Generator, color: str) -> RGB:
    """A colour with a small jitter."""
    off = rng.integers(-10, 11, 3)
    red, green, blue = np.clip(np.asarray(COLORS[color]) + off, 0, 255).tolist()
    return red, green, blue


def quartered(rng: np.random.Generator, sizes: Sequence[int]) -> list[tuple[int, int]]:
    """The (left, top) of four boxes of these sizes, each in another quarter of the picture."""
    places = []
    for quarter, size in zip(rng.permutation(4).tolist(), sizes, strict=True):
        x, y = (c + int(rng.integers(-_MOVED, _MOVED + 1)) for c in QUARTERS[quarter])
        places.append((x - size // 2, y - size // 2))
    return places


def drawn(
    things: Iterable[Thing], behind: RGB, grain: int, *, mirrored: bool, gain: float = 1.0
) -> Image.Image:
    """Draw objects in this order, the nearest last.

    Args:
        things: The objects.
        behind: The background, and what haze fades to.
        grain: Seed of a faint noise.
        mirrored: Whether light falls from the right.
        gain: What all brightness is multiplied by, before it is cut at white.
    """
    canvas = Image.new("RGB", (SIZE, SIZE), behind)
    for thing in things:
        _add(canvas, thing, behind, mirrored)
    noise = _GRAIN * np.random.default_rng(grain).standard_normal((SIZE, SIZE, 1), np.float32)
    pixels: npt.NDArray[np.float32] = np.asarray(canvas, np.float32) * np.float32(gain) + noise
    return Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))


def covers(thing: Thing, spot: tuple[int, int], *, mirrored: bool) -> bool:
    """Whether an object is at a pixel, seen or hidden."""
    column, row = spot[0] - thing.x, spot[1] - thing.y
    if not (0 <= column < thing.size and 0 <= row < thing.size):
        return False
    return bool(silhouette(thing.shape, thing.size, mirrored)[row, column])


def _add(canvas: Image.Image, thing: Thing, behind: RGB, mirrored: bool) -> None:
    alone = Image.new("RGB", (SIZE, SIZE), behind)
    box = (thing.x, thing.y, thing.size)
    paint(alone, thing.shape, box, mirrored=mirrored, rgb=thing.rgb, stripes=thing.stripes)
    if thing.clear < 1:
        alone = Image.blend(Image.new("RGB", alone.size, behind), alone, thing.clear)
    cover = Image.fromarray(silhouette(thing.shape, thing.size, mirrored))
    crop = (thing.x, thing.y, thing.x + thing.size, thing.y + thing.size)
    canvas.paste(alone.crop(crop), (thing.x, thing.y), cover)
