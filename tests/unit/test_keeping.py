"""Several results of one analysis in a run: labels, and what is not replaced unasked."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tests._program import vlmlens as command

import vlmlens
from vlmlens import Run
from vlmlens.compose.labels import analysis_named
from vlmlens.errors import ResultExists, SpecError, UnknownPlugin
from vlmlens.registry import Registry


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Twelve questions, already read by the lens."""
    folder = tmp_path_factory.mktemp("keeping") / "run"
    made = vlmlens.extract(limit=12, sites="llm.block.{4,5}/last", device="cpu", out=folder)
    vlmlens.analyze(made, "logit-lens")
    return made


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("logit-lens", ("logit-lens", "")),
        ("logit-lens:patches", ("logit-lens", "patches")),
        ("Logit_Lens:A-1_b", ("logit-lens", "A-1_b")),
        ("vlmlens:logit-lens", ("logit-lens", "")),
        ("vlmlens:logit-lens:patches", ("logit-lens", "patches")),
    ],
)
def test_a_name_and_its_label(name: str, found: tuple[str, str]) -> None:
    manifest, label = analysis_named(Registry.default(), name)
    assert (manifest.name, label) == found


def test_a_class_in_a_file_has_labels(tmp_path: Path) -> None:
    path = tmp_path / "mine.py"
    path.write_text(
        "from vlmlens.abc import Analysis\n"
        "class Mine(Analysis):\n"
        "    def run(self, context):\n"
        "        raise NotImplementedError\n"
    )
    for name, label in ((f"{path}:Mine", ""), (f"{path}:Mine:twice", "twice")):
        assert analysis_named(Registry.default(), name)[1] == label


@pytest.mark.parametrize("label", ["", "a b", "../up", "x/y", "a.b"])
def test_what_is_no_label(label: str) -> None:
    with pytest.raises(SpecError, match="is no label"):
        analysis_named(Registry.default(), f"logit-lens:{label}")


def test_an_unknown_analysis_with_a_label_has_a_suggestion() -> None:
    with pytest.raises(UnknownPlugin) as caught:
        analysis_named(Registry.default(), "lgit-lens:patches")
    assert "Did you mean logit-lens" in caught.value.hint


def test_a_result_with_other_options_is_not_replaced(run: Run) -> None:
    before = (run.path / "results" / "logit-lens.json").read_bytes()
    with pytest.raises(ResultExists, match="k was 5, is 2") as caught:
        vlmlens.analyze(run, {"logit-lens": {"k": 2}})
    assert "logit-lens:LABEL" in caught.value.hint
    with pytest.raises(ResultExists, match="seed was 0, is 7"):
        vlmlens.analyze(run, "logit-lens", seed=7)
    assert (run.path / "results" / "logit-lens.json").read_bytes() == before
    assert run.info["state"] == "finished"
    vlmlens.analyze(run, {"logit-lens": {"k": 5}})
    assert (run.path / "results" / "logit-lens.json").read_bytes() == before


def test_a_label_keeps_both(run: Run) -> None:
    made = vlmlens.analyze(run, {"logit-lens:two": {"k": 2}})
    assert list(made) == ["logit-lens:two"]
    assert run.results["logit-lens"].options["k"] == 5
    assert run.results["logit-lens:two"].options["k"] == 2
    assert run.results["logit-lens:two"].title == "Where the answer forms (two)"
    questions = {cell.question for cell in run.overview.overview}
    assert questions == {"answer settles", "answer settles (two)"}
    page = run.report_path.read_text(encoding="utf-8")
    assert "Where the answer forms (two)" in page
    with pytest.raises(ResultExists, match="logit-lens:two"):
        vlmlens.analyze(run, {"logit-lens:two": {"k": 3}})
    vlmlens.analyze(run, {"logit-lens:two": {"k": 3}}, fresh=True)
    assert run.results["logit-lens:two"].options["k"] == 3


def test_commands_take_labels(run: Run) -> None:
    where = run.path.parent
    asked = ("--analysis", "logit-lens:red", "--set", "analysis.logit-lens:red.words=[red]")
    done = command("analyze", "run", *asked, cwd=where)
    assert done.returncode == 0, done.stderr
    assert "logit-lens:red" in done.stdout
    shown = command("show", "run", "logit-lens:red", "--json", cwd=where)
    assert json.loads(shown.stdout)["options"]["words"] == ["red"]
    again = (*asked[:3], "analysis.logit-lens:red.words=[blue]")
    refused = command("analyze", "run", *again, cwd=where)
    assert refused.returncode == 2
    assert "words was ['red'], is ['blue']" in refused.stderr
    replaced = command("analyze", "run", *again, "--fresh", cwd=where)
    assert replaced.returncode == 0, replaced.stderr
    tables = command("report", "run", "--tables", "csv", "--to", "papers", cwd=where)
    assert tables.returncode == 0, tables.stderr
    names = {path.name for path in (where / "papers").iterdir()}
    assert {"logit-lens.lens-layers.csv", "logit-lens@red.lens-layers.csv"} <= names


def test_a_run_resumed_with_other_options_keeps_its_results(tmp_path: Path) -> None:
    given = {"limit": 6, "sites": "llm.block.5/last", "device": "cpu", "out": tmp_path / "run"}
    vlmlens.run(**given, analysis={"logit-lens": {}})
    with pytest.raises(ResultExists):
        vlmlens.run(**given, analysis={"logit-lens": {"k": 2}}, mode="resume")
    both = {"logit-lens": {}, "logit-lens:two": {"k": 2}}
    made = vlmlens.run(**given, analysis=both, mode="resume")
    assert set(made.results) == set(both)


def test_one_place_for_two_results_is_refused(tmp_path: Path) -> None:
    twice = {"logit-lens:a": {}, "Logit_Lens:a": {"k": 2}}
    with pytest.raises(SpecError, match="are the same"):
        vlmlens.run(limit=6, device="cpu", out=tmp_path / "run", analysis=twice)
