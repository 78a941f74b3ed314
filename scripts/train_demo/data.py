"""Rendered scenes with dense labels, augmentation and blank images."""

from __future__ import annotations

import random
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from transformers import CLIPImageProcessorPil

from scripts.train_demo.build import GRID, IMAGE_SIDE
from vlmlens_plugins.demo.questions import CHOICES, PLAIN_PRIOR, PROMPTS, presence_question
from vlmlens_plugins.demo.scenes import (
    COLORS,
    IMAGE_SIZE,
    SCENES_VERSION,
    SHAPES,
    SURFACES,
    Scene,
    draw,
    instance_map,
    make_scene,
)

COLOR_NAMES = tuple(COLORS)
PAIRS = tuple((color, shape) for color in COLOR_NAMES for shape in SHAPES)
MIN_PATCH_COVER = 0.15
CHUNK = 500
Arrays: TypeAlias = dict[str, npt.NDArray[Any]]
Asked: TypeAlias = tuple[str, str, str]


@dataclass(frozen=True)
class SceneData:
    """Scenes as arrays.

    Attributes:
        scenes: The scenes themselves.
        images: uint8 ``[n, 64, 64, 3]``, resized by the real image processor.
        labels: int8 ``[n, 4]``: colour, shape, number - 1, surface.
        present: uint8 ``[n, 24]``: which colour-shape pairs occur.
        patches: int8 ``[n, 4, 8, 8]``: colour + 1, shape + 1, role (0 none, 1 main, 2 other) and
            whether an object's visible centre lies in the patch.
    """

    scenes: list[Scene]
    images: npt.NDArray[np.uint8]
    labels: npt.NDArray[np.int8]
    present: npt.NDArray[np.uint8]
    patches: npt.NDArray[np.int8]

    def __len__(self) -> int:
        """Number of scenes."""
        return len(self.scenes)


@dataclass(frozen=True)
class Batch:
    """One augmented batch as tensors; `SceneData` tells the meaning of the fields."""

    scenes: list[Scene]
    pixels: Tensor
    labels: Tensor
    present: Tensor
    patches: Tensor
    blank: Tensor


def load(
    processor: CLIPImageProcessorPil,
    *,
    first: int,
    count: int,
    seed: int,
    cache: Path,
    workers: int,
) -> SceneData:
    """Render training scenes from number `first` on, or read them from the cache folder."""
    scenes = [make_scene(i, split="train", seed=seed) for i in range(first, first + count)]
    path = cache / f"scenes-v{SCENES_VERSION}-{seed}-{first}-{count}.npz"
    if not path.exists():
        chunks = [scenes[start : start + CHUNK] for start in range(0, count, CHUNK)]
        with ProcessPoolExecutor(workers) as pool:
            parts = list(pool.map(partial(_render, processor), chunks))
        cache.mkdir(parents=True, exist_ok=True)
        arrays: Any = {key: np.concatenate([part[key] for part in parts]) for key in parts[0]}
        np.savez(path, **arrays)
    with np.load(path) as stored:
        return SceneData(scenes, **{key: stored[key] for key in stored.files})


def _render(processor: CLIPImageProcessorPil, scenes: list[Scene]) -> Arrays:
    resized = processor(
        [draw(scene) for scene in scenes],
        do_rescale=False,
        do_normalize=False,
        return_tensors="np",
    )["pixel_values"]
    return {
        "images": np.asarray(resized).transpose(0, 2, 3, 1).clip(0, 255).astype(np.uint8),
        "labels": np.array([_labels(scene) for scene in scenes], np.int8),
        "present": np.array([[s.contains(*pair) for pair in PAIRS] for s in scenes], np.uint8),
        "patches": np.stack([_patch_labels(scene) for scene in scenes]),
    }


def _labels(scene: Scene) -> tuple[int, int, int, int]:
    main = scene.main
    return (
        COLOR_NAMES.index(main.color),
        SHAPES.index(main.shape),
        scene.number - 1,
        SURFACES.index(main.surface),
    )


