"""Bottlenecks planted in the demo model: each error goes where it was made."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from vlmlens.abc import AnalysisContext, LoadRequest, ModelAdapter
from vlmlens.passes.batch import Batch, ForwardOutput
from vlmlens.passes.tracing import hooked
from vlmlens.results import Result
from vlmlens.samples import Sample
from vlmlens.sites import Axis
from vlmlens.testing.tiny import picture
from vlmlens.tokens import Selector
from vlmlens_adapter_clip.adapter import ClipAdapter
from vlmlens_adapter_clip.checks import ClipChecks
from vlmlens_plugins.analysis.bottleneck import Bottleneck
from vlmlens_plugins.analysis.bottleneck.asked import asked as answered
from vlmlens_plugins.analysis.bottleneck.causes import Cause
from vlmlens_plugins.analysis.bottleneck.charts import RETRIEVAL
from vlmlens_plugins.analysis.bottleneck.measured import measured
from vlmlens_plugins.analysis.bottleneck.options import BottleneckOptions
from vlmlens_plugins.demo.adapter import DemoAdapter
from vlmlens_plugins.demo.dataset import DemoDataset, DemoOptions

DIRECTIONS = Path(__file__).with_name("demo_color_directions.npy")
"""float32 `[14, 128]`, orthonormal: where the demo's projector has the color; see `learned`."""
FEW: dict[str, Any] = {"draws": 200, "tower_depths": (0.75, 1.0), "depths": (0.25, 0.5, 1.0)}


def asked(task: str, scenes: int, *, seed: int = 0) -> list[Sample]:
    samples = DemoDataset("scenes", DemoOptions(scenes=scenes, seed=seed)).samples([])
    return [sample for sample in samples if sample.task == task]


def found(vlm: ModelAdapter, samples: Sequence[Sample], **options: Any) -> Result:
    analysis = Bottleneck(BottleneckOptions(**{**FEW, **options}))
    analysis.check(samples, [])
    analysis.check_model(vlm, samples, [])
    return analysis.run(AnalysisContext(samples, None, functools.cache(lambda: vlm)))  # type: ignore[arg-type]


def table(result: Result, name: str) -> list[dict[str, Any]]:
    columns = next(each for each in result.tables if each.name == name).columns
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def shares(result: Result, task: str) -> dict[str, float]:
    rows = table(result, "bottleneck-causes")
    return {row["cause"]: row["share"] for row in rows if row["task"] == task}


def status(result: Result, task: str) -> dict[str, str]:
    rows = table(result, "bottleneck-stages")
    return {row["stage"]: row["status"] for row in rows if row["task"] == task}


# ----------------------------------------------------------------------- language and eye


@pytest.fixture(scope="module")
def surface(vlm: ModelAdapter) -> Result:
    """What is seen and not said."""
    return found(vlm, asked("surface", 70), charts=True)


def test_the_surface_is_seen_and_not_said(surface: Result) -> None:
    told = shares(surface, "surface")
    assert told["language"] > 0.8
    assert told["eye"] < 0.05
    assert told["reasoning"] == told["prior"] == 0.0
    stages = status(surface, "surface")
    assert stages["vision tower"] == stages["projector"] == "readable"
    assert stages["language model, image rows"] == "readable"
    assert stages["language model, last row"] != "readable"
    rows = [row for row in table(surface, "bottleneck-samples") if row["cause"]]
    assert {row["label"] for row in rows} == {"striped"}
    assert table(surface, "bottleneck-tasks")[0]["errors_as_blind"] == 1.0


def test_without_descriptions_reasoning_is_not_claimed(surface: Result) -> None:
    said = [finding.text for finding in surface.findings]
    assert any("no sample has a description, so reasoning is not told" in text for text in said)


def test_what_is_not_drawn_is_lost_in_the_eye(vlm: ModelAdapter) -> None:
    absent = [
        replace(
            sample,
            task="photographer",
            prompt="Did photographer A take it?",
            choices=("yes", "no"),
            label="yes" if sample.attributes["photographer"] == "A" else "no",
        )
        for sample in asked("surface", 110)
    ]
    result = found(vlm, absent)
    assert shares(result, "photographer")["eye"] == 1.0
    assert set(status(result, "photographer").values()) == {"not readable"}


