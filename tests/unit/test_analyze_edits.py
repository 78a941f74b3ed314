"""`analyze --edit`: the model is edited, stored columns are not, and results lie apart."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tests._program import vlmlens as command

import vlmlens
from vlmlens import Run
from vlmlens.abc import Options
from vlmlens.abc.engine import Engine, Work
from vlmlens.errors import CompositionError, EditError, ResultExists, SiteNotFound, SpecError
from vlmlens.runner.changes import Changes
from vlmlens.runner.execution import analyze

EDIT = "llm.block.*.attn/text <- image = cut"
MINE = '''
from vlmlens.abc import Analysis
from vlmlens.results import Finding, Result


class Passes(Analysis):
    """Runs a pass, or reads what is stored."""

    def run(self, context):
        vlm = context.model()
        batch = vlm.encode(list(context.samples)[:2])
        found = vlm.forward(batch, logits="last").logits.argmax(-1).tolist()
        stored = context.store.read("llm.block.2/last").numpy().sum()
        texts = sorted(context.generated)
        return Result("passes", "Passes", [Finding(f"{found} {stored:.4f} {texts}")])


class Reads(Analysis):
    def run(self, context):
        context.model()
        return Result("reads", "Reads")
'''


class OneWorker(Engine):
    """Runs everything in a worker that is made as those of other processes are."""

    def run(self, work: Work) -> None:
        worker = work.begin()
        for name in work.open():
            lease = json.loads(json.dumps(work.take(name)))
            work.finish(name, json.loads(json.dumps(worker(lease, lambda done: None))))


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    folder = tmp_path_factory.mktemp("edits") / "run"
    (folder.parent / "mine.py").write_text(MINE, encoding="utf-8")
    return vlmlens.extract(
        limit=4, sites="llm.block.2/last", device="cpu", batch_size=4, generate=1, out=folder
    )


@pytest.fixture
def passes(run: Run) -> str:
    return f"{run.path.parent / 'mine.py'}:Passes"


def test_a_model_that_sees_no_image_ignores_it(run: Run) -> None:
    """The result lies beside that of the model as it is, says its edits, and shares no unit."""
    plain = vlmlens.analyze(run, "blind-test")["blind-test"]
    first = command("analyze", run.path, "--analysis", "blind-test:cut", "--edit", EDIT, "--quiet")
    assert first.returncode == 0, first.stderr
    edited = run.results["blind-test:cut"]
    assert edited.notes[0].startswith(f"The model ran under edits: {EDIT}. Stored columns are")
    assert edited.title.endswith("(cut)")
    assert set(edited.table("blind-answers").columns["total_variation"]) == {0.0}
    assert all(plain.table("blind-answers").columns["total_variation"])
    assert run.results["blind-test"].findings == plain.findings
    assert Run(run.path).info["edited"] == {"blind-test:cut": [EDIT]}
    again = vlmlens.analyze(run, "blind-test:cut", edits=EDIT)["blind-test:cut"]
    assert [finding.text for finding in again.findings] == [f.text for f in edited.findings]
    for edits in ((), ["llm.block.0/last = zero"]):
        with pytest.raises(ResultExists, match="other options: edits"):
            vlmlens.analyze(run, "blind-test:cut", edits=edits)


def test_an_engine_gives_the_same(run: Run) -> None:
    edits = ["llm.block.2/image = scale(0.5)"]
    here = vlmlens.analyze(run, "blind-test:here", edits=edits)["blind-test:here"]
    (run.path / "units.sqlite").unlink()
    asked, engine = {"blind-test:there": {}}, OneWorker(Options())
    (there,) = analyze(run, asked, run.registry, engine=engine, changes=Changes(tuple(edits)))
    assert [finding.text for finding in there.findings] == [f.text for f in here.findings]


def test_stored_columns_and_the_runs_texts(run: Run, passes: str) -> None:
    """Columns stay; what the model wrote without the edits is not handed to the analysis."""
    found = [
        vlmlens.analyze(run, f"{passes}{label}", edits=edits).popitem()[1].findings[0].text
        for label, edits in (("", ()), (":edited", "llm.block.*/last = zero"))
    ]
    (a, stored, texts), (b, same, none) = (
        (text[:text.index("]")], *text[text.index("]") + 2:].split(" ", 1)) for text in found
    )  # fmt: skip
    assert a != b
    assert stored == same
    assert texts != "[]"
    assert none == "[]"


@pytest.mark.parametrize(
    ("analysis", "edits", "error", "message"),
    [
        ("blind-test", EDIT, SpecError, "A result of a changed model needs a label"),
        ((), EDIT, SpecError, "Edits are for analyses that are named"),
        ("logit-lens:x", EDIT, CompositionError, "'logit-lens' does not run the model"),
        ("probe:x", EDIT, CompositionError, "'probe' does not run the model"),
        ("blind-test:x", "llm.block.77/last = zero", SiteNotFound, "llm.block.77"),
        ("blind-test:x", "llm.block.2 = zero", EditError, "which rows are edited"),
        ("blind-test:x", "llm.block.2/last = patch", EditError, "has no donor"),
    ],
)
def test_what_edits_are_not_for(
    run: Run,
    analysis: str,
    edits: str,
    error: type[Exception],
    message: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def no_weights(*_: object) -> None:
        raise AssertionError("the model is loaded")

    monkeypatch.setattr("vlmlens.runner.execution.load_model", no_weights)
    before = set(run.results)
    with pytest.raises(error, match=message):
        vlmlens.analyze(run, analysis, edits=edits)
    assert set(run.results) == before


def test_an_analysis_that_did_not_run_the_model(run: Run, passes: str) -> None:
    name = passes.replace("Passes", "Reads:x")
    with pytest.raises(
        CompositionError, match=r"does not run the model, so .* would change nothing"
    ):
        vlmlens.analyze(run, name, edits=EDIT)
    assert "reads:x" not in run.results


def test_the_command_says_what_is_wrong(run: Run, tmp_path: Path) -> None:
    made = command("analyze", run.path, "--analysis", "probe:x", "--edit", EDIT)
    assert made.returncode == 2
    assert "'probe' does not run the model" in made.stderr
    with pytest.raises(CompositionError, match="no model that could be edited"):
        vlmlens.analyze(run.path / "columns", "probe", edits=EDIT)
    assert not (run.path / "columns.vlmlens").exists()
