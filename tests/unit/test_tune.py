"""The analysis `tune`, the command, and the function."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tests._program import vlmlens as program

import vlmlens
from vlmlens import Run
from vlmlens.abc import AnalysisContext, ModelAdapter
from vlmlens.errors import CompositionError, SpecError
from vlmlens.results import Verdict
from vlmlens.samples import Sample
from vlmlens.tuned.record import FOLDER
from vlmlens_plugins.demo.dataset import DemoDataset, DemoOptions

QUICK = {"tests": 20, "draws": 200, "batch_size": 5}


def scenes(task: str, number: int) -> list[Sample]:
    every = DemoDataset("scenes", DemoOptions(scenes=number)).samples([])
    return [one for one in every if one.task == task]


@pytest.fixture(scope="module")
def tuned(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """The projector, trained on the surface of 200 scenes."""
    return vlmlens.tune(
        "projector",
        data=scenes("surface", 320),
        epochs=4,
        rate=8e-3,
        samples=200,
        tuning={**QUICK, "tests": 40, "control": False},
        device="cpu",
        out=tmp_path_factory.mktemp("tuned") / "run",
    )


def test_the_projector_learns_the_surface_of_the_demo_model(tuned: Run) -> None:
    """Planted: the tower sees the surface, and the model answers from a prior."""
    finding = tuned.results["tune"].findings[0]
    assert finding.verdict is Verdict.DIFFERS
    assert finding.values["before"] < 0.65  # type: ignore[operator]
    assert finding.values["after"] >= 0.95  # type: ignore[operator]
    assert abs(finding.values["blind_after"] - 0.5) < 0.2  # type: ignore[operator]
    assert finding.text.startswith("surface: tuning the projector (all weights, 33,024 parameters)")
    assert "on 160 samples" in finding.text


def test_shuffled_labels_teach_nothing_and_neither_does_the_photographer(tmp_path: Path) -> None:
    """Planted: the photographer is not in the picture."""
    asked = scenes("surface", 160)
    names = sorted({str(one.attributes["photographer"]) for one in asked})
    signed = [
        replace(
            one, prompt="Photographer:", task="photographer", choices=tuple(names),
            label=str(one.attributes["photographer"]),
        )
        for one in asked
    ]  # fmt: skip
    run = vlmlens.tune(
        "projector",
        data=signed,
        epochs=3,
        samples=60,
        tuning={**QUICK, "tests": 60},
        device="cpu",
        out=tmp_path / "signed",
    )
    finding = run.results["tune"].findings[0]
    assert finding.verdict is not Verdict.DIFFERS
    assert abs(finding.values["after"] - 1 / len(names)) < 0.2  # type: ignore[operator]
    assert abs(finding.values["control"] - 1 / len(names)) < 0.2  # type: ignore[operator]


def test_the_tuned_folder_gives_the_same_answers(tuned: Run) -> None:
    table = next(one for one in tuned.results["tune"].tables if one.name == "answers")
    by_id = {one.id: one for one in tuned.samples}
    asked = [by_id[str(name)] for name in table.columns["sample"]][:8]
    from vlmlens_plugins.analysis._scoring import AnswerScorer

    vlm = vlmlens.load("demo", device="cpu", tuned=str(tuned.path))
    scores = AnswerScorer(vlm).choices(asked)
    chosen = [one.choices[int(logs.argmax())] for one, logs in zip(asked, scores, strict=True)]
    assert chosen == list(table.columns["after"])[:8]
    plain = AnswerScorer(vlmlens.load("demo", device="cpu")).choices(asked)
    before = [one.choices[int(logs.argmax())] for one, logs in zip(asked, plain, strict=True)]
    assert before == list(table.columns["before"])[:8]


def test_what_is_kept_of_a_training(tuned: Run) -> None:
    names = {path.name for path in (tuned.path / FOLDER).iterdir()}
    assert names == {"tuned.json", "weights.safetensors"}
    about = json.loads((tuned.path / FOLDER / "tuned.json").read_text())
    assert (about["kind"], about["component"], about["samples"]) == ("weights", "projector", 160)
    assert not list((tuned.path / "results").glob("*checkpoint*"))
    curve = next(one for one in tuned.results["tune"].tables if one.name == "curve")
    assert list(curve.columns["epoch"]) == list(range(5))
    assert sum(map(bool, curve.columns["best"])) == 1


def test_a_run_goes_on_from_its_checkpoints(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed while it measures: the training is not done again."""
    from vlmlens_plugins.analysis._tuning.measuring import Examiner
    from vlmlens_plugins.tuning import fit as loop

    given: dict[str, Any] = {
        "data": scenes("surface", 24), "epochs": 1, "device": "cpu", "out": tmp_path / "run",
        "tuning": {**QUICK, "control": False},
    }  # fmt: skip
    real = Examiner.ask
    asked: list[bool] = []

    def ask(self: Examiner, *, blind: bool = False) -> object:
        asked.append(blind)
        if len(asked) == 3:
            raise KeyboardInterrupt
        return real(self, blind=blind)

    monkeypatch.setattr(Examiner, "ask", ask)
    with pytest.raises(KeyboardInterrupt):
        vlmlens.tune("projector", **given)
    assert len(list((tmp_path / "run" / "results").glob("tune.*.checkpoint"))) == 1

    def no_step(*args: object) -> float:
        raise AssertionError("trained again")

    monkeypatch.setattr(loop._Training, "_step", no_step)
    run = vlmlens.tune("projector", **given, mode="resume")
    assert run.results["tune"].findings
    assert not list((tmp_path / "run" / "results").glob("*checkpoint*"))


def test_an_edited_model_is_not_trained(tuned: Run) -> None:
    from vlmlens_plugins.analysis.tune import Tune
    from vlmlens_plugins.analysis.tune.options import TuneOptions

    vlm = vlmlens.load("demo", device="cpu")
    context = _context(tuned, vlm)
    with vlm.edited("llm.block.3/image = zero"), pytest.raises(CompositionError, match="edited"):
        Tune(TuneOptions()).run(context)


def _context(run: Run, vlm: ModelAdapter) -> AnalysisContext:
    return AnalysisContext(list(run.samples), None, lambda: vlm)  # type: ignore[arg-type]


def test_options_are_checked_before_a_model_is_loaded(tmp_path: Path) -> None:
    samples = [replace(one, id=one.id) for one in scenes("surface", 12)]
    with pytest.raises(SpecError, match="prompt"):
        vlmlens.tune("llm", method="prompt", data=samples, out=tmp_path / "a")
    with pytest.raises(SpecError, match="together"):
        vlmlens.tune(data=samples, tuning={"train": 0.9}, out=tmp_path / "b")
    with pytest.raises(SpecError, match="rate"):
        vlmlens.tune(data=samples, rate=-1.0, out=tmp_path / "c")


def test_the_command_checks_and_says_what_it_costs(tmp_path: Path) -> None:
    done = program(
        "tune", "--data", "demo:scenes", "--limit", "100", "--component", "vision", "--task",
        "surface", "--epochs", "2", "--dry-run", cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "samples with gradients" in done.stdout + done.stderr
    wrong = program("tune", "--data", "demo:scenes", "--component", "eye", cwd=tmp_path)
    assert wrong.returncode == 2
    assert "eye" in wrong.stderr