def test_the_two_bottlenecks_of_charts(surface: Result) -> None:
    """Against accuracies counted from other tables."""
    (row,) = table(surface, "bottleneck-charts")
    told = table(surface, "bottleneck-samples")
    right = np.mean([each["image"] == each["label"] for each in told])
    stages = table(surface, "bottleneck-stages")
    read = next(each["accuracy"] for each in stages if each["stage"] == "vision tower")
    assert row["answered"] == pytest.approx(right)
    assert row["encoder_bottleneck"] == pytest.approx(1 - read)
    assert row["extraction_bottleneck"] == pytest.approx(read - right)
    assert row["extraction_bottleneck_low"] > 0


def test_with_few_samples_nothing_is_called_lost(vlm: ModelAdapter) -> None:
    """With 40 scenes a probe does not read the surface after the projector, though it is there."""
    options = BottleneckOptions(**{**FEW, "min_class": 8, "C": (0.01,)})
    context = AnalysisContext(asked("surface", 40), None, functools.cache(lambda: vlm))  # type: ignore[arg-type]
    tasks = {"surface": answered(context, context.samples, options)}
    few = measured(tasks, "surface", options, 0)
    assert few.shares[Cause.UNTOLD].value == 1.0
    assert few.details == {(Cause.UNTOLD, "alignment or language"): few.errors}
    hasty = measured(tasks, "surface", options.model_copy(update={"min_lost": 2}), 0)
    assert hasty.shares[Cause.ALIGNMENT].value > 0.5


# ------------------------------------------------------------------------------- alignment


def projected(vlm: ModelAdapter, batch: Batch) -> np.ndarray:
    """All rows after the projector; what comes later does not run."""
    found: list[torch.Tensor] = []
    sites = vlm.sites.resolve("projector")
    keep = hooked(vlm.module, sites, lambda _, given: found.append(given), stop=True)
    with torch.inference_mode(), keep:
        vlm.forward(batch)
    return found[0].flatten(0, -2).numpy()


def learned(vlm: ModelAdapter, scenes: int) -> np.ndarray:
    """The directions in which mean rows after the projector differ between colors.

    Of rows of the main object, and of all image rows; orthonormal.
    """
    samples = asked("color", scenes, seed=1)
    inside, pooled, labels = [], [], []
    for start in range(0, scenes, 25):
        own = samples[start : start + 25]
        batch = vlm.encode(own)
        rows = projected(vlm, batch)
        layouts = batch.layouts[Axis.PROJECTOR].samples
        for sample, layout in zip(own, layouts, strict=True):
            inside.append(rows[Selector.parse("image.region(main)").rows(layout)])
            pooled.append(rows[layout.rows].mean(0))
            labels.append(sample.label)
    colors = sorted(set(labels))
    of = {c: [k for k, label in enumerate(labels) if label == c] for c in colors}
    parts = []
    for means in (
        np.stack([np.concatenate([inside[k] for k in of[c]]).mean(0) for c in colors]),
        np.stack([np.mean([pooled[k] for k in of[c]], axis=0) for c in colors]),
    ):
        centred = means - means.mean(0)
        parts.append(centred / np.linalg.norm(centred))
    _, sizes, directions = np.linalg.svd(np.concatenate(parts), full_matrices=False)
    return directions[sizes > 1e-3 * sizes[0]]


@pytest.mark.slow
def test_the_directions_are_those_of_the_projector(vlm: ModelAdapter) -> None:
    kept, again = np.load(DIRECTIONS), learned(vlm, 600)
    cosines = np.linalg.svd(kept @ again.T)[1]
    assert kept.shape == again.shape
    assert cosines.min() > 0.99


