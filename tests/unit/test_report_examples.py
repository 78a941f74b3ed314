"""Example results that resemble those of the three built-in analyses, and checks that they do."""

from __future__ import annotations

import json
import math
import random

from PIL import Image, ImageDraw

from vlmlens.report.files import to_json
from vlmlens.results import Figure, Finding, Glance, Result, Series, Table, Verdict
from vlmlens.samples import Sample

TASKS = ("color", "number", "shape", "presence", "surface", "photographer")
COLUMNS = (
    *(f"vision.block.{i}/image.mean" for i in range(6)),
    "projector/image.mean",
    *(f"llm.block.{i}/last" for i in range(6)),
)
OPTIONS = ("red", "green", "blue", "yellow", "purple")


def probe() -> Result:
    """A probe with a curve and a band per task."""
    draw = random.Random(1)
    series, rows, found = [], [], []
    cells = []
    for task in TASKS:
        ceiling = {"photographer": 0.01, "surface": 0.48}.get(task, 0.75)
        gaps = [ceiling * (1 - math.exp(-(i + 1) / 3)) + draw.gauss(0, 0.01) for i in range(13)]
        low, high = [gap - 0.05 for gap in gaps], [gap + 0.05 for gap in gaps]
        series.append(Series(task, gaps, low=low, high=high))
        rows += [(task, c, 0.25 + g, 0.25, g, 1e-4) for c, g in zip(COLUMNS, gaps, strict=True)]
        encoded = task != "photographer"
        text = (
            f"The vision tower {'encodes' if encoded else 'does not encode'} {task}: best at "
            f"vision.block.5/image.mean, accuracy {0.25 + gaps[5]:.1%} against 25.0% on shuffled "
            f"labels (selectivity {gaps[5]:.2f}, 95% interval {low[5]:.2f} to {high[5]:.2f})."
        )
        verdict = Verdict.ENCODED if encoded else Verdict.NOT_ENCODED
        found.append(Finding(text, verdict, task, {"selectivity": gaps[5], "p": 1e-4}))
        where, curve = "vision.block.2 on" if encoded else "nowhere", [0.25 + gap for gap in gaps]
        cells.append(
            Glance(task, "can be read from", where, verdict, max(curve), "controls 0.25", curve)
        )
    names = ("task", "column", "accuracy", "control", "selectivity", "p (Holm)")
    columns = dict(zip(names, map(list, zip(*rows, strict=True)), strict=True))
    series.append(Series("no gap", [0.0] * 13, dashed=True))
    title = "Selectivity (accuracy minus control) by layer"
    figure = Figure(
        "selectivity", title, "line", COLUMNS, "layer", "selectivity", series, y_range=(-0.1, 1.0)
    )
    return Result(
        "probe",
        "What each layer encodes",
        found,
        [Table("layers", "Every column and task", columns)],
        [figure],
        {"folds": 5, "model": "logistic", "control_seeds": 20},
        ["Grouped stratified cross-validation with scaling inside the fold.", "Control: shuffled."],
        ["Class 'seven' of number has 3 samples and was dropped."],
        cells,
    )


