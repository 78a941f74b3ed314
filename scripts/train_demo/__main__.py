"""Command line: render, train in stages, save and evaluate the demo model."""

from __future__ import annotations

import argparse
import logging
import os
import sys
import tempfile
from pathlib import Path

import torch
import transformers
from torch import nn
from transformers import AutoProcessor, LlavaForConditionalGeneration, LlavaProcessor

from scripts.train_demo import data
from scripts.train_demo.build import build_model, build_processor, build_tokenizer
from scripts.train_demo.evaluation import report
from scripts.train_demo.packing_check import check_packing
from scripts.train_demo.stages import Heads, Settings, train_answers, train_vision
from vlmlens_plugins.demo.scenes import Scene, make_scene

LOG = logging.getLogger("train_demo")
CHECKPOINT = Path(__file__).parents[2] / "plugins/vlmlens_plugins/demo/checkpoint"
MAX_BYTES = 8_000_000


def main() -> None:
    """Train the demo model."""
    options = _options()
    _setup(options)
    if options.start is None:
        _train(options)
    start = options.start or options.out
    for number in range(options.first_round, options.first_round + options.rounds):
        _polish(start, number, options)
        start = options.out
    LOG.info("the saved checkpoint on %d held-out scenes", options.heldout)
    report(*load_checkpoint(options.out), _heldout(options.heldout, options.seed), full=True)


def _train(options: argparse.Namespace) -> None:
    """Stages 1 and 2, from random weights to the checkpoint folder."""
    processor = build_processor(build_tokenizer())
    model = build_model(processor.tokenizer, options.seed)
    heads = Heads(model.model.vision_tower.config.hidden_size)
    LOG.info("%d parameters, vocabulary %d", model.num_parameters(), len(processor.tokenizer))
    # On a CPU the backward pass of eager attention is several times faster than that of SDPA.
    model.set_attn_implementation("eager")
    LOG.info("packed and plain logits differ by %.1e", check_packing(model, processor))
    scenes = _load_scenes(processor, 0, options)
    _first_stage(model, heads, processor, scenes, options)
    LOG.info("stage 2: answers, batch %d", options.batch)
    settings = Settings(
        steps=options.steps,
        batch=options.batch,
        rate=options.rate,
        vision_rate=options.vision_rate / 5,
        seed=options.seed + 1,
        blank_share=0.06,
        auxiliary=0.1,
    )
    _answers(model, heads, processor, scenes, settings, options)


def _polish(start: Path, number: int, options: argparse.Namespace) -> None:
    """Stages 1 and 2 again on fresh scenes, with new heads and more weight on counting."""
    model, processor = load_checkpoint(start)
    model.set_attn_implementation("eager")
    seed = options.seed + 1 + number
    torch.manual_seed(seed)
    heads = Heads(model.model.vision_tower.config.hidden_size)
    scenes = _load_scenes(processor, number * options.scenes, options)
    LOG.info("polish %d: vision tower on labels, batch %d", number, options.vision_batch)
    first = Settings(
        steps=options.polish_vision_steps,
        batch=options.vision_batch,
        rate=0,
        vision_rate=options.vision_rate * 0.5,
        seed=seed,
    )
    train_vision(model, heads, processor, scenes, first)
    LOG.info("polish %d: answers, batch %d", number, options.batch)
    settings = Settings(
        steps=options.polish_steps,
        batch=options.batch,
        rate=options.rate * 0.6,
        vision_rate=options.vision_rate * 0.4,
        seed=seed,
        blank_share=0.06,
        auxiliary=0.2,
        presence=2,
        number_weight=3.0,
    )
    _answers(model, heads, processor, scenes, settings, options)


def _answers(
    model: LlavaForConditionalGeneration,
    heads: Heads,
    processor: LlavaProcessor,
    scenes: data.SceneData,
    settings: Settings,
    options: argparse.Namespace,
) -> None:
    watched = _heldout(200, options.seed + 1)

    def evaluate(step: int) -> None:
        LOG.info("held-out scenes after step %d", step)
        report(model, processor, watched, full=False)
        save(model, options.out)

    train_answers(
        model, heads, processor, scenes, settings, every=options.evaluate_every, evaluate=evaluate
    )


def _load_scenes(
    processor: LlavaProcessor, first: int, options: argparse.Namespace
) -> data.SceneData:
    return data.load(
        processor.image_processor,
        first=first,
        count=options.scenes,
        seed=options.seed,
        cache=options.cache,
        workers=options.threads,
    )