def test_a_color_projected_out_after_the_projector_is_lost_in_alignment(
    vlm: ModelAdapter, tmp_path: Path
) -> None:
    edits = []
    for number, direction in enumerate(np.load(DIRECTIONS)):
        path = tmp_path / f"{number}.npy"
        np.save(path, direction)
        edits.append(f'projector/image = project-out("{path}")')
    with vlm.edited(edits):
        result = found(vlm, asked("color", 100), min_class=4, folds=3)
    told = shares(result, "color")
    assert table(result, "bottleneck-tasks")[0]["errors"] > 70
    assert told["alignment"] > 0.9
    assert told["language"] == 0.0
    assert status(result, "color")["vision tower"] == "readable"
    assert status(result, "color")["projector"] == "not readable"


# ------------------------------------------------------------------------------- reasoning

NUMBERS = ("1", "2", "3", "4")


class Reader(DemoAdapter):
    """The demo model, which was also taught to read: it finds a color in a text, and no sums."""

    def forward(self, batch: Batch, *, logits: Any = "none") -> ForwardOutput:
        output = super().forward(batch, logits=logits)
        if logits != "last" or output.logits is None:
            return output
        scores = output.logits.clone()
        for row, layout in zip(scores, batch.layouts[Axis.LLM].samples, strict=True):
            text = self.tokenizer.decode(layout.token_ids)
            if "object is " in text and "Color of" in text:
                color = text.split("object is ")[1].split(".")[0]
                row[self.answer_ids(color)[0]] += 50
        return replace(output, logits=scores)


def described(scenes: int) -> list[Sample]:
    """Colors, which are seen; and sums, which nobody was taught."""
    samples = []
    for sample in asked("color", scenes):
        number = int(sample.attributes["number"])
        text = f"The main object is {sample.label}. Objects: {number}."
        known = {**sample.attributes, "description": text}
        samples.append(replace(sample, attributes=known))
        samples.append(
            replace(
                sample,
                id=f"{sample.id}/sum",
                task="sum",
                prompt="Five minus the number of objects:",
                choices=NUMBERS,
                label=str(5 - number),
                attributes=known,
            )
        )
    return samples


def test_a_sum_that_nobody_was_taught_lacks_reasoning(vlm: ModelAdapter) -> None:
    samples = described(16)
    reads = found(Reader.load(LoadRequest(device="cpu", dtype="float32")), samples, min_class=4)
    told = shares(reads, "sum")
    row = next(r for r in table(reads, "bottleneck-tasks") if r["task"] == "sum")
    assert row["errors"] >= 8
    assert row["text_understood"] is True
    assert "other tasks" in row["text_shown_by"]
    wrong = [
        each["text"] != each["label"]
        for each in table(reads, "bottleneck-samples")
        if each["task"] == "sum" and each["cause"]
    ]
    assert told["reasoning"] == pytest.approx(np.mean(wrong))
    assert told["reasoning"] > 0.6
    plain = found(vlm, samples, min_class=4)
    row = next(r for r in table(plain, "bottleneck-tasks") if r["task"] == "sum")
    assert row["text_understood"] is False
    assert shares(plain, "sum")["reasoning"] == 0.0


# ------------------------------------------------------------------------------- retrieval


def test_a_model_that_compares_texts_answers_by_retrieval(tmp_path: Path) -> None:
    ClipChecks().build(tmp_path)
    clip = ClipAdapter.load(LoadRequest(model=str(tmp_path), device="cpu", dtype="float32"))
    samples = [
        Sample(
            f"s{i}",
            "a photo of a",
            (picture(32, 32, seed=i),),
            label=("cat", "dog")[i % 2],
            choices=("cat", "dog"),
            attributes={"description": "far too long for the text tower " * 20},
        )
        for i in range(24)
    ]
    result = found(clip, samples, charts=True, min_class=5)
    (row,) = table(result, "bottleneck-charts")
    right = np.mean([r["image"] == r["label"] for r in table(result, "bottleneck-samples")])
    assert row["measured_by"] == RETRIEVAL
    assert row["held"] == pytest.approx(right)
    assert row["answered"] is None
    assert row["probe"] is not None
    assert list(status(result, "all samples")) == ["vision tower"]