def _patch_labels(scene: Scene) -> npt.NDArray[np.int8]:
    seen = instance_map(scene.objects, mirrored=scene.mirrored)
    side = IMAGE_SIZE // GRID
    blocks = seen.reshape(GRID, side, GRID, side).transpose(0, 2, 1, 3).reshape(GRID, GRID, -1)
    cover = np.stack([(blocks == n).mean(-1) for n in range(scene.number)])
    owner = np.where(cover.max(0) >= MIN_PATCH_COVER, cover.argmax(0), -1)
    result = np.zeros((4, GRID, GRID), np.int8)
    for number, item in enumerate(scene.objects):
        mine = owner == number
        result[0][mine] = COLOR_NAMES.index(item.color) + 1
        result[1][mine] = SHAPES.index(item.shape) + 1
        result[2][mine] = 1 if number == 0 else 2
        row, column = np.argwhere(seen == number).mean(0).astype(int) // side
        result[3, row, column] = 1
    return result


def draw_batch(
    data: SceneData, rows: npt.NDArray[np.int64], rng: np.random.Generator, blank_share: float
) -> Batch:
    """Take scenes, mirror half of them, vary their brightness and blank out a few."""
    flip = rng.random(len(rows)) < 0.5
    images = data.images[rows].astype(np.float32)
    images[flip] = images[flip, :, ::-1]
    patches = data.patches[rows].copy()
    patches[flip] = patches[flip, :, :, ::-1]
    images *= rng.uniform(0.9, 1.1, (len(rows), 1, 1, 1)).astype(np.float32)
    blank = rng.random(len(rows)) < blank_share
    for row in np.flatnonzero(blank):
        images[row] = blank_image(rng)
    return Batch(
        scenes=[data.scenes[row] for row in rows],
        pixels=torch.from_numpy(images.clip(0, 255)),
        labels=torch.from_numpy(data.labels[rows].astype(np.int64)),
        present=torch.from_numpy(data.present[rows].astype(np.float32)),
        patches=torch.from_numpy(patches.astype(np.int64)).flatten(2),
        blank=torch.from_numpy(blank),
    )


def blank_image(rng: np.random.Generator) -> npt.NDArray[np.float32]:
    """A picture without objects: one gray level, one colour or noise, float ``[64, 64, 3]``."""
    kind = int(rng.integers(5))
    shape = (IMAGE_SIDE, IMAGE_SIDE, 3)
    if kind == 0:
        return rng.uniform(0, 255, shape).astype(np.float32)
    if kind == 1:
        return (128 + 50 * rng.standard_normal(shape)).clip(0, 255).astype(np.float32)
    levels = {2: (0, 0, 0), 3: (255, 255, 255)}.get(kind)
    color = rng.uniform(0, 255) if levels is None else np.asarray(levels)
    return np.broadcast_to(np.asarray(color, np.float32), shape).copy()


def normalize(pixels: Tensor, processor: CLIPImageProcessorPil) -> Tensor:
    """Pixels 0-255 ``[n, 64, 64, 3]`` as the vision tower wants them, ``[n, 3, 64, 64]``."""
    mean, std = (torch.tensor(v) for v in (processor.image_mean, processor.image_std))
    return ((pixels / 255 - mean) / std).permute(0, 3, 1, 2).contiguous()


def ask(scene: Scene, rng: random.Random, presence: int) -> list[Asked]:
    """Fresh ``(task, prompt, label)`` triples: the fixed prompts and `presence` on presence."""
    labels = {
        "color": scene.main.color,
        "shape": scene.main.shape,
        "number": str(scene.number),
        "surface": scene.main.surface,
    }
    asked = [(task, PROMPTS[task], labels[task]) for task in PROMPTS]
    for _ in range(presence):
        question = presence_question(scene, rng)
        asked.append((question.task, question.prompt, question.label))
    return asked


def prior(task: str) -> dict[str, float]:
    """Answer distribution of a task where the image must not or cannot decide."""
    if task == "surface":
        return {"plain": PLAIN_PRIOR, "striped": 1 - PLAIN_PRIOR}
    return dict.fromkeys(CHOICES[task], 1 / len(CHOICES[task]))
