"""SAEs of the demo model, in a run: a feature for each color, and none for the photographer."""

from __future__ import annotations

from pathlib import Path

import pytest

import vlmlens
from vlmlens import Run
from vlmlens.errors import VlmlensError
from vlmlens.results import Verdict
from vlmlens_plugins.analysis.sae.pages import read_page
from vlmlens_plugins.sae import open_sae

COLUMN = "llm.block.3/image"
OPTIONS = {"seeds": 1, "effects": 0, "rows": 500_000, "held_out": 0.4}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """One SAE of stored image rows in the middle of the language model."""
    options = {**OPTIONS, "by": ["label", "photographer"]}
    return vlmlens.run(
        data="demo:scenes",
        options={"dataset": {"scenes": 200}},
        sites=[COLUMN],
        analysis={"sae": options},
        out=tmp_path_factory.mktemp("sae") / "run",
    )


def folder_of(run: Run) -> Path:
    (found,) = [path for path in Path(run.path).glob("results/sae.llm-*-s0") if path.is_dir()]
    return found


def test_each_color_has_a_feature_and_the_photographer_none(run: Run) -> None:
    (figure,) = [one for one in run.results["sae"].figures if one.kind == "features"]
    named = {
        (label.target, label.label)
        for page in figure.pages
        for label in page.labels
        if page.name and label.corrected < 0.05 and label.auc >= 0.9
    }
    assert len([name for name in named if name[0] == "color"]) >= 7
    assert not [name for name in named if name[0] == "photographer"]


def test_single_features_tell_colors_better_than_untrained_ones(run: Run) -> None:
    table = run.results["sae"].table("sae-concepts")
    rows = [dict(zip(table.columns, row, strict=True)) for row in table.rows()]
    auc = {(row["basis"], row["concept"]): float(str(row["auc"])) for row in rows}
    (own,) = {basis for basis, _ in auc if "features" in str(basis)}
    assert auc[own, "color"] >= 0.95
    assert auc["untrained", "color"] <= auc[own, "color"] - 0.05
    assert abs(auc[own, "photographer"] - 0.5) < 0.2
    first = run.results["sae"].findings[0]
    assert first.verdict is Verdict.DIFFERS
    assert first.values["explained"] > first.values["untrained"] + 0.3  # type: ignore[operator]


def test_it_is_kept_as_files_and_not_trained_again(run: Run) -> None:
    before = open_sae(folder_of(run))
    assert before.about.column == COLUMN
    pages = sorted(folder_of(run).with_name(f"{folder_of(run).name}.features").glob("*.json"))
    assert read_page(pages[0]).column == COLUMN
    stamp = (folder_of(run) / "sae_weights.safetensors").stat().st_mtime_ns
    options = {**OPTIONS, "pages": 2, "loss": "off"}
    vlmlens.analyze(run.path, analysis={"sae": options}, fresh=True)
    assert (folder_of(run) / "sae_weights.safetensors").stat().st_mtime_ns == stamp


def test_another_place_is_refused_before_anything_runs(run: Run, tmp_path: Path) -> None:
    edit = f'llm.block.1/image = sae.ablate("{folder_of(run)}", 3)'
    with pytest.raises(VlmlensError, match="does not belong here"):
        vlmlens.run(data="demo:scenes", limit=4, edits=[edit], out=tmp_path / "run")
    assert not (tmp_path / "run").exists()
