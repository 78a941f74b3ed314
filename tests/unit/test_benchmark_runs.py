"""The analysis `benchmark` in runs: the model is asked once, and its answers are kept."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from rich.console import Console
from tests._answered import answered, questions, row, score
from tests._program import vlmlens as program

import vlmlens
from vlmlens.abc import ModelAdapter, ModelWork, WorkUnit
from vlmlens.abc.analysis import Progress
from vlmlens.abc.model_work import JSON
from vlmlens.compose.plan import compose
from vlmlens.registry import Registry
from vlmlens.report.files import to_json
from vlmlens.report.terminal import print_results, print_summary
from vlmlens.results import Result
from vlmlens.runner.execution import execute
from vlmlens.runs.run import Run
from vlmlens.samples import Sample
from vlmlens.spec.model import make_spec
from vlmlens_plugins.analysis._answer_work import ChoiceScores, WrittenAnswers
from vlmlens_plugins.demo.adapter import DemoAdapter
from vlmlens_plugins.demo.dataset import DemoDataset, DemoOptions

SOURCE = '''
"""The colours of the demo's scenes, as a benchmark."""

import os
import signal

from vlmlens_plugins.analysis._answer_work import WrittenAnswers
from vlmlens_plugins.benchmarks import Benchmark, Card, Found, Prompt, Rule
from vlmlens_plugins.benchmarks.counting import MeanCredit
from vlmlens_plugins.demo.dataset import DemoDataset, DemoOptions

COLOURS = ("red", "green", "blue", "yellow", "purple", "cyan", "orange", "gray")


def exactly(text, sample):
    return text.strip() if text.strip() in COLOURS else None


class Colours(Benchmark):
    card = Card(
        name="colours", title="Colours", paper="none", licence="none",
        prompts={"official": Prompt()},
        rules={"strict": Rule(exactly), "official": Rule(lambda text, sample: "red")},
        metrics=MeanCredit(), headline="accuracy", max_new_tokens=3,
    )

    def found(self):
        samples = DemoDataset("scenes", DemoOptions(scenes=12)).samples([])
        return Found([s for s in samples if s.task == "color"], "memory", "12 scenes")


stop = int(os.environ.get("STOP", 0))
if stop:
    was, calls = WrittenAnswers.run, []

    def run(self, vlm, units):
        calls.append(len(units))
        if len(calls) > stop:
            os.kill(os.getpid(), signal.SIGKILL)
        return was(self, vlm, units)

    WrittenAnswers.run = run
