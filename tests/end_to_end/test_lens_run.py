"""A run that reads generated steps and patches, follows words, and keeps a tuned lens."""

from __future__ import annotations

from pathlib import Path

import pytest

import vlmlens

pytestmark = pytest.mark.slow

SELECTORS = ("last", "image", "steps")


def test_steps_patches_words_and_a_tuned_lens_in_one_run(tmp_path: Path) -> None:
    columns = [f"llm.block.*/{selector}" for selector in SELECTORS]
    file = tmp_path / "lens.safetensors"
    options = {"columns": columns, "words": ["red"], "tuned": True, "tuned_file": str(file)}
    run = vlmlens.run(
        adapter="demo",
        data="demo:scenes",
        device="cpu",
        limit=25,
        generate=2,
        sites=columns,
        analysis={"logit-lens": options},
        out=str(tmp_path / "run"),
    )
    result = run.results["logit-lens"]
    names = {table.name for table in result.tables}
    assert {"lens-layers", "lens-words", "lens-image-confidence", "lens-steps-layers"} <= names
    assert {f"lens-{selector}-tuned" for selector in SELECTORS} <= names
    kinds = {figure.name: figure.kind for figure in result.figures}
    assert kinds["lens-image-words"] == "patches"
    assert kinds["lens-steps-positions"] == "lens"
    assert file.is_file()
    assert (run.path / "results" / "logit-lens.lens-image-top.svg").is_file()
    assert run.report_path.is_file()