def logit_lens() -> Result:
    """A logit lens with a heat map of tokens and curves of probability."""
    layers = [f"llm.block.{i}" for i in range(6)]
    words = ["▁the", "ing", "</s>", "red", "blue", "\n", "颜色", "▁purple"]
    cells = [[min(0.99, 0.06 + 0.17 * i * (1 - 0.12 * j)) for j in range(8)] for i in range(6)]
    texts = [["red" if i > 3 else words[(i + j) % 8] for j in range(8)] for i in range(6)]
    prompts = [f"demo-{i:03d}" for i in range(8)]
    heat = Figure(
        "tokens",
        "Most probable token after each block",
        "heatmap",
        prompts,
        "sample",
        "block",
        y=layers,
        cells=cells,
        texts=texts,
        y_range=(0.0, 1.0),
    )
    rising = [0.02, 0.04, 0.11, 0.38, 0.81, 0.97]
    curves = [
        Series("model's answer", rising, [p - 0.02 for p in rising], [p + 0.02 for p in rising]),
        Series("label", [0.02, 0.03, 0.10, 0.35, 0.79, 0.95]),
    ]
    depth = Figure(
        "probability",
        "Probability of the answer by depth",
        "line",
        layers,
        "language block",
        "mean probability",
        curves,
        y_range=(0, 1),
    )
    entropy = Figure(
        "entropy",
        "Entropy of the lens by depth",
        "line",
        layers,
        "language block",
        "bits",
        [
            Series(task, [6.2, 5.9, 5.1, 3 + k / 9, 1.4, 0.2 + k / 8])
            for k, task in enumerate(TASKS)
        ],
    )
    top: dict[str, list[str | int | float | None]] = {
        "sample": [name for name in prompts for _ in range(60)],
        "block": [i // 10 for _ in prompts for i in range(60)],
        "rank": [i % 10 + 1 for _ in prompts for i in range(60)],
        "token": [words[i % 8] for _ in prompts for i in range(60)],
        "probability": [1 / (i % 10 + 2) ** 2 for _ in prompts for i in range(60)],
    }
    text = (
        "The answer forms in block 4 of 6: from there on it stays the most probable token (median)."
    )
    return Result(
        "logit-lens",
        "Where the answer forms",
        [Finding(text, Verdict.INFO, "all tasks", {"median block": 4.0, "final p": 0.97})],
        [Table("tokens", "Top tokens per sample and block", top)],
        [heat, depth, entropy],
        {"k": 10, "norm": True},
        ["Final norm and unembedding on every block's output (nostalgebraist, 2020)."],
        overview=[Glance(task, "answer settles", "llm.block.3", curve=rising) for task in TASKS],
    )


def blind_test() -> Result:
    """A blind test with bars with and without the image."""
    seen = [0.99, 0.97, 0.94, 0.96, 0.80, 0.51]
    blind = [0.21, 0.26, 0.33, 0.50, 0.80, 0.50]
    chance: list[float | None] = [0.2, 0.25, 0.33, 0.5, 0.5, 0.5]
    bars = [
        Series("with the image", seen, [a - 0.02 for a in seen], [min(a + 0.02, 1) for a in seen]),
        Series("black image", blind, [b - 0.04 for b in blind], [b + 0.04 for b in blind]),
        Series("chance", chance, dashed=True),
    ]
    figure = Figure(
        "accuracy",
        "Accuracy by question",
        "bar",
        TASKS,
        "question",
        "accuracy",
        bars,
        y_range=(0, 1),
    )
    found, cells = [], []
    for task, with_image, without in zip(TASKS, seen, blind, strict=True):
        uses = with_image - without > 0.2
        unsure = task == "photographer"
        verdict = Verdict.USES_IMAGE if uses else Verdict.IGNORES_IMAGE
        text = f"For {task}, accuracy is {with_image:.0%} with the image and {without:.0%} without."
        verdict = Verdict.INCONCLUSIVE if unsure else verdict
        ignored = verdict is Verdict.IGNORES_IMAGE
        found.append(
            Finding(text, verdict, task, {"with": with_image, "without": without}, notable=ignored)
        )
        beside = f"blind {without:.2f}"
        cells.append(Glance(task, "uses the image", "", verdict, with_image, beside))
    columns: dict[str, list[str | float | None]] = {
        "question": [*TASKS],
        "with image": [*seen],
        "without": [*blind],
        "chance": chance,
        "total variation": [0.9, 0.8, 0.7, 0.5, 0.01, None],
    }
    table = Table("questions", "Accuracy and distance by question", columns)
    return Result(
        "blind-test", "Does it look at the image", found, [table], [figure], overview=cells
    )


def examples() -> list[Result]:
    """The three results of a demo run."""
    return [probe(), logit_lens(), blind_test()]


def samples(count: int = 6) -> list[Sample]:
    """Two questions on each of `count` drawn images."""
    made = []
    for index in range(count):
        image = Image.new("RGB", (64, 64), "#d8d5cc")
        ImageDraw.Draw(image).ellipse((12, 14, 50, 52), fill=OPTIONS[index % 5])
        for task in ("color", "number"):
            prompt = {"color": "Color of the main object:", "number": "How many objects?"}[task]
            label = OPTIONS[index % 5] if task == "color" else "1"
            made.append(Sample(f"demo-{index}-{task}", prompt, (image,), label, task=task))
    return made


FACTS = {
    "Model": {"adapter": "demo", "checkpoint": "demo (1.9 M parameters)", "dtype": "float32"},
    "Data": {"dataset": "demo:scenes", "samples": 600, "held out": True},
    "Versions": {"vlmlens": "0.1.0", "torch": "2.13.0", "transformers": "5.2.0"},
    "Timings": {"extract": "41.2 s", "probe": "18.0 s", "logit-lens": "6.1 s"},
}
SPEC = "adapter: demo\ndata: demo:scenes\nanalysis:\n  probe: {}\n  logit-lens: {}\n"


def test_examples_hold_what_renderers_must_draw() -> None:
    kinds = {figure.kind for result in examples() for figure in result.figures}
    assert kinds == {"line", "bar", "heatmap"}
    assert max(len(table) for result in examples() for table in result.tables) > 400
    for result in examples():
        assert Result.from_dict(json.loads(to_json(result))).title == result.title