'''


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("colours") / "colours.py"
    path.write_text(SOURCE)
    return f"{path}:Colours"


def settings(source: str, out: Path) -> dict[str, Any]:
    return {
        "data": f"{source}:all",
        "analysis": {"benchmark": {"draws": 200}},
        "batch_size": 2,
        "device": "cpu",
        "out": str(out),
    }


@pytest.fixture(scope="module")
def made(source: str, tmp_path_factory: pytest.TempPathFactory) -> Run:
    out = tmp_path_factory.mktemp("runs") / "whole"
    return execute(compose(make_spec(settings(source, out)), Registry.default()))


def of(run: Run) -> Result:
    return run.results["benchmark"]


@pytest.fixture
def no_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise AssertionError("the model is not needed")

    monkeypatch.setattr(DemoAdapter, "load", fail)


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many units each call of the model's work had."""
    calls: list[int] = []
    was = WrittenAnswers.run

    def run(self: WrittenAnswers, vlm: ModelAdapter, units: Sequence[WorkUnit]) -> list[str]:
        calls.append(len(units))
        return was(self, vlm, units)

    monkeypatch.setattr(WrittenAnswers, "run", run)
    return calls


def colours() -> list[Sample]:
    samples = DemoDataset("scenes", DemoOptions(scenes=12)).samples([])
    return [sample for sample in samples if sample.task == "color"]


def test_the_score_is_that_of_what_the_model_writes(made: Run, vlm: ModelAdapter) -> None:
    asked = colours()
    said = [vlm.generate(vlm.encode([s]), max_new_tokens=3)[0].text.strip() for s in asked]
    right = 100 * float(np.mean([a == s.label for a, s in zip(said, asked, strict=True)]))
    one = row(of(made).table("benchmark-scores"), metric="accuracy")
    assert one["value"] == pytest.approx(right)
    assert one["value"] > one["blind"]
    setting = "prompt 'official' (no suffix); greedy decoding, at most 3 tokens, batch size 2"
    assert setting in one["setting"]
    assert setting in of(made).findings[0].text
    path = made.path / "results" / "benchmark.answers.jsonl"
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert [line["text"].strip() for line in lines] == said
    assert all("blind" in line for line in lines)
    assert made.info["columns"] == []
    assert made.info["model"]


def test_answers_are_scored_again_without_the_model(
    made: Run, source: str, no_weights: None, counted: list[int]
) -> None:
    options = {"card": source, "parser": "official", "draws": 200}
    (again,) = vlmlens.analyze(made.path, {"benchmark:red": options}).values()
    labels = [sample.label for sample in made.samples]
    one = row(again.table("benchmark-scores"), metric="accuracy")
    assert one["value"] == pytest.approx(100 * labels.count("red") / len(labels))
    assert not counted
    assert "parser 'official'" in one["setting"]
    with pytest.raises(AssertionError, match="the model is not needed"):
        vlmlens.analyze(made.path, {"benchmark:long": {**options, "max_new_tokens": 4}})


def test_a_choice_is_the_more_probable_one_of_all_its_spellings() -> None:
    logs = {"yes": 0.25, "Yes": 0.25, "no": 0.4, "No": 0.01}
    asked: list[WorkUnit] = []

    def run(work: ModelWork, units: Sequence[WorkUnit], progress: Progress) -> list[JSON]:
        assert isinstance(work, ChoiceScores)
        asked.extend(units)
        progress(len(units), len(units))
        return [[float(np.log(logs[form])) for form in u.arguments["choices"]] for u in units]

    image = Image.new("RGB", (8, 6))
    given = [Sample(f"q{i}", "Is it?", (image,), "yes", ("yes", "no")) for i in range(12)]
    found = score(questions(given), runner=run, answers="choose")
    assert row(found.table("benchmark-scores"), metric="accuracy")["value"] == 100
    assert [each.arguments["choices"] for each in asked[:1]] == [["yes", "Yes", "no", "No"]]
    assert len(asked) == 24
    blind = asked[12]
    assert blind.sample.images == ()
    assert (blind.arguments["blank"], blind.arguments["sizes"]) == ("gray", [[8, 6]])
    logs["no"] = 0.6
    other = score(questions(given), runner=run, answers="choose", blank="skip")
    assert row(other.table("benchmark-scores"), metric="accuracy")["value"] == 0
    assert len(asked) == 24 + 12


def test_a_run_that_is_killed_goes_on_and_says_the_same(
    made: Run, source: str, tmp_path: Path, counted: list[int]
) -> None:
    out = tmp_path / "run"
    flags = ["--data", f"{source}:all", "--analysis", "benchmark", "--batch-size", 2]
    flags += ["--set", "analysis.benchmark.draws=200", "--device", "cpu", "--out", out]
    ran = program("run", *flags, cwd=tmp_path, STOP="2")
    assert ran.returncode == -9, ran.stderr
    assert not (out / "results" / "benchmark.json").exists()
    plan = compose(make_spec(settings(source, out)), Registry.default())
    run = execute(plan, mode="resume")
    assert to_json(of(run)) == to_json(of(made))
    assert 0 < sum(counted) <= 2 * len(made.samples) - 4


def test_texts_from_outside_steer_neither_page_nor_terminal(tmp_path: Path) -> None:
    hostile = "<script>alert(1)</script> \x1b[31m\u202eevil [bold]x[/bold] \n </style>"
    texts = ["yes", "no", hostile, "perhaps\x07"] * 3
    asked = questions(answered(["yes", "no"] * 6, texts, task=[hostile, "b"] * 6))
    run = vlmlens.run(data=asked, analysis={"benchmark": {"draws": 200}}, out=tmp_path / "run")
    page = (run.path / "report.html").read_text(encoding="utf-8")
    assert "<script>alert" not in page
    assert "&lt;script&gt;alert" in page or "\\u003cscript" in page
    sink = io.StringIO()
    console = Console(file=sink, width=300, force_terminal=False)
    print_results(list(run.results.values()), console)
    print_summary(list(run.results.values()), console)
    assert "alert(1)" in sink.getvalue()
    assert not {"\x1b", "\x07", "\u202e"} & set(sink.getvalue())
    assert len(of(run).table("benchmark-unparsed").columns["text"]) == 6
