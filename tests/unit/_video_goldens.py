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
_SAME_PIXELS = {"qwen25": "qwen2", "minicpm47": "minicpm"}
"""Families whose pixels and grids are those of another one, and are not kept twice."""
PROMPTS = {
    "even": "What is it?",
    "odd": "Which colour comes first, and why?",
    "small": "Hm",
    "wide": "Say it.",
}
ALONE = {
    "llavanextvideo": ("odd", "small", "even"),
    "internvl": ("odd", "small", "even"),
    "minicpm": ("even", "small"),
    "minicpm47": ("even", "small"),
    "smolvlm": ("odd", "small", "even"),
}
"""Families of which videos are kept one by one, and which: most stack frames in a batch."""
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


def sample_of(name: str) -> Any:
    """The video as a sample, with what is known of its times."""
    from PIL import Image

    from vlmlens.samples import Sample
    from vlmlens.videos import Video

    fps, total = RATES[name]
    frames = tuple(Image.fromarray(frame) for frame in frames_of(name))
    video = Video("", tuple(indices_of(name)), fps=fps, total=total, duration=total / fps)
    return Sample(name, PROMPTS[name], frames, video=video)


def close(one: Any, other: Any) -> bool:
    """Equal up to what float32 allows, relative to the largest number (at least 1)."""
    found, wanted = np.asarray(one), np.asarray(other)
    scale = max(float(np.abs(wanted).max()), 1.0)
    return found.shape == wanted.shape and bool(np.abs(found - wanted).max() <= 2e-5 * scale)


LEVEL = 1.01 / 255 / 0.26
"""One of 256 levels after normalising: where a resized value may round to either side."""


def build(family: str, folder: Path) -> Path:
    """A tiny checkpoint of a family, with settings for videos."""
    settings = {
        "qwen2": _qwen2, "qwen25": _qwen25, "qwen3": _qwen3, "llavanextvideo": _llava_next_video,
        "internvl": _internvl, "minicpm": _minicpm, "minicpm47": _minicpm47,
        "smolvlm": _smolvlm,
    }[family](folder)  # fmt: skip
    (folder / "video_preprocessor_config.json").write_text(json.dumps(settings), encoding="utf-8")
    return folder


def _qwen2(folder: Path) -> dict[str, Any]:
    from vlmlens_adapter_qwen2vl.checks import Qwen2VLChecks

    Qwen2VLChecks().build(folder)
    return _qwen_settings("Qwen2VLVideoProcessor", 1200)


def _qwen25(folder: Path) -> dict[str, Any]:
    from vlmlens_adapter_qwen2vl.checks import Qwen25VLChecks

    Qwen25VLChecks().build(folder)
    return _qwen_settings("Qwen2VLVideoProcessor", 1200)


def _qwen3(folder: Path) -> dict[str, Any]:
    from vlmlens_adapter_qwen2vl.checks import Qwen3VLChecks

    Qwen3VLChecks().build(folder)
    return _qwen_settings("Qwen3VLVideoProcessor", 6000)


