"""`vlmlens run`, as a newcomer runs it: the analyses find what was planted in the demo model."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from tests._demo_run import demo_run
from tests._program import vlmlens

from vlmlens import Run
from vlmlens.report._markup import text
from vlmlens.results import Result, Table, Verdict

pytestmark = pytest.mark.slow

USED = ("color", "shape", "number", "presence")
IGNORED = "surface"
ABSENT = "photographer@color"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run of the whole demo: the one that the gate made with the README's command, if it did."""
    return Run(demo_run(tmp_path_factory.mktemp("newcomer")))


def by_row(table: Table) -> list[dict[str, Any]]:
    return [dict(zip(table.columns, row, strict=True)) for row in table.rows()]


def findings(result: Result, subject: str) -> list[Verdict]:
    return [f.verdict for f in result.findings if f.subject == subject]


def best(run: Run, target: str, side: str) -> dict[str, Any]:
    rows = by_row(run.results["probe"].tables[0])
    chosen = [r for r in rows if r["target"] == target and r["column"].startswith(side)]
    assert chosen, f"{target} was not probed on {side}"
    return max(chosen, key=lambda row: row["accuracy"])


@pytest.mark.parametrize("target", [*USED, IGNORED])
def test_what_is_drawn_is_encoded_by_the_vision_tower(run: Run, target: str) -> None:
    row = best(run, target, "vision.block")
    if target == "presence":
        # Whether an object is there depends on the question, which the tower never sees.
        assert row["verdict"] != Verdict.ENCODED
    else:
        assert row["verdict"] == Verdict.ENCODED


def test_the_ignored_attribute_is_seen(run: Run) -> None:
    assert best(run, IGNORED, "vision.block")["accuracy"] >= 0.95


def test_the_stage_view_tells_what_is_read_and_not_answered(run: Run) -> None:
    """One sentence per task, with the answers' accuracy beside each stage's best column."""
    result = run.results["probe"]
    spoken = {f.subject: f for f in result.findings if "outcome" in f.values}
    assert set(spoken) == {*USED, IGNORED}
    assert spoken[IGNORED].values["outcome"] == "read but not answered"
    assert "answered no better than by guessing" in spoken[IGNORED].text
    assert all(spoken[task].values["outcome"] == "read and answered" for task in ("color", "shape"))
    assert spoken["presence"].values["outcome"] == "answered, not read from the vision side"
    low, gap, high = (
        spoken[IGNORED].values[f"read_above_answered{end}"] for end in ("_low", "", "_high")
    )
    assert 0.4 < low <= gap <= high
    stages = [row for row in by_row(result.table("probe-stages")) if row["target"] == IGNORED]
    assert [row["stage"] for row in stages] == [
        "vision encoder",
        "projector",
        "language model",
        "the model's answers",
    ]
    assert stages[0]["accuracy"] >= 0.95
    assert stages[-1]["accuracy"] < 0.6
    drawn = [figure for figure in result.figures if figure.name == f"probe-{IGNORED}"]
    assert [series.name for series in drawn[0].series][-1] == "the model's answers"


def test_presence_is_encoded_where_question_and_image_meet(run: Run) -> None:
    row = best(run, "presence", "llm.block")
    assert row["verdict"] == Verdict.ENCODED
    assert row["accuracy"] >= 0.9


def test_the_absent_label_is_encoded_nowhere(run: Run) -> None:
    rows = [r for r in by_row(run.results["probe"].tables[0]) if r["target"] == ABSENT]
    assert len(rows) == 11
    assert all(row["verdict"] != Verdict.ENCODED for row in rows)
    assert Verdict.ENCODED not in findings(run.results["probe"], ABSENT)
    assert Verdict.NOT_ENCODED in findings(run.results["probe"], ABSENT)


def test_the_blind_test_tells_used_from_ignored(run: Run) -> None:
    result = run.results["blind-test"]
    for task in USED:
        assert findings(result, task) == [Verdict.USES_IMAGE], task
    assert findings(result, IGNORED) == [Verdict.IGNORES_IMAGE]


@pytest.mark.parametrize("task", [*USED, IGNORED])
def test_the_answer_forms_over_depth(run: Run, task: str) -> None:
    """The final answer gains probability over the blocks; what is seen is not top-1 at once.

    The answer that ignores the image is the same for all: it is top-1 from the first block on.
    """
    result = run.results["logit-lens"]
    rows = [row for row in by_row(result.table("lens-layers")) if row["task"] == task]
    assert [row["column"] for row in rows] == [f"llm.block.{i}/last" for i in range(6)]
    assert rows[0]["answer_probability"] < 0.9 * rows[-1]["answer_probability"]
    assert rows[-1]["agreement"] == 1
    assert rows[0]["agreement"] < 1 or task == IGNORED
    assert any(task in finding.text for finding in result.findings)


