"""An analysis of units in a run: it goes on where it was, and pays only for what is new."""

from __future__ import annotations

import shutil
import subprocess
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from tests._program import vlmlens as program

import vlmlens
from vlmlens.abc.observer import SilentObserver
from vlmlens.errors import CompositionError, FingerprintMismatch, VlmlensError
from vlmlens.runner.unit_worker import said_of
from vlmlens.runs.unit_results import FILE
from vlmlens.spec.model import make_spec
from vlmlens_plugins.demo.adapter import DemoAdapter

SOURCE = '''
"""Asks for the first logits of each sample; says in a file which units have run."""

import os
import signal
from pathlib import Path

from vlmlens.abc import Analysis, ModelWork, Options, WorkUnit
from vlmlens.results import Finding, Result, Table


class Logits(ModelWork):
    version = 1

    def run(self, vlm, units):
        log = Path(os.environ["ASKED"])
        ran = log.read_text() if log.exists() else ""
        if len(ran.splitlines()) >= int(os.environ.get("STOP", 999)):
            if os.environ["HOW"] == "kill":
                os.kill(os.getpid(), signal.SIGKILL)
            raise ValueError("stopped here")
        lost = os.environ.get("LOST")
        if lost and ran and not Path(lost).exists():
            Path(lost).touch()
            os.kill(os.getpid(), signal.SIGKILL)
        batch = vlm.encode([unit.sample for unit in units])
        logits = vlm.forward(batch, logits="last").logits
        tokens = [unit.arguments["token"] for unit in units]
        found = logits[range(len(units)), tokens].tolist()
        now = "".join(f"{u.sample.id} {u.arguments['token']}\\n" for u in units)
        with log.open("a") as file:
            file.write(now)
        return found


class Asking(Analysis):
    class Options(Options):
        tokens: tuple[int, ...] = (5,)

    def run(self, context):
        units = [
            WorkUnit(s, {"token": t}, f"{t}") for t in self.options.tokens for s in context.samples
        ]
        found = context.run_units(Logits(), units)
        return Result(
            "asking", "Asking", [Finding("Done.")],
            tables=[Table("asking", "Asking", {"logit": found})],
            options=self.options.model_dump(mode="json"),
        )
'''
SAMPLES, BATCH = 20, 4
SETTINGS: dict[str, Any] = {
    "limit": SAMPLES,
    "batch_size": BATCH,
    "sites": ["llm.block.0/last"],
    "device": "cpu",
}


class Hearing(SilentObserver):
    def __init__(self) -> None:
        self.notes: list[str] = []
        self.warnings: list[str] = []
        self.steps: list[int] = []

    def note(self, message: str) -> None:
        self.notes.append(message)

    def warn(self, message: str) -> None:
        self.warnings.append(message)

    def advance(self, done: int) -> None:
        self.steps.append(done)


@pytest.fixture(scope="module")
def extracted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("units")
    (folder / "asking.py").write_text(SOURCE)
    vlmlens.extract(
        limit=SAMPLES,
        batch_size=BATCH,
        sites=["llm.block.0/last"],
        out=folder / "run",
        device="cpu",
    )
    return folder


class Case:
    """A copy of the extracted run, and what ran on it."""

    def __init__(self, extracted: Path, folder: Path) -> None:
        self.path = folder / "run"
        self.log = folder / "asked.txt"
        self.name = f"{extracted / 'asking.py'}:Asking"
        shutil.copytree(extracted / "run", self.path)

    def analyze(self, *tokens: int, **how: Any) -> tuple[list[float], Hearing]:
        heard = Hearing()
        chosen = {self.name: {"tokens": tokens or (5,)}}
        found = vlmlens.analyze(self.path, chosen, observer=heard, **how)
        return next(iter(found.values())).table("asking").columns["logit"], heard

    def ran(self) -> Counter[str]:
        return Counter(self.log.read_text().splitlines())


