"""A small run made by hand, with what must not leave the machine planted everywhere."""

from __future__ import annotations

import base64
import io
from pathlib import Path

import numpy as np
from PIL import Image

from vlmlens.abc import ColumnBlock, Values
from vlmlens.abc.adapter import Generation
from vlmlens.report.files import write_result
from vlmlens.report.overview import overview_of
from vlmlens.results import Figure, Finding, Glance, Result, Series, Table, Verdict
from vlmlens.runner.run_report import write_run_report
from vlmlens.runs.generated_texts import GeneratedTexts
from vlmlens.runs.run import Run
from vlmlens.samples import Sample
from vlmlens.spec.model import make_spec

COLUMN = "llm.block.0/last"


def painted(folder: Path, count: int = 2) -> list[Path]:
    """Pictures of noise, so that no two bytes of them are found elsewhere by chance."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for number in range(count):
        pixels = np.random.default_rng(number).integers(0, 256, (24, 24, 3), dtype=np.uint8)
        paths.append(folder / f"photo-{number}.png")
        Image.fromarray(pixels).save(paths[-1])
    return paths


def found(**more: object) -> Result:
    """A result with everything that a result can hold of texts."""
    table = Table("answers", "Answers", {"sample": ["a", "b"], "answer": ["red", "blue"]})
    figure = Figure("share", "Share", "bar", ["x", "y"], series=[Series("s", [0.5, 1.0])])
    parts = {
        "analysis": "toy",
        "title": "A toy",
        "findings": [
            Finding("The model sees <b>red</b>.", Verdict.USES_IMAGE, "color", notable=True)
        ],
        "tables": [table],
        "figures": [figure],
        "overview": (Glance("color", "uses the image", "yes", Verdict.USES_IMAGE, 0.75),),
    }
    return Result(**{**parts, **more})  # type: ignore[arg-type]


def made_run(
    folder: Path,
    pictures: list[Path],
    result: Result | None = None,
    *,
    storage: str = "sqlite",
    **more: object,
) -> Run:
    """A finished run of two samples with one column, one result and a report."""
    spec = make_spec({"adapter": "demo", "data": str(pictures[0].parent), "storage": storage})
    info = {
        "state": "finished", "vlmlens": "0.1.0", "python": "3.11", "columns": [COLUMN],
        "started": "2026-11-30T10:00:00+00:00", "samples": 2, "model": {"dtype": "float32"},
        "working_folder": str(folder.parent),
    }  # fmt: skip
    run = Run.create(folder, spec, {**info, **more})
    samples = [
        Sample(name, "Which colour?", (str(path),), label=label, task="color")
        for name, label, path in zip("ab", ("red", "blue"), pictures, strict=True)
    ]
    run.write_samples(samples)
    GeneratedTexts(folder).append(["a"], [Generation("It is red.", (5, 6))])
    with run.store(mode="a") as store:
        values = Values(np.array([[1.5, -0.0], [np.pi, 1e-30]], dtype=np.float32), "float32")
        store.write(ColumnBlock(("a", "b"), {COLUMN: values}))
    shown = found() if result is None else result
    write_result(shown, folder / "results")
    write_result(overview_of([shown], "A run"), folder / "results")
    write_run_report(run)
    return run


def encoded(picture: Path) -> list[bytes]:
    """Bytes by which a picture is found in what was sent: raw, in base64, made small or not."""
    with Image.open(picture) as opened:
        shown = opened.convert("RGB")
    made = []
    for options in ({}, {"optimize": True}):
        sink = io.BytesIO()
        shown.save(sink, "PNG", **options)
        made.append(sink.getvalue())
    every = [picture.read_bytes(), *made]
    middles = [each[len(each) // 3 : len(each) // 3 + 60] for each in every]
    texts = [base64.b64encode(each)[120:200] for each in every]
    return [*middles, *texts, shown.tobytes()[300:360]]