def _qwen_settings(kind: str, area: int) -> dict[str, Any]:
    return {
        "video_processor_type": kind, "patch_size": 4, "merge_size": 2, "temporal_patch_size": 2,
        "size": {"shortest_edge": area // 4, "longest_edge": area},
    }  # fmt: skip


def _internvl(folder: Path) -> dict[str, Any]:
    from vlmlens_adapter_internvl.checks import InternVLChecks

    InternVLChecks().build(folder)
    size = {"height": 32, "width": 32}
    return {"video_processor_type": "InternVLVideoProcessor", "size": size}


_MINICPM = {
    "video_processor_type": "MiniCPMV4_6VideoProcessor", "max_slice_nums": 4,
    "scale_resolution": 32, "patch_size": 4,
}  # fmt: skip


def _minicpm(folder: Path) -> dict[str, Any]:
    from vlmlens_adapter_minicpm.checks import MiniCpm46Checks

    MiniCpm46Checks().build(folder)
    return _MINICPM


def _minicpm47(folder: Path) -> dict[str, Any]:
    from vlmlens_adapter_minicpm.checks import MiniCpm47Checks

    MiniCpm47Checks().build(folder)
    return _MINICPM


def _smolvlm(folder: Path) -> dict[str, Any]:
    from vlmlens_adapter_smolvlm.checks import SmolVLM2Checks

    class Even(SmolVLM2Checks):
        tile = 32

    Even().build(folder)
    return {
        "video_processor_type": "SmolVLMVideoProcessor", "max_image_size": {"longest_edge": 32},
        "video_sampling": {"fps": 1, "max_frames": 64, "video_size": {"longest_edge": 80}},
    }  # fmt: skip


def _llava_next_video(folder: Path) -> dict[str, Any]:
    """LLaVA-NeXT-Video has no adapter of its own: a CLIP tower, 2 x 2 patches pooled, Llama."""
    import transformers as t

    from vlmlens.testing.tiny import byte_tokenizer, save, small_text, small_vision

    tokenizer = byte_tokenizer(
        ["<unk>", "<s>", "</s>", "<pad>", "<image>", "<video>"],
        bos="<s>", eos="</s>", pad="<pad>", unk="<unk>", add_bos=True,
    )  # fmt: skip
    tokenizer.chat_template = _LLAVA_TEMPLATE
    pinpoints = [[32, 64], [64, 32], [64, 64]]
    config = t.LlavaNextVideoConfig(
        vision_config=t.CLIPVisionConfig(**small_vision(projection_dim=16)),
        text_config=t.LlamaConfig(**small_text(tokenizer)), image_grid_pinpoints=pinpoints,
        image_seq_length=16, image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
        video_token_index=tokenizer.convert_tokens_to_ids("<video>"),
    )  # fmt: skip
    size = {"size": {"shortest_edge": 32}, "crop_size": {"height": 32, "width": 32}}
    images = t.LlavaNextImageProcessorPil(**size, image_grid_pinpoints=pinpoints)
    said = {
        "processor_class": "LlavaNextVideoProcessor", "patch_size": 8,
        "vision_feature_select_strategy": "default", "num_additional_image_tokens": 1,
    }  # fmt: skip
    model = t.LlavaNextVideoForConditionalGeneration(config)
    save(folder, model, tokenizer, images, processor_config=said)
    return {"video_processor_type": "LlavaNextVideoVideoProcessor", **size}


_LLAVA_TEMPLATE = (
    "{% for message in messages %}{{ 'USER: ' }}{% for part in message['content'] %}"
    "{{ '<' + part['type'] + '>\n' if part['type'] in ('image', 'video') else part['text'] }}"
    "{% endfor %}{{ ' ASSISTANT:' }}{% endfor %}"
)


def computed(family: str, folder: Path) -> dict[str, Any]:
    """What transformers makes of all videos in one batch; needs torchvision.

    Of families in `ALONE`: of each video alone, with its name before that of the input.
    """
    import transformers

    processor = transformers.AutoProcessor.from_pretrained(build(family, folder))
    made = type(processor.video_processor).__module__
    if not made.startswith("transformers.") or "torchvision" not in sys.modules:
        raise SystemExit(f"{made}: torchvision is needed.")
    if family not in ALONE:
        return _inputs(processor, list(PROMPTS))
    found = {name: _inputs(processor, [name]) for name in ALONE[family]}
    return {f"{name}/{key}": value for name in found for key, value in found[name].items()}


def _inputs(processor: Any, names: list[str]) -> dict[str, Any]:
    conversations = [
        [{"role": "user", "content": [{"type": "video", "video": frames_of(name)},
                                      {"type": "text", "text": PROMPTS[name]}]}]
        for name in names
    ]  # fmt: skip
    found = processor.apply_chat_template(
        conversations, tokenize=True, return_dict=True, return_tensors="pt",
        add_generation_prompt=True,
        processor_kwargs={
            "padding": True, "padding_side": "left", "do_sample_frames": False,
            "video_metadata": [metadata_of(name) for name in names],
        },
    )  # fmt: skip
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

    for each in sys.argv[1:] or ("qwen2", "qwen25", "qwen3", *ALONE):
        with tempfile.TemporaryDirectory() as made:
            found = computed(each, Path(made))
        same = kept(_SAME_PIXELS[each]) if each in _SAME_PIXELS else {}
        new = {
            name: value
            for name, value in found.items()
            if name not in same or not np.array_equal(value, same[name])
        }
        np.savez_compressed(FOLDER / f"{each}.npz", **new)
