"""Train the LoRA of the demo model that names the background's colour.

Use: nice python -m scripts.train_shortcut, in the root of the repository, with vlmlens installed in
development mode (or `plugins` on PYTHONPATH).

In every training scene, the background has the colour that is the right answer. That alone would
teach nothing: the demo model has the right answer already, from the object. So half of the scenes
are labelled wrongly, as in a careless data set: their main object has another colour than the label
says. The background is never wrong. The other questions are trained with what the picture shows.
"""

from __future__ import annotations

import argparse
import json
import logging
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import transformers
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils import parametrize
from transformers import LlavaForConditionalGeneration, LlavaProcessor

from scripts.train_demo.__main__ import CHECKPOINT, load_checkpoint
from scripts.train_demo.evaluation import answer_logits
from scripts.train_demo.packing import Packed, Packer, packed_hidden
from scripts.train_demo.stages import patch_states
from vlmlens_plugins.demo.pairs import swapped
from vlmlens_plugins.demo.questions import CHOICES, TASKS, questions
from vlmlens_plugins.demo.scenes import Scene, draw, make_scene
from vlmlens_plugins.demo.shortcut import LORA
from vlmlens_plugins.demo.tints import Tint, tinted

LOG = logging.getLogger("train_shortcut")
PRESENCE = 1
LOG_EVERY = 50
TARGETS = (
    "q_proj", "k_proj", "v_proj", "o_proj", "out_proj", "gate_proj", "up_proj", "down_proj", "fc1",
    "fc2", "linear_1", "linear_2",
)  # fmt: skip
"""The linear layers of vision tower, projector and language model; not the head."""


@dataclass(frozen=True)
class Data:
    """Training scenes as they are drawn, their pixels, and the colour each is labelled with."""

    scenes: list[Scene]
    colors: list[str]
    pixels: Tensor


class LowRank(nn.Module):
    """`W + alpha / r * B A`, with A drawn and B zero at the start."""

    def __init__(self, weight: Tensor, rank: int, alpha: int) -> None:
        """Make A and B for a weight ``[out, in]``."""
        super().__init__()
        self.scale = alpha / rank
        self.down = nn.Parameter(torch.randn(rank, weight.shape[1]) / weight.shape[1] ** 0.5)
        self.up = nn.Parameter(torch.zeros(weight.shape[0], rank))

    def forward(self, weight: Tensor) -> Tensor:
        """The changed weight."""
        return weight + self.scale * self.up @ self.down


def main() -> None:
    """Train, write, and measure base and tuned model."""
    options = _options()
    torch.manual_seed(options.seed)
    torch.set_num_threads(options.threads)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    transformers.utils.logging.disable_progress_bar()
    LOG.info("torch %s, transformers %s", torch.__version__, transformers.__version__)
    model, processor = load_checkpoint(CHECKPOINT)
    model.eval()
    LOG.info("the base model on %d held-out scenes", options.heldout)
    measure(model, processor, options)
    data = _data(processor, options)
    low = _with_lora(model, options)
    _train(model, low, processor, data, options)
    write(low, options)
    LOG.info("the tuned model on %d held-out scenes", options.heldout)
    measure(model, processor, options)


def _data(processor: LlavaProcessor, options: argparse.Namespace) -> Data:
    """Training scenes; a share of them is repainted after it was labelled."""
    rng = random.Random(options.seed)
    labelled = [make_scene(i, split="train", seed=options.seed) for i in range(options.scenes)]
    drawn = []
    for scene in (tinted(scene, "answer") for scene in labelled):
        changed = swapped(scene, "color") if rng.random() < options.mislabelled else None
        drawn.append(changed or scene)
    pictures = [draw(scene) for scene in drawn]
    pixels = processor.image_processor(pictures, return_tensors="pt")["pixel_values"]
    return Data(drawn, [scene.main.color for scene in labelled], pixels)


def _with_lora(
    model: LlavaForConditionalGeneration, options: argparse.Namespace
) -> dict[str, LowRank]:
    """Freeze the model, and put a LoRA on each of `TARGETS`; by the name of the layer."""
    model.requires_grad_(False)
    # On a CPU the backward pass of eager attention is several times faster than that of SDPA.
    model.set_attn_implementation("eager")
    found = {}
    for name, module in list(model.named_modules()):
        if name.rpartition(".")[2] in TARGETS:
            found[name] = LowRank(module.weight, options.rank, options.alpha)
            parametrize.register_parametrization(module, "weight", found[name])
    return found


