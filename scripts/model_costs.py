"""What 1,000 samples cost with models of several sizes, computed from their shapes.

Use: python -m scripts.model_costs, with --write to put the table into README.md, or with --speed
for times on this machine. No weights are needed: models are made without memory.

Work is counted in floating-point operations (a multiplication and an addition are two): of linear
layers and of attention, which are nearly all. Logits are not counted, since extraction leaves them
out. A test holds the count against torch's own counter.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import torch

from vlmlens._display import size
from vlmlens.abc.adapter import LoadRequest, ModelAdapter
from vlmlens.compose.estimate import duration, estimated
from vlmlens.samples import Sample
from vlmlens.sites import Axis
from vlmlens.spec.model import RunSpec

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "README.md"
BEGIN, END = "<!-- costs: scripts/model_costs.py -->", "<!-- end of costs -->"
SAMPLES, TEXT = 1000, 32
"""Samples, and tokens of text in each."""

_SO400M = {
    "hidden_size": 1152, "intermediate_size": 4304, "num_hidden_layers": 27,
    "num_attention_heads": 16, "image_size": 384, "patch_size": 14,
}  # fmt: skip
_BASE = {
    "hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12,
    "num_attention_heads": 12, "image_size": 512, "patch_size": 16,
}  # fmt: skip
_SMALL = {
    "model_type": "llama", "hidden_size": 576, "intermediate_size": 1536, "num_hidden_layers": 30,
    "num_attention_heads": 9, "num_key_value_heads": 3, "vocab_size": 49280,
}  # fmt: skip
_MIDDLE = {
    "model_type": "llama", "hidden_size": 2048, "intermediate_size": 8192, "num_hidden_layers": 24,
    "num_attention_heads": 32, "num_key_value_heads": 32, "vocab_size": 49155,
}  # fmt: skip
_CLIP = {
    "model_type": "clip_vision_model", "hidden_size": 1024, "intermediate_size": 4096,
    "num_hidden_layers": 24, "num_attention_heads": 16, "image_size": 336, "patch_size": 14,
}  # fmt: skip
_VICUNA = {
    "model_type": "llama", "hidden_size": 4096, "intermediate_size": 11008,
    "num_hidden_layers": 32, "num_attention_heads": 32, "num_key_value_heads": 32,
    "vocab_size": 32064,
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Model:
    """A checkpoint's shapes, and what its processor makes of a photo of 4:3.

    Args:
        name: Of the checkpoint.
        target: Its adapter, "module:Class".
        config: As in its `config.json`.
        tiles: How many tiles the tower sees, by default.
        tokens: Image tokens of a tile.
        marks: Tokens that announce a tile: two, where a mark is one token of its own.
        parts: Paths of tower, connector and language model in the module tree.
    """

    name: str
    target: str
    config: Mapping[str, Any]
    tiles: int
    tokens: int
    marks: int
    parts: tuple[str, str, str]

    def skeleton(self) -> ModelAdapter:
        """The model without weights."""
        module, _, name = self.target.partition(":")
        adapter: type[ModelAdapter] = getattr(import_module(module), name)
        with tempfile.TemporaryDirectory() as folder:
            (Path(folder) / "config.json").write_text(json.dumps(self.config), encoding="utf-8")
            return adapter.skeleton(LoadRequest(model=folder, device="cpu", dtype="bfloat16"))


def _smolvlm(name: str, vision: Any, text: Any, scale: int, tokens: int) -> Model:
    config = {
        "model_type": "idefics3", "scale_factor": scale, "text_config": text,
        "vision_config": vision, "tie_word_embeddings": False,
    }  # fmt: skip
    parts = ("model.vision_model", "model.connector", "model.text_model")
    target = "vlmlens_adapter_smolvlm.adapter:SmolVLMAdapter"
    return Model(name, target, config, 13, tokens, 2, parts)


MODELS = (
    _smolvlm("SmolVLM-256M-Instruct", _BASE, _SMALL, 4, 64),
    _smolvlm("SmolVLM-Instruct (2.2B)", _SO400M, _MIDDLE, 3, 81),
    Model(
        "llava-1.5-7b-hf",
        "vlmlens_adapter_llava.adapter:LlavaAdapter",
        {"model_type": "llava", "text_config": _VICUNA, "vision_config": _CLIP},
        1,
        576,
        0,
        ("model.vision_tower", "model.multi_modal_projector", "model.language_model"),
    ),
)


@dataclass(frozen=True, slots=True)
class Cost:
    """What samples cost.

    Args:
        tokens: Of a sample in the language model.
        parameters: Of the model.
        work: Floating-point operations of a sample.
        disk: Bytes of the default columns of 1,000 samples, in bfloat16.
    """

    tokens: int
    parameters: int
    work: int
    disk: int

    def seconds(self, speed: float) -> float:
        """How long 1,000 samples take at so many operations per second."""
        return SAMPLES * self.work / speed


def cost(model: Model, tiles: int) -> Cost:
    """What samples cost whose image is seen as so many tiles."""
    vlm: Any = model.skeleton()
    module, config = vlm.module, vlm.config
    tower, connector, text = (module.get_submodule(path) for path in model.parts)
    patches = (config.vision_config.image_size // config.vision_config.patch_size) ** 2
    sequence = tiles * (model.tokens + model.marks) + TEXT
    work = tiles * block_work(tower, config.vision_config, patches)
    work += matrix_work(connector, tiles * model.tokens)
    work += block_work(text, config.get_text_config(), sequence)
    parameters = sum(each.numel() for each in module.parameters())
    return Cost(sequence, parameters, work, _disk(vlm))


def block_work(part: torch.nn.Module, config: Any, rows: int) -> int:
    """Operations of a stack of blocks on so many rows that all see each other."""
    width = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    attention: int = 4 * rows**2 * width * config.num_attention_heads * config.num_hidden_layers
    return matrix_work(part, rows) + attention


def matrix_work(part: torch.nn.Module, rows: int) -> int:
    """Operations of all linear layers and convolutions of a part on so many rows."""
    kinds = (torch.nn.Linear, torch.nn.Conv2d)
    layers = (each for each in part.modules() if isinstance(each, kinds))
    return 2 * rows * sum(layer.weight.numel() for layer in layers)


def _disk(vlm: ModelAdapter) -> int:
    """Bytes of the default columns, as `vlmlens estimate` computes them."""
    columns = []
    for name, site in vlm.sites.canonical.items():
        if name.startswith(("vision.block.", "projector", "llm.block.")) and name.count(".") < 3:
            columns.append(f"{name}/{'last' if site.axis is Axis.LLM else 'image.mean'}")
    samples = [Sample(str(i), "?") for i in range(SAMPLES)]
    return estimated(RunSpec(), vlm, samples, columns).bytes


def rows(speed: float = 1e12) -> Iterator[Sequence[str]]:
    """A row of the table for each model, and for each without its tiles."""
    for model in MODELS:
        for tiles in dict.fromkeys((model.tiles, 1)):
            found = cost(model, tiles)
            yield (
                f"`{model.name}`",
                f"{tiles} tiles" if tiles > 1 else "whole",
                f"{found.tokens:,}",
                f"{2 * found.parameters / 1e9:.1f} GB",
                f"{found.work * SAMPLES / 1e15:.2f} PFLOP",
                duration(found.seconds(speed)),
                size(found.disk),
            )


def table(speed: float = 1e12) -> str:
    """The table of costs, with times at a speed in operations per second."""
    named = "1 TFLOP/s" if speed == 1e12 else f"{speed / 1e12:.2f} TFLOP/s"
    head = ("model", "image", "tokens", "weights", "work", f"time at {named}", "columns on disk")
    lines = [head, ["---"] * len(head), *rows(speed)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def page() -> str:
    """README.md with its table replaced."""
    text = PAGE.read_text(encoding="utf-8")
    head, rest = text.split(BEGIN)
    return f"{head}{BEGIN}\n\n{table()}\n\n{END}{rest.split(END, 1)[1]}"


def measured_speed(side: int = 2048, tries: int = 5) -> float:
    """Operations per second of this machine in products of large float32 matrices."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    one = torch.rand(side, side, device=device)
    best = float("inf")
    for _ in range(tries):
        start = time.perf_counter()
        (one @ one)[0, 0].item()
        best = min(best, time.perf_counter() - start)
    return 2 * side**3 / best


def main() -> None:
    """Print the table, or write it into the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--write", action="store_true")
    parser.add_argument("--speed", action="store_true")
    chosen = parser.parse_args()
    if chosen.write:
        PAGE.write_text(page(), encoding="utf-8")
    else:
        print(table(measured_speed() if chosen.speed else 1e12))


if __name__ == "__main__":
    main()
