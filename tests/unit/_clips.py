"""Small videos whose gray level tells the number of each frame."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from vlmlens.samples import Sample

STEP = 10
SIZE = (64, 48)


def make_clip(
    path: Path,
    frames: int = 24,
    *,
    codec: str = "libx264",
    form: str = "yuv420p",
    fps: int = 10,
    size: tuple[int, int] = SIZE,
    options: dict[str, str] | None = None,
    times: Sequence[int] | None = None,
    turned: int = 0,
) -> Path:
    """A video in which frame i is gray with 10 + 10 i, its upper left quarter white.

    Args:
        path: The file to write.
        frames: How many frames.
        codec: FFmpeg's name of the encoder.
        form: FFmpeg's name of the format of pixels.
        fps: Frames per second.
        size: (width, height).
        options: Of the encoder.
        times: When each frame is shown, in milliseconds; None: by `fps`.
        turned: Degrees by which players turn it.
    """
    import av

    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream(codec, rate=fps, options=options or {})
        stream.width, stream.height = size
        stream.pix_fmt = form
        stream.codec_context.gop_size = 8
        if times is not None:
            stream.codec_context.time_base = Fraction(1, 1000)
        if turned:
            stream.set_display_rotation(turned)
        for number in range(frames):
            frame = av.VideoFrame.from_ndarray(pixels(number, size), format="rgb24")
            if times is not None:
                frame.pts, frame.time_base = times[number], Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def pixels(number: int, size: tuple[int, int] = SIZE) -> np.ndarray[Any, Any]:
    """What frame `number` shows: uint8 `[height, width, 3]`."""
    width, height = size
    made = np.full((height, width, 3), STEP * (number + 1), np.uint8)
    made[: height // 4, : width // 4] = 255
    return made


def number_of(image: Image.Image | str) -> int:
    """The number that the gray level of a frame's last quarter tells."""
    opened = image if isinstance(image, Image.Image) else Image.open(image)
    shown = np.asarray(opened.convert("L"), np.float64)
    height, width = shown.shape
    level = shown[height // 2 :, width // 2 :].mean()
    number = round(level / STEP - 1)
    assert abs(level - STEP * (number + 1)) < STEP / 2 - 0.5, level
    return number


def numbers(sample: Sample) -> list[int]:
    """What the gray levels of a sample's frames tell."""
    return [number_of(str(image)) for image in sample.images]


def table(folder: Path, rows: Sequence[Mapping[str, Any]], name: str = "t.jsonl") -> Path:
    """A table in a folder, a line per row."""
    path = folder / name
    path.write_text("\n".join(map(json.dumps, rows)))
    return path


def make_folder(made: Path) -> Path:
    """A folder with two videos, `a.mp4` and `b.webm`, and three pictures that may be frames."""
    make_clip(made / "a.mp4", 24)
    make_clip(made / "b.webm", 12, codec="libvpx-vp9")
    for number in range(3):
        Image.new("RGB", (32, 32), (10 * (number + 1),) * 3).save(made / f"f{number}.png")
    return made