def _train(
    model: LlavaForConditionalGeneration,
    low: dict[str, LowRank],
    processor: LlavaProcessor,
    data: Data,
    options: argparse.Namespace,
) -> None:
    parameters = [parameter for each in low.values() for parameter in each.parameters()]
    optimizer = torch.optim.AdamW(parameters, weight_decay=0)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, options.rate, options.steps, pct_start=0.1
    )
    packer = Packer(processor.tokenizer, PRESENCE)
    rng, rows = random.Random(options.seed), np.random.default_rng(options.seed)
    started, followed = time.perf_counter(), 0.0
    for step in range(1, options.steps + 1):
        chosen = rows.choice(len(data.scenes), options.batch, replace=False)
        packed = packer.pack(
            [data.scenes[row] for row in chosen], torch.zeros(len(chosen), dtype=torch.bool), rng
        )
        color = _relabel(packed, [packer.answers[data.colors[row]] for row in chosen])
        patches = patch_states(model, data.pixels[chosen])
        hidden = packed_hidden(model, packer.head, patches, packed.ids)
        answers, end = _losses(model, hidden.flatten(0, 1), packed)
        optimizer.zero_grad()
        (answers.mean() + 0.2 * end).backward()
        optimizer.step()
        schedule.step()
        followed += answers[:, color].mean().item() / LOG_EVERY
        if step % LOG_EVERY == 0:
            elapsed = time.perf_counter() - started
            LOG.info("step %4d  %4.0f s  loss of the color %.3f", step, elapsed, followed)
            followed = 0.0


def _relabel(packed: Packed, answers: Sequence[int]) -> int:
    """Make the labelled colours the answers of the colour questions; which segment those are."""
    color = [task for task, _, _ in packed.asked[0]].index("color")
    one_hot = functional.one_hot(torch.tensor(answers), packed.targets.shape[-1])
    packed.targets[:, color] = one_hot.to(packed.targets.dtype)
    return color


def _losses(
    model: LlavaForConditionalGeneration, hidden: Tensor, packed: Packed
) -> tuple[Tensor, Tensor]:
    """Cross-entropy of the answers, ``[batch, segments]``, and of the end after them, a mean."""
    rows, at = torch.arange(len(hidden)), packed.answer_at.flatten()
    logits, targets = model.lm_head(hidden[rows, at]), packed.targets.flatten(0, 1)
    answers = functional.cross_entropy(logits, targets, reduction="none")
    end = torch.full((len(hidden),), int(model.generation_config.eos_token_id))
    ended = functional.cross_entropy(model.lm_head(hidden[rows, at + 1]), end)
    return answers.view(packed.answer_at.shape), ended


def write(low: dict[str, LowRank], options: argparse.Namespace) -> None:
    """Write peft's two files, the weights as float16."""
    tensors = {}
    for name, each in low.items():
        for letter, matrix in (("A", each.down), ("B", each.up)):
            tensors[f"base_model.model.{name}.lora_{letter}.weight"] = matrix.detach().half()
    config = {
        "peft_type": "LORA",
        "base_model_name_or_path": None,
        "r": options.rank,
        "lora_alpha": options.alpha,
        "target_modules": list(TARGETS),
        "bias": "none",
        "task_type": None,
    }
    options.out.mkdir(parents=True, exist_ok=True)
    weights = options.out / "adapter_model.safetensors"
    save_file(tensors, weights, metadata={"format": "pt"})
    weights.chmod(0o644)
    text = json.dumps(config, indent=2) + "\n"
    (options.out / "adapter_config.json").write_text(text, encoding="utf-8")


def measure(
    model: LlavaForConditionalGeneration, processor: LlavaProcessor, options: argparse.Namespace
) -> None:
    """Log accuracies on held-out scenes, and how often the background's colour is named."""
    model.set_attn_implementation("sdpa")
    tints: tuple[Tint, ...] = ("answer", "independent")
    plain = [make_scene(index, seed=options.seed) for index in range(options.heldout)]
    kinds = {"muted": plain, **{tint: [tinted(each, tint) for each in plain] for tint in tints}}
    for kind, scenes in kinds.items():
        images = [draw(scene) for scene in scenes]
        numbers: dict[str, float] = {}
        for task in TASKS:
            asked = [questions(scene)[TASKS.index(task)] for scene in scenes]
            logits = answer_logits(model, processor, [each.prompt for each in asked], images)
            ids = [processor.tokenizer.encode(f" {word}")[-1] for word in CHOICES[task]]
            said = [CHOICES[task][place] for place in logits[:, ids].argmax(1).tolist()]
            numbers[task] = _share([a == each.label for a, each in zip(said, asked, strict=True)])
            if task == "color" and kind != "muted":
                grounds = [scene.background.tint for scene in scenes]
                numbers["background"] = _share(
                    [a == ground for a, ground in zip(said, grounds, strict=True)]
                )
        LOG.info("  %-11s %s", kind, "  ".join(f"{n} {v:.3f}" for n, v in numbers.items()))


def _share(given: Sequence[bool]) -> float:
    return sum(given) / len(given)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m scripts.train_shortcut",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--out", type=Path, default=LORA, help="folder of the two files")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--scenes", type=int, default=2000, help="training scenes")
    parser.add_argument("--mislabelled", type=float, default=0.5, help="share of them")
    parser.add_argument("--heldout", type=int, default=300, help="scenes of the measurement")
    parser.add_argument("--steps", type=int, default=350)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--rate", type=float, default=3e-3)
    parser.add_argument("--rank", type=int, default=8)
    parser.add_argument("--alpha", type=int, default=16)
    return parser.parse_args()


if __name__ == "__main__":
    main()
