"""CLEVR-like scenes whose every attribute is known, drawn with Pillow and numpy.

A scene holds one to four objects in front of a muted background. The *main* object is clearly the
largest one; it alone may be striped. Scene ``i`` of a split is a pure function of
``(seed, split, i)``: it does not depend on how many scenes are made or in which order.

Three attributes are planted for analyses to find:

* colour, shape and number are visible and asked about;
* the surface of the main object is visible, and the demo model is trained to ignore it;
* the photographer is drawn from a random stream of its own and leaves no trace in the image.

Example:
    >>> scene = make_scene(0)
    >>> scene == make_scene(0), draw(scene).size
    (True, (128, 128))
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Final, Literal, TypeAlias

import numpy as np
import numpy.typing as npt
from PIL import Image

from vlmlens_plugins.demo._sprites import SHAPES as _SHAPES
from vlmlens_plugins.demo._sprites import paint, silhouette

SCENES_VERSION: Final = 1
"""Raised whenever the same index would give another scene or another picture."""

Split: TypeAlias = Literal["train", "heldout"]
RGB: TypeAlias = tuple[int, int, int]

IMAGE_SIZE: Final = 128
COLORS: Final[dict[str, RGB]] = {
    "red": (204, 38, 42),
    "green": (44, 152, 58),
    "blue": (42, 84, 212),
    "yellow": (240, 216, 46),
    "purple": (138, 54, 178),
    "cyan": (58, 202, 216),
    "orange": (242, 134, 28),
    "gray": (126, 128, 132),
}
SHAPES: Final = _SHAPES
SURFACES: Final = ("striped", "plain")
PHOTOGRAPHERS: Final = ("A", "B")
TEXTURES: Final = ("smooth", "clouds", "grain", "tiles")
TINT_STRENGTH: Final = 0.3
"""How far a tinted background goes from its muted colour to the tint."""
MAX_OBJECTS: Final = 4
MIN_VISIBLE: Final = 0.7
"""Smallest fraction of an object's silhouette that stays unoccluded."""
MAIN_SIZES: Final = (54, 70)
"""Range of the main object's side in pixels, both ends included."""
OTHER_SIZES: Final = (22, 32)
"""Range of the other objects' sides in pixels, both ends included."""

_SPLIT_KEYS: Final[dict[str, int]] = {"train": 1, "heldout": 2}
_CONTENT, _PHOTOGRAPHER = 0, 1
_MARGIN: Final = 2
_DARK: Final = (30, 75)
_LIGHT: Final = (165, 225)
_PALE: Final[RGB] = (246, 242, 232)
_DEEP: Final[RGB] = (46, 40, 44)
_PALE_STRIPED: Final = frozenset({"red", "green", "blue", "purple"})


@dataclass(frozen=True)
class SceneObject:
    """One object: what it is and the square box in which it is drawn.

    Attributes:
        color: A key of `COLORS`.
        shape: One of `SHAPES`.
        surface: One of `SURFACES`; only the main object may be striped.
        x: Left edge of the box in pixels.
        y: Top edge of the box in pixels.
        size: Side of the box in pixels.
        rgb: The colour as drawn, a small jitter around the nominal one.
        stripe_angle: Direction of the stripes in radians (unused when plain).
        stripe_phase: Offset of the stripes in radians (unused when plain).
    """

    color: str
    shape: str
    surface: str
    x: int
    y: int
    size: int
    rgb: RGB
    stripe_angle: float = 0.0
    stripe_phase: float = 0.0

    @property
    def bottom(self) -> int:
        """Lower edge in pixels; objects further down stand in front."""
        return self.y + self.size

    @property
    def center(self) -> tuple[float, float]:
        """Centre ``(x, y)`` of the box in pixels."""
        return self.x + self.size / 2, self.y + self.size / 2


@dataclass(frozen=True)
class Background:
    """A muted backdrop: a gradient between two colours, under a faint texture.

    Attributes:
        start: Colour at one end of the gradient.
        end: Colour at the other end.
        angle: Direction of the gradient in radians.
        texture: One of `TEXTURES`.
        texture_seed: Seed of the texture.
        tint: A key of `COLORS` that the whole backdrop leans to; None leaves it muted.
    """

    start: RGB
    end: RGB
    angle: float
    texture: str
    texture_seed: int
    tint: str | None = None