def test_the_overview_answers_each_question_in_a_few_words(run: Run) -> None:
    cells = [cell for result in run.results.values() for cell in result.overview]
    told = {(cell.subject, cell.question): cell for cell in cells}
    read = {task: cell for (task, question), cell in told.items() if question == "can be read from"}
    settles = {t: c.text for (t, question), c in told.items() if question == "answer settles"}
    used = {task: cell for (task, question), cell in told.items() if question == "uses the image"}
    assert {task: cell.text for task, cell in read.items()} == {
        "color": "vision.block.2 on",
        "shape": "vision.block.3 on",
        "number": "llm.block.2 on",
        "presence": "language model only",
        "surface": "vision.block.1 on",
        "photographer": "nowhere",
    }
    assert settles == {
        "color": "llm.block.1",
        "shape": "llm.block.0",
        "number": "llm.block.0",
        "presence": "llm.block.1",
        "surface": "llm.block.0",
    }
    assert {task: cell.text for task, cell in used.items()} == {
        **dict.fromkeys(USED, "yes"),
        IGNORED: "no",
    }
    assert used["color"].beside.startswith("blind 0.1")
    assert "chance 0.50" in used[IGNORED].beside
    assert read["photographer"].beside.startswith("baseline 0.5")
    assert len(read["color"].curve) == 11
    assert len(told["color", "answer settles"].curve) == 6
    notable = [found for result in run.results.values() for found in result.findings]
    assert {found.subject for found in notable if found.notable} == {IGNORED}


def test_everything_lies_in_the_run_folder(run: Run) -> None:
    assert run.info["state"] == "finished"
    assert run.info["summary"]["samples"] == 3000
    names = {path.name for path in run.path.iterdir()}
    assert {"run.json", "spec.yaml", "samples.jsonl", "columns", "results", "report.html"} <= names
    for analysis, result in run.results.items():
        data = json.loads((run.path / "results" / f"{analysis}.json").read_text())
        assert data["analysis"] == analysis
        for table in result.tables:
            stored = pq.read_table(run.path / "results" / f"{analysis}.{table.name}.parquet")
            assert stored.num_rows == len(table)
        for figure in result.figures:
            svg = run.path / "results" / f"{analysis}.{figure.name}.svg"
            assert "<svg" in svg.read_text()[:2000]


def test_the_report_states_every_finding_and_needs_no_network(run: Run) -> None:
    page = run.report_path.read_text()
    assert page.index('class="scroll overview"') < page.index('class="notable"')
    assert page.index('class="notable"') < page.index("<figure")
    for result in run.results.values():
        assert result.findings
        assert all(str(text(finding.text)) in page for finding in result.findings)
    assert 'src="http' not in page
    assert 'href="http' not in page


def test_the_report_shows_maps_and_stays_small(run: Run) -> None:
    kinds = [figure.kind for figure in run.results["logit-lens"].figures]
    assert kinds[0] == "patches"
    assert "lens" in kinds
    (maps,) = [f for f in run.results["logit-lens"].figures if f.kind == "patches"]
    assert len({sheet.sample for sheet in maps.sheets}) == 8
    assert 'class="full patches"' in run.report_path.read_text()
    assert run.report_path.stat().st_size <= 1_500_000


def test_columns_are_whole(run: Run) -> None:
    assert len(run.activations) == 11
    matrix = run.activations["llm.block.5/last"]
    assert matrix.shape == (3000, 128)
    assert np.isfinite(matrix).all()


def test_analysing_again_gives_the_same_numbers(run: Run) -> None:
    def numbers() -> Result:
        """The result; how far rounding takes the lens from the logits depends on threads."""
        found = run.results["logit-lens"]
        notes = [
            re.sub(r"within \S+ of the largest", "close to the largest", n) for n in found.notes
        ]
        assert notes != list(found.notes)
        return replace(found, notes=notes)

    before = numbers()
    done = vlmlens("analyze", run.path, "--analysis", "logit-lens", "-q")
    assert done.returncode == 0, done.stderr
    assert numbers() == before


@pytest.mark.parametrize("width", [80, 100])
def test_the_answer_fits_a_screen(run: Run, width: int) -> None:
    done = vlmlens("show", run.path.name, cwd=run.path.parent, COLUMNS=str(width))
    lines = [line.rstrip() for line in done.stdout.splitlines()]
    assert lines[0].startswith("demo on demo:scenes: 600 images, 3,000 questions, ")
    assert len(lines) <= 25
    assert max(map(len, lines)) <= width