@pytest.fixture
def case(extracted: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Case:
    made = Case(extracted, tmp_path)
    monkeypatch.setenv("ASKED", str(made.log))
    return made


def test_a_repeated_analysis_runs_nothing_and_says_so(case: Case) -> None:
    first, heard = case.analyze()
    assert "20 units of model work in 5 batches." in heard.notes[0]
    assert heard.steps == [0, 4, 8, 12, 16, 20]
    again, heard = case.analyze()
    assert again == first
    assert "no model work is left; 20 results from before." in heard.notes[0]
    assert heard.steps == [20]
    assert set(case.ran().values()) == {1}


def test_other_options_pay_for_new_units_only(case: Case) -> None:
    (one, _), (both, heard) = case.analyze(5), case.analyze(5, 7, fresh=True)
    assert both[:SAMPLES] == one
    assert "20 units of model work in 5 batches; 20 results from before." in heard.notes[0]
    assert len(case.ran()) == 2 * SAMPLES
    assert set(case.ran().values()) == {1}


def test_an_analysis_that_fails_in_the_middle_repeats_no_finished_unit(
    case: Case, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STOP", "8")
    monkeypatch.setenv("HOW", "fail")
    with pytest.raises((ValueError, VlmlensError), match="stopped here"):
        case.analyze()
    assert len(case.ran()) == 8
    monkeypatch.delenv("STOP")
    stopped, heard = case.analyze()
    assert "12 units of model work in 3 batches; 8 results from before." in heard.notes[0]
    assert set(case.ran().values()) == {1}
    assert len(case.ran()) == SAMPLES
    (case.path / FILE).unlink()
    assert case.analyze()[0] == stopped


def test_a_killed_analysis_repeats_no_finished_unit(case: Case) -> None:
    def run(**env: str) -> subprocess.CompletedProcess[str]:
        return program("analyze", case.path, "--analysis", case.name, **env)

    killed = run(STOP="12", HOW="kill")
    assert killed.returncode in (-9, 137)
    assert len(case.ran()) == 12
    done = run()
    assert done.returncode == 0, done.stderr
    assert "8 units of model work in 2 batches; 12 results from before." in done.stderr
    assert set(case.ran().values()) == {1}
    assert len(case.ran()) == SAMPLES
    whole = case.analyze()[0]
    (case.path / FILE).unlink()
    assert case.analyze()[0] == whole
    assert set(case.ran().values()) == {2}


@pytest.mark.usefixtures("warm_workers")
def test_workers_give_what_one_process_gives(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    whole, _ = case.analyze()
    (case.path / FILE).unlink()
    case.log.unlink()
    monkeypatch.setattr(DemoAdapter, "load", lambda request: pytest.fail("loaded here, too"))
    shared, heard = case.analyze(workers=2)
    assert shared == whole
    assert heard.steps[-1] == SAMPLES
    assert set(case.ran().values()) == {1}


@pytest.mark.usefixtures("warm_workers")
def test_a_lost_worker_costs_its_lease(
    case: Case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LOST", str(tmp_path / "lost"))
    shared, heard = case.analyze(workers=2)
    assert any("was ended by SIGKILL" in each for each in heard.warnings)
    assert case.ran().total() <= SAMPLES + BATCH
    again, heard = case.analyze()
    assert again == shared
    assert "20 results from before" in heard.notes[0]


@pytest.mark.usefixtures("warm_workers")
def test_workers_with_another_model_are_refused(case: Case) -> None:
    run = vlmlens.open(case.path)
    run.update(model={**run.info["model"], "torch": "other"})
    with pytest.raises(FingerprintMismatch, match="not the one of the run: torch was 'other', is "):
        case.analyze(workers=1, engine="processes")
    assert case.analyze()[1].notes[0].endswith("5 batches.")


def test_processes_started_one_by_one_share_no_analysis(case: Case) -> None:
    with pytest.raises(CompositionError, match="share an extraction"):
        case.analyze(engine="environment", options={"engine": {"shard": "0/2"}})


def test_results_of_another_user_are_computed_again_and_it_is_said(
    case: Case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, _ = case.analyze()
    monkeypatch.setenv("VLMLENS_STATE", str(tmp_path / "mine"))
    again, heard = case.analyze(trust=True)
    assert again == first
    assert set(case.ran().values()) == {2}
    assert "20 results of the model's work" in heard.warnings[0]
    assert "not made by you" in vlmlens.open(case.path).info["warnings"][0]


def test_another_model_is_other_work(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    case.analyze()
    told = DemoAdapter.describe
    monkeypatch.setattr(DemoAdapter, "describe", lambda self: {**told(self), "torch": "other"})
    case.analyze()
    assert set(case.ran().values()) == {2}


def test_a_moved_checkpoint_is_the_same_model_and_other_code_another(
    vlm: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def numbers_of() -> dict[str, Any]:
        return said_of(vlm.describe(), type(vlm), make_spec({}))

    before = numbers_of()
    told = DemoAdapter.describe
    monkeypatch.setattr(DemoAdapter, "describe", lambda self: {**told(self), "checkpoint": "x"})
    assert numbers_of() == before
    monkeypatch.setattr("vlmlens.abc.model_work._digest", lambda module: "edited")
    assert numbers_of() != before


def test_fresh_removes_it_and_resume_keeps_it(case: Case) -> None:
    case.analyze()
    vlmlens.extract(**SETTINGS, out=case.path, mode="resume")
    assert (case.path / FILE).is_file()
    vlmlens.extract(**SETTINGS, out=case.path, mode="fresh")
    assert not (case.path / FILE).exists()