@dataclass(frozen=True)
class Scene:
    """Everything that is known about one picture.

    Attributes:
        index: Position in its split.
        split: ``"train"`` or ``"heldout"``; their random streams are disjoint.
        seed: The seed of the whole data set.
        objects: The main object first, then the others.
        background: The backdrop.
        mirrored: Whether light falls from the right instead of the left.
        photographer: ``"A"`` or ``"B"``; nothing in the image depends on it.
    """

    index: int
    split: str
    seed: int
    objects: tuple[SceneObject, ...]
    background: Background
    mirrored: bool
    photographer: str

    @property
    def id(self) -> str:
        """A stable name, such as ``heldout-00007``."""
        return f"{self.split}-{self.index:05d}"

    @property
    def main(self) -> SceneObject:
        """The main (largest) object."""
        return self.objects[0]

    @property
    def number(self) -> int:
        """How many objects there are, main one included."""
        return len(self.objects)

    def contains(self, color: str, shape: str) -> bool:
        """Whether some object has this colour and this shape."""
        return any(item.color == color and item.shape == shape for item in self.objects)

    def attributes(self) -> dict[str, str | int | float]:
        """Flat labels and metadata of the scene, for probes and reports."""
        main, tint = self.main, self.background.tint
        return {
            "color": main.color,
            "shape": main.shape,
            "number": self.number,
            "surface": main.surface,
            "photographer": self.photographer,
            "size": main.size,
            "x": main.center[0],
            "y": main.center[1],
            "texture": self.background.texture,
            "light": "right" if self.mirrored else "left",
            "visible": min(visible_fractions(self.objects, mirrored=self.mirrored)),
            **({} if tint is None else {"background": tint}),
        }


def make_scene(index: int, *, split: Split = "heldout", seed: int = 0) -> Scene:
    """Make one scene.

    Args:
        index: Position in the split, 0 or more.
        split: Which split; scenes of different splits come from disjoint seed streams.
        seed: Seed of the whole data set.

    Returns:
        The scene; the same arguments always give the same one.

    Raises:
        ValueError: The index is negative or the split is unknown.
    """
    if index < 0:
        raise ValueError(f"scene index is {index}; expected 0 or more")
    if split not in _SPLIT_KEYS:
        raise ValueError(f"split is {split!r}; expected one of {sorted(_SPLIT_KEYS)}")
    rng = _stream(seed, split, index, _CONTENT)
    mirrored = bool(rng.integers(2))
    return Scene(
        index=index,
        split=split,
        seed=seed,
        objects=_layout(rng, mirrored),
        background=_background(rng),
        mirrored=mirrored,
        photographer=_pick(_stream(seed, split, index, _PHOTOGRAPHER), PHOTOGRAPHERS),
    )


def draw(scene: Scene) -> Image.Image:
    """Draw a scene as an RGB image of `IMAGE_SIZE` pixels a side."""
    canvas = _draw_background(scene.background)
    for item in sorted(scene.objects, key=_depth):
        _draw_object(canvas, item, scene.mirrored)
    return canvas


def instance_map(
    objects: tuple[SceneObject, ...], *, mirrored: bool = False
) -> npt.NDArray[np.int8]:
    """Which object is seen at each pixel.

    Args:
        objects: The objects of a scene.
        mirrored: `Scene.mirrored`.

    Returns:
        int8 array ``[IMAGE_SIZE, IMAGE_SIZE]``: an index into `objects`, or -1 for background.
    """
    seen = np.full((IMAGE_SIZE, IMAGE_SIZE), -1, np.int8)
    for number in sorted(range(len(objects)), key=lambda n: _depth(objects[n])):
        item = objects[number]
        window = seen[item.y : item.bottom, item.x : item.x + item.size]
        window[silhouette(item.shape, item.size, mirrored)] = number
    return seen


@lru_cache(maxsize=1024)
def visible_fractions(
    objects: tuple[SceneObject, ...], *, mirrored: bool = False
) -> tuple[float, ...]:
    """The unoccluded fraction of each object's silhouette, in the order given."""
    order = sorted(range(len(objects)), key=lambda n: _depth(objects[n]))
    found = [1.0] * len(objects)
    for place, number in enumerate(order):
        in_front = [objects[other] for other in order[place + 1 :]]
        found[number] = _visible(objects[number], in_front, mirrored)
    return tuple(found)


def _visible(item: SceneObject, in_front: list[SceneObject], mirrored: bool) -> float:
    whole = silhouette(item.shape, item.size, mirrored)
    seen = whole.copy()
    for other in in_front:
        left, right = max(item.x, other.x), min(item.x + item.size, other.x + other.size)
        top, bottom = max(item.y, other.y), min(item.bottom, other.bottom)
        if left < right and top < bottom:
            covering = silhouette(other.shape, other.size, mirrored)
            seen[top - item.y : bottom - item.y, left - item.x : right - item.x] &= ~covering[
                top - other.y : bottom - other.y, left - other.x : right - other.x
            ]
    return float(np.count_nonzero(seen) / np.count_nonzero(whole))


