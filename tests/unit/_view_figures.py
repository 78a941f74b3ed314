"""Results for tests of the viewer's pages of figures, tables, features and runs side by side."""

from __future__ import annotations

import runpy
from collections.abc import Sequence
from pathlib import Path

from tests.unit import _report_features as features
from tests.unit import _report_scatter as scatter
from tests.unit import _report_sheets as sheets

from vlmlens.results import Figure, Finding, Glance, Result, Series, Table, Verdict
from vlmlens.samples import Sample

EXAMPLES = runpy.run_path(str(Path(__file__).with_name("test_report_examples.py")))
SAMPLES: list[Sample] = EXAMPLES["samples"](6)
ROWS = 1_234
SCORES = [None if i % 100 == 7 else (i * 37) % ROWS / 10 for i in range(ROWS)]
WORDS = [f"Word {(i * 7) % 13}" for i in range(ROWS)]


def small(subjects: Sequence[str] = ("color", "artist@color", "shape")) -> Result:
    """An analysis with a finding, a cell and a figure per subject, and a long table."""
    found = [
        Finding(f"{each} is read.", Verdict.ENCODED, each, {"accuracy": 0.9}, notable=i == 0)
        for i, each in enumerate(subjects)
    ]
    some = [SAMPLES[i].id for i in (1, 3)]
    found.append(Finding("Two are odd.", samples=some))
    cells = [
        Glance(each.partition("@")[0], "can be read from", "block 2", Verdict.ENCODED, 0.9)
        for each in subjects
    ]
    names = [f"probe-{each.replace('@', '-')}" for each in subjects]
    figures = [
        Figure(name, name, "line", ["0", "1"], series=[Series("s", [0.1, 0.9])]) for name in names
    ]
    samples = [SAMPLES[i % len(SAMPLES)].id for i in range(ROWS)]
    columns = {"sample": samples, "score": SCORES, "word": WORDS, "n": list(range(ROWS))}
    tables = [Table("long", "A long table", columns), Table("none", "Empty", {"a": []})]
    return Result(
        "probe", "What is read", found, tables, figures, {"folds": 5}, ["How."], ["Few samples."],
        cells,
    )  # fmt: skip


def drawn() -> Result:
    """An analysis with figures of all kinds."""
    figures = [
        Figure("heat", "Heat", "heatmap", ["a", "b"], y=["c"], cells=[[0.5, 1.0]]),
        sheets.lens(SAMPLES),
        sheets.patches(SAMPLES, words=("red", "blue")),
        features.features(SAMPLES),
        scatter.points([*SAMPLES[:2]]),
    ]
    return Result("sae", "Sparse autoencoders", [Finding("Seen.")], figures=figures)


def answered(answers: Sequence[str]) -> Result:
    """Answers to the samples, and an accuracy with an interval."""
    columns = {
        "sample": [sample.id for sample in SAMPLES[: len(answers)]],
        "answer_image": list(answers),
        "answer_blank": ["none"] * len(answers),
        "label": ["red"] * len(answers),
    }
    cell = Glance("color", "uses the image", "yes", Verdict.USES_IMAGE, 0.75)
    tables = [Table("answers", "Answers", columns)]
    return Result("blind-test", "Whether it looks", tables=tables, overview=[cell])
