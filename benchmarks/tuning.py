"""What a training step of a part costs beside a plain step, written by hand.

Two parts are trained: all weights of the projector, and LoRA on the last quarter of the language
model's blocks. `vlmlens` is `fit`: what lies before the part is computed once per batch and kept.
`by hand` is what one writes with transformers, peft and torch: every step is a whole forward pass
of the model with labels, and a backward pass, on encoded batches that stay in memory. Both train
from the same start, on the same batches in the same order, with the same AdamW; their loss curves
are printed, and must be equal.

The models are a LLaVA, whose language model reads as many image tokens as the tower has, an
InternVL, which merges 2 x 2 of them, both with random weights and 8 + 8 blocks of one width, and
the demo model, which is so small that the overhead of each step counts.

Each round runs whole trainings in turn, in one process. A step is the mean over an epoch, with the
held-out loss at its end. The first epoch of `fit` also encodes and records; `by hand` encodes in
its first epoch, too. So there are two ratios: of a step after the first epoch, and of the whole
training. Medians over rounds count.

    OMP_NUM_THREADS=2 python -m benchmarks.tuning            # about 2 minutes
    python -m benchmarks.tuning --only demo --rounds 1
    python -m benchmarks.tuning --check                      # exit 1 where a target is missed
"""

from __future__ import annotations

import argparse
import hashlib
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from statistics import median, mode
from typing import Any

import torch
import transformers

from benchmarks._compare import Target, verdicts
from benchmarks._models import internvl, llava, pairs, photographs
from vlmlens.abc import LoadRequest
from vlmlens.passes.batch import Batch
from vlmlens.samples import Sample
from vlmlens.tokens import TokenKind
from vlmlens_plugins.demo.adapter import CHECKPOINT, DemoAdapter
from vlmlens_plugins.tuning.fit import fit, rate_at
from vlmlens_plugins.tuning.micro_batches import composed
from vlmlens_plugins.tuning.parts.lora import LoraPart
from vlmlens_plugins.tuning.parts.weights import WeightsPart
from vlmlens_plugins.tuning.recipe import Recipe

WIDTH, SIDE = 256, 168
"""Of an image, in pixels; the InternVL's are twice as wide, so that both models read 144 tokens."""
LETTERS = "abcdefghij"
LIMIT = 0.6
MERGING = ("internvl",)
"""Models whose language model reads fewer tokens than the tower: there, the tower is more than half
of a projector's step. Elsewhere the language model is, which has to run: a step must not cost more
than one by hand."""
EQUAL = 1e-3
"""How far the loss curves of both may be apart, relative to the loss: float32 is rounded otherwise
where sums are in another order."""
SHARE = 4
"""LoRA is on the last `1 / SHARE` of the blocks."""


@dataclass(slots=True)
class Training:
    """What a training took and gave.

    Args:
        epochs: Seconds of each epoch, on the clock.
        cpu: The same in the processor's time.
        losses: The held-out loss before the first epoch and after each, and the training losses.
    """

    epochs: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)
    losses: list[float] = field(default_factory=list)
    _since: tuple[float, float] = (0.0, 0.0)

    def begin(self) -> None:
        """An epoch begins."""
        self._since = time.perf_counter(), time.process_time()

    def end(self) -> None:
        """An epoch ends, and the next one begins."""
        self.epochs.append(time.perf_counter() - self._since[0])
        self.cpu.append(time.process_time() - self._since[1])
        self.begin()


@dataclass(frozen=True, slots=True)
class Task:
    """A model on the disk, and what it is trained with."""

    name: str
    folder: Path
    load: Callable[[], Any]
    train: Sequence[Sample]
    held: Sequence[Sample]
    recipe: Recipe