def _stream(seed: int, split: str, index: int, purpose: int) -> np.random.Generator:
    key = (_SPLIT_KEYS[split], index, purpose)
    return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=key))


def _pick(rng: np.random.Generator, options: tuple[str, ...]) -> str:
    return options[int(rng.integers(len(options)))]


def _depth(item: SceneObject) -> tuple[int, int]:
    return item.bottom, item.x


def _layout(rng: np.random.Generator, mirrored: bool) -> tuple[SceneObject, ...]:
    number = 1 + int(rng.integers(MAX_OBJECTS))
    objects: tuple[SceneObject, ...] = (_place(rng, _pick(rng, SURFACES), MAIN_SIZES),)
    while len(objects) < number:
        wider = (*objects, _place(rng, "plain", OTHER_SIZES))
        if min(visible_fractions(wider, mirrored=mirrored)) >= MIN_VISIBLE:
            objects = wider
    return objects


def _place(rng: np.random.Generator, surface: str, sizes: tuple[int, int]) -> SceneObject:
    color = _pick(rng, tuple(COLORS))
    size = int(rng.integers(sizes[0], sizes[1] + 1))
    x, y = (int(v) for v in rng.integers(_MARGIN, IMAGE_SIZE - size - _MARGIN + 1, 2))
    return SceneObject(
        color=color,
        shape=_pick(rng, SHAPES),
        surface=surface,
        x=x,
        y=y,
        size=size,
        rgb=_jittered(rng, COLORS[color], 10),
        stripe_angle=float(rng.uniform(0, math.pi)),
        stripe_phase=float(rng.uniform(0, 2 * math.pi)),
    )


def _jittered(rng: np.random.Generator, rgb: RGB, spread: int) -> RGB:
    off = rng.integers(-spread, spread + 1, 3).tolist()
    red, green, blue = (min(max(value + by, 0), 255) for value, by in zip(rgb, off, strict=True))
    return red, green, blue


def _background(rng: np.random.Generator) -> Background:
    # Middle grays are left out, so that gray objects stay visible.
    low, high = _DARK if rng.random() < 0.3 else _LIGHT
    start, end = (int(v) for v in rng.integers(low, high + 1, 2))
    return Background(
        start=_jittered(rng, (start, start, start), 18),
        end=_jittered(rng, (end, end, end), 18),
        angle=float(rng.uniform(0, 2 * math.pi)),
        texture=_pick(rng, TEXTURES),
        texture_seed=int(rng.integers(2**31)),
    )


def _draw_background(backdrop: Background) -> Image.Image:
    rows, columns = np.mgrid[:IMAGE_SIZE, :IMAGE_SIZE].astype(np.float32) / IMAGE_SIZE - 0.5
    along = columns * math.cos(backdrop.angle) + rows * math.sin(backdrop.angle)
    mix = np.clip(along / math.sqrt(2) + 0.5, 0, 1)[..., None]
    start, end = (np.asarray(rgb, np.float32) for rgb in (backdrop.start, backdrop.end))
    relief = _relief(backdrop)[..., None]
    pixels = start * (1 - mix) + end * mix + relief
    if backdrop.tint is not None:
        pixels += TINT_STRENGTH * (np.asarray(COLORS[backdrop.tint], np.float32) - pixels)
    pixels = np.clip(pixels, 0, 255)
    return Image.fromarray(pixels.astype(np.uint8))


def _relief(backdrop: Background) -> npt.NDArray[np.float32]:
    """Brightness offsets of the texture, ``[IMAGE_SIZE, IMAGE_SIZE]``."""
    rng = np.random.default_rng(backdrop.texture_seed)
    if backdrop.texture == "smooth":
        return np.zeros((IMAGE_SIZE, IMAGE_SIZE), np.float32)
    if backdrop.texture == "grain":
        return 5 * rng.standard_normal((IMAGE_SIZE, IMAGE_SIZE), np.float32)
    cells = 6 if backdrop.texture == "clouds" else 8
    coarse = Image.fromarray(9 * rng.standard_normal((cells, cells), np.float32))
    how = Image.Resampling.BICUBIC if backdrop.texture == "clouds" else Image.Resampling.NEAREST
    return np.asarray(coarse.resize((IMAGE_SIZE, IMAGE_SIZE), how), np.float32)


def _draw_object(canvas: Image.Image, item: SceneObject, mirrored: bool) -> None:
    stripes = None
    if item.surface == "striped":
        color = _PALE if item.color in _PALE_STRIPED else _DEEP
        stripes = (color, item.stripe_angle, item.stripe_phase)
    box = (item.x, item.y, item.size)
    paint(canvas, item.shape, box, mirrored=mirrored, rgb=item.rgb, stripes=stripes)