def _first_stage(
    model: LlavaForConditionalGeneration,
    heads: Heads,
    processor: LlavaProcessor,
    scenes: data.SceneData,
    options: argparse.Namespace,
) -> None:
    """Train the vision tower, or take it from `--vision` when that file exists."""
    trained = nn.ModuleDict({"tower": model.model.vision_tower, "heads": heads})
    if options.vision is not None and options.vision.exists():
        LOG.info("stage 1: done before")
        trained.load_state_dict(torch.load(options.vision, weights_only=True))
        return
    LOG.info("stage 1: vision tower on labels, batch %d", options.vision_batch)
    settings = Settings(
        steps=options.vision_steps,
        batch=options.vision_batch,
        rate=0,
        vision_rate=options.vision_rate,
        seed=options.seed,
    )
    train_vision(model, heads, processor, scenes, settings)
    if options.vision is not None:
        torch.save(trained.state_dict(), options.vision)


def _heldout(count: int, seed: int) -> list[Scene]:
    return [make_scene(index, split="heldout", seed=seed) for index in range(count)]


def save(model: LlavaForConditionalGeneration, out: Path) -> None:
    """Write a float16 checkpoint, file by file and each atomically.

    Configuration and processor are built anew: loaded ones would add what loading left in them.
    """
    out.mkdir(parents=True, exist_ok=True)
    processor = build_processor(build_tokenizer())
    half = build_model(processor.tokenizer, seed=0)
    half.load_state_dict(model.state_dict())
    with tempfile.TemporaryDirectory(dir=out.parent) as folder:
        half.half().save_pretrained(folder)
        processor.save_pretrained(folder)
        size = (Path(folder) / "model.safetensors").stat().st_size
        if size > MAX_BYTES:
            raise ValueError(f"model.safetensors has {size} bytes; at most {MAX_BYTES} are allowed")
        for path in sorted(Path(folder).iterdir()):
            path.chmod(0o644)
            os.replace(path, out / path.name)  # noqa: PTH105


def load_checkpoint(folder: Path) -> tuple[LlavaForConditionalGeneration, LlavaProcessor]:
    """Load a checkpoint in float32."""
    model = LlavaForConditionalGeneration.from_pretrained(folder, dtype=torch.float32)
    return model, AutoProcessor.from_pretrained(folder)


def _setup(options: argparse.Namespace) -> None:
    torch.manual_seed(options.seed)
    torch.set_num_threads(options.threads)
    options.log.parent.mkdir(parents=True, exist_ok=True)
    logging.basicConfig(
        level=logging.INFO,
        format="%(asctime)s %(message)s",
        datefmt="%H:%M:%S",
        handlers=[logging.StreamHandler(sys.stderr), logging.FileHandler(options.log, mode="w")],
    )
    logging.getLogger("httpx").setLevel(logging.WARNING)
    transformers.utils.logging.disable_progress_bar()
    LOG.info("torch %s, transformers %s", torch.__version__, transformers.__version__)


def _options() -> argparse.Namespace:
    scratch = Path(tempfile.gettempdir()) / "vlmlens-demo"
    parser = argparse.ArgumentParser(
        prog="python -m scripts.train_demo",
        description=__doc__,
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("--out", type=Path, default=CHECKPOINT, help="checkpoint folder")
    parser.add_argument("--cache", type=Path, default=scratch, help="rendered scenes")
    parser.add_argument("--log", type=Path, default=scratch / "train.log", help="log file")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--scenes", type=int, default=40_000, help="training scenes")
    parser.add_argument("--heldout", type=int, default=600, help="scenes of the final evaluation")
    parser.add_argument("--vision-steps", type=int, default=2000)
    parser.add_argument("--vision-batch", type=int, default=128)
    parser.add_argument("--vision-rate", type=float, default=1e-3)
    parser.add_argument("--vision", type=Path, help="file that keeps the result of stage 1")
    parser.add_argument("--steps", type=int, default=2500)
    parser.add_argument("--batch", type=int, default=48)
    parser.add_argument("--rate", type=float, default=1e-3)
    parser.add_argument("--rounds", type=int, default=1, help="rounds of polishing")
    parser.add_argument("--first-round", type=int, default=1, help="number of the first round")
    parser.add_argument("--polish-vision-steps", type=int, default=1500)
    parser.add_argument("--polish-steps", type=int, default=900)
    parser.add_argument(
        "--start", type=Path, help="checkpoint to polish, in place of stages 1 and 2"
    )
    parser.add_argument("--evaluate-every", type=int, default=500)
    return parser.parse_args()


if __name__ == "__main__":
    main()