def main() -> int:
    """Print curves and times of each part of each model, then every number that has a target."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--samples", type=int, default=4, help="to train with")
    parser.add_argument("--only", choices=("llava", "internvl", "demo"))
    parser.add_argument("--check", action="store_true", help="exit 1 where a target is missed")
    chosen = parser.parse_args()
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads, {chosen.rounds} rounds")
    targets: list[Target] = []
    with tempfile.TemporaryDirectory() as name:
        for task in _tasks(Path(name), chosen):
            for part in ("projector", "last blocks"):
                targets += _compared(task, part, chosen.rounds)
    print(verdicts(targets))
    return int(chosen.check and not all(target.met for target in targets))


def _tasks(folder: Path, chosen: argparse.Namespace) -> list[Task]:
    recipe = Recipe(epochs=chosen.epochs, rate=1e-4, batch_size=2, patience=0, seed=1)
    wide = replace(recipe, batch_size=8)
    size = {"layers": 8, "tower": 8, "width": WIDTH}
    demo = partial(DemoAdapter.load, _request(CHECKPOINT))
    large = partial(internvl, folder / "internvl", side=2 * SIDE, **size)
    made: dict[str, tuple[Callable[[], Any], int, Recipe]] = {
        "llava": (partial(llava, folder / "llava", side=SIDE, **size), chosen.samples, recipe),
        "internvl": (large, chosen.samples, recipe),
        "demo": (demo, 8 * chosen.samples, wide),
    }
    found = []
    for name, (make, count, how) in made.items():
        if chosen.only in (None, name):
            vlm = make()
            place = CHECKPOINT if name == "demo" else folder / name
            samples = pairs(photographs(folder / f"seen by {name}", count + 1), 1, letters=(16, 16))
            shown = _labelled(vlm, samples)
            load = partial(type(vlm).load, _request(place))
            found.append(Task(name, Path(place), load, shown[:-1], shown[-1:], how))
    return found


def _request(folder: Path) -> LoadRequest:
    return LoadRequest(model=str(folder), device="cpu", dtype="float32")


def _labelled(vlm: Any, samples: Sequence[Sample]) -> list[Sample]:
    """Samples with letters as answers, all of equally many tokens."""
    lengths = {letter: len(vlm.answer_ids(letter)) for letter in LETTERS}
    usual = mode(lengths.values())
    letters = [letter for letter in LETTERS if lengths[letter] == usual]
    return [replace(one, label=letters[i % len(letters)]) for i, one in enumerate(samples)]


def _compared(task: Task, part: str, rounds: int) -> list[Target]:
    """Train in turn, print what came out; the targets."""
    ways = {"vlmlens": partial(_fitted, task, part), "by hand": partial(_by_hand, task, part)}
    runs: dict[str, list[Training]] = {name: [] for name in ways}
    for _ in range(rounds):
        for name, run in ways.items():
            runs[name].append(run())
    ours, theirs = (runs[name][0].losses for name in ways)
    apart = max(abs(a - b) / abs(b) for a, b in zip(ours, theirs, strict=True))
    print(f"\n{task.name}, {part}: {task.recipe.epochs} epochs of {len(task.train)} samples")
    for name, curve in zip(ways, (ours, theirs), strict=True):
        print(f"  {name:8} " + " ".join(f"{loss:.5f}" for loss in curve))
    print(f"  largest difference of the curves, relative to the loss: {apart:.1e}")
    assert apart < EQUAL, (task.name, part)
    steps = -(-len(task.train) // task.recipe.batch_size)
    for name, trainings in runs.items():
        first = median(one.epochs[0] for one in trainings)
        later = median(median(one.epochs[1:]) for one in trainings)
        print(
            f"  {name:8} {1000 * first / steps:8.1f} ms/step in the first epoch, "
            f"{1000 * later / steps:8.1f} later, {median(sum(t.epochs) for t in trainings):.2f} s"
        )
    step, whole = _ratio(runs, lambda seconds: median(seconds[1:])), _ratio(runs, sum)
    title = f"{task.name}, {part}"
    limit = 1.0 if part == "projector" and task.name not in MERGING else LIMIT
    return [
        Target(f"{title}: a step after the first epoch", step[0], limit, cpu=step[1]),
        Target(f"{title}: {task.recipe.epochs} epochs", whole[0], 1.0, cpu=whole[1]),
    ]


def _ratio(
    runs: dict[str, list[Training]], of: Callable[[list[float]], float]
) -> tuple[float, float]:
    """The medians over rounds of our time over theirs: on the clock, and of the processor."""
    rounds = list(zip(runs["vlmlens"], runs["by hand"], strict=True))
    wall = median(of(mine.epochs) / of(other.epochs) for mine, other in rounds)
    return wall, median(of(mine.cpu) / of(other.cpu) for mine, other in rounds)


def _part(vlm: Any, part: str) -> WeightsPart | LoraPart:
    if part == "projector":
        return WeightsPart(vlm, "projector")
    return LoraPart(vlm, f"llm.block.{_last_blocks(vlm)}", seed=3)


def _last_blocks(vlm: Any) -> str:
    count = len(vlm.sites.resolve("llm.block.*"))
    return f"{count - max(1, count // SHARE)}-{count - 1}"


def _fitted(task: Task, part: str) -> Training:
    vlm, found = task.load(), Training()
    ends = {epoch * len(task.train) for epoch in range(1, task.recipe.epochs + 1)}

    def progress(done: int, total: int) -> None:
        del total
        if done == 0:
            found.begin()
        elif done in ends:
            ends.remove(done)  # the last one is told twice
            found.end()

    made = _part(vlm, part)
    result = fit(vlm, made, task.train, task.held, task.recipe, progress=progress)
    assert len(found.epochs) == task.recipe.epochs
    for epoch in result.curve:
        found.losses += [epoch.held] if epoch.train is None else [epoch.train, epoch.held]
    return found


def _by_hand(task: Task, part: str) -> Training:
    """Whole passes with labels, by transformers and peft."""
    vlm, found, recipe = task.load(), Training(), task.recipe
    model = transformers.AutoModelForImageTextToText.from_pretrained(
        task.folder, dtype=torch.float32
    )
    model.eval()
    model = _trainable(model, vlm, part)
    parameters = [each for each in model.parameters() if each.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=recipe.rate, weight_decay=recipe.weight_decay)
    orders = composed(task.train, lambda one: vlm.encode([one]), recipe.batch_size, recipe.seed)
    held = _with_labels(vlm, task.held)
    found.losses.append(_evaluated(model, held))
    found.begin()
    batches = [_with_labels(vlm, [task.train[i] for i in numbers]) for numbers in orders]
    step = 0
    for epoch in range(recipe.epochs):
        lost = 0.0
        for number in _order(len(batches), recipe.seed, epoch + 1):
            loss = model(**batches[number], use_cache=False).loss
            loss.backward()
            torch.nn.utils.clip_grad_norm_(parameters, recipe.clip)
            for group in optimizer.param_groups:
                group["lr"] = rate_at(step, recipe.epochs * len(batches), recipe)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            lost += float(loss.detach()) * len(orders[number])
            step += 1
        found.losses += [lost / len(task.train), _evaluated(model, held)]
        found.end()
    return found


def _trainable(model: Any, vlm: Any, part: str) -> Any:
    """The model with the part that wants gradients, from the same start as ours."""
    import peft

    model.requires_grad_(False)
    if part == "projector":
        model.model.multi_modal_projector.requires_grad_(True)
        return model
    first, last = map(int, _last_blocks(vlm).split("-"))
    blocks = "|".join(map(str, range(first, last + 1)))
    layers = rf"model\.language_model\.layers\.({blocks})\.(self_attn|mlp)\..*_proj"
    wrapped = peft.get_peft_model(model, peft.LoraConfig(r=8, lora_alpha=16, target_modules=layers))
    wrapped.eval()
    start = LoraPart(vlm, f"llm.block.{_last_blocks(vlm)}", seed=3).state()
    named = {
        f"base_model.model.{name.replace('.weight', '.default.weight')}": value
        for name, value in start.items()
    }
    wanting = {name: each for name, each in wrapped.named_parameters() if each.requires_grad}
    assert wanting.keys() == named.keys()
    with torch.no_grad():
        for name, each in wanting.items():
            each.copy_(named[name])
    return wrapped


def _with_labels(vlm: Any, samples: Sequence[Sample]) -> dict[str, torch.Tensor]:
    """Inputs of the model; labels at the tokens of the answers alone."""
    batch: Batch = vlm.encode(samples, answers=[str(one.label) for one in samples])
    ids = batch.inputs["input_ids"]
    labels, lengths = torch.full_like(ids, -100), set()
    for i in range(len(samples)):
        layout = batch.layout(i)
        rows = torch.from_numpy(layout.rows[layout.positions(TokenKind.ANSWER)])
        lengths.add(len(rows))
        labels.view(-1)[rows] = ids.reshape(-1)[rows]
    assert len(lengths) == 1, "answers of one length: means over tokens and samples are equal"
    return {**batch.inputs, "labels": labels}


def _evaluated(model: Any, inputs: dict[str, torch.Tensor]) -> float:
    with torch.inference_mode():
        return float(model(**inputs, use_cache=False).loss)


def _order(count: int, seed: int, epoch: int) -> list[int]:
    """The order of batches that `fit` draws."""
    drawn = int.from_bytes(hashlib.sha256(f"order/{seed}/{epoch}".encode()).digest()[:7])
    found: list[int] = torch.randperm(
        count, generator=torch.Generator().manual_seed(drawn)
    ).tolist()
    return found


if __name__ == "__main__":
    sys.exit(main())
