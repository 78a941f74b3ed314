"""Videos and tiny checkpoints of which transformers' own video processors computed the tensors.

The files in `video_goldens/` were made by running this file (`python _video_goldens.py`) in an
environment with torch 2.13.0 (CPU), transformers 5.23.0 and torchvision 0.28.0, where transformers
makes its real video processors. Of torchvision, only the functions on tensors were used. No model
runs: what is kept are the processors' outputs for the videos below, in one batch per family.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np

FOLDER = Path(__file__).parent / "video_goldens"
_SAME_PIXELS = {"qwen25": "qwen2"}
"""Families whose pixels and grids are those of another one, and are not kept twice."""
PROMPTS = {
    "even": "What is it?",
    "odd": "Which colour comes first, and why?",
    "small": "Hm",
    "wide": "Say it.",
}
SHAPES = {"even": (4, 32, 40), "odd": (5, 37, 91), "small": (3, 12, 20), "wide": (6, 24, 120)}
"""Frames, height and width of each video."""
RATES = {"even": (10.0, 40), "odd": (29.97, 300), "small": (24.0, 3), "wide": (4.0, 13)}
"""Frames per second and number of frames of its source."""


def frames_of(name: str) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """A video whose frames all differ, with hard edges: uint8 `[frames, height, width, 3]`."""
    t, y, x, c = np.meshgrid(*(np.arange(n) for n in (*SHAPES[name], 3)), indexing="ij")
    return ((7 * x + 11 * y + 53 * t + 91 * c + (x * y * (t + 1)) // 9) % 256).astype(np.uint8)


def indices_of(name: str) -> list[int]:
    """Which frames of its source they are."""
    frames, (_, total) = SHAPES[name][0], RATES[name]
    return [i * total // frames for i in range(frames)]


def metadata_of(name: str) -> dict[str, Any]:
    """What transformers is told of a video."""
    _, height, width = SHAPES[name]
    fps, total = RATES[name]
    return {
        "total_num_frames": total, "fps": fps, "duration": total / fps, "height": height,
        "width": width, "frames_indices": indices_of(name),
    }  # fmt: skip


def build(family: str, folder: Path) -> Path:
    """A tiny checkpoint of a family, with settings for videos."""
    from vlmlens_adapter_qwen2vl import checks

    checks_of = {
        "qwen2": checks.Qwen2VLChecks, "qwen25": checks.Qwen25VLChecks,
        "qwen3": checks.Qwen3VLChecks,
    }  # fmt: skip
    checks_of[family]().build(folder)
    kind = "Qwen3VLVideoProcessor" if family == "qwen3" else "Qwen2VLVideoProcessor"
    area = 6000 if family == "qwen3" else 1200
    said = {
        "video_processor_type": kind, "patch_size": 4, "merge_size": 2, "temporal_patch_size": 2,
        "size": {"shortest_edge": area // 4, "longest_edge": area},
    }  # fmt: skip
    (folder / "video_preprocessor_config.json").write_text(json.dumps(said), encoding="utf-8")
    return folder


def computed(family: str, folder: Path) -> dict[str, Any]:
    """What transformers makes of all videos in one batch; needs torchvision."""
    import transformers

    processor = transformers.AutoProcessor.from_pretrained(build(family, folder))
    found = processor.apply_chat_template(
        [
            [{"role": "user", "content": [{"type": "video", "video": frames_of(name)},
                                          {"type": "text", "text": prompt}]}]
            for name, prompt in PROMPTS.items()
        ],
        tokenize=True, return_dict=True, return_tensors="pt", add_generation_prompt=True,
        processor_kwargs={
            "padding": True, "padding_side": "left", "do_sample_frames": False,
            "video_metadata": [metadata_of(name) for name in PROMPTS],
        },
    )  # fmt: skip
    print(
        family,
        type(processor.video_processor).__module__,
        {k: tuple(v.shape) for k, v in found.items()},
    )
    return {name: value.numpy() for name, value in found.items()}


def kept(family: str) -> dict[str, Any]:
    """The outputs of transformers' processor of a family, as they were kept."""
    found = {}
    for name in dict.fromkeys((_SAME_PIXELS.get(family, family), family)):
        with np.load(FOLDER / f"{name}.npz", allow_pickle=False) as file:
            found |= {key: file[key] for key in file.files}
    return found


if __name__ == "__main__":
    import tempfile

    for each in sys.argv[1:] or ("qwen2", "qwen25", "qwen3"):
        with tempfile.TemporaryDirectory() as made:
            found = computed(each, Path(made))
        same = kept(_SAME_PIXELS[each]) if each in _SAME_PIXELS else {}
        new = {
            name: value
            for name, value in found.items()
            if name not in same or not np.array_equal(value, same[name])
        }
        np.savez_compressed(FOLDER / f"{each}.npz", **new)
