"""`vlmlens report` and `vlmlens compare`, as users start them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from tests._program import vlmlens
from tests.unit import _report_sheets as sheets
from tests.unit.test_compare import answers, made_run
from tests.unit.test_compare import layers as layer_table

from vlmlens.report.files import write_result
from vlmlens.samples import Sample


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    ids = [str(i) for i in range(20)]
    for name, best in (("a", 0.9), ("b", 0.2)):
        made_run(tmp_path / name, answers([best > 0.5] * 20, ids), layer_table(best))
    figures = [sheets.patches([Sample("0", "What?")])]
    write_result(sheets.result(figures), tmp_path / "a" / "results")
    return tmp_path


def test_a_report_is_written_again_with_files_for_papers(runs: Path) -> None:
    done = vlmlens("report", "a", "--figures", "svg,png", "--tables", "latex", "--json", cwd=runs)
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert (runs / document["report"]).read_text(encoding="utf-8").startswith("<!doctype html>")
    assert document["files"] == [
        "a/papers/logit-lens.map.svg", "a/papers/logit-lens.map.png",
        "a/papers/probe.answers.tex", "a/papers/probe.layers.tex",
    ]  # fmt: skip
    plain = vlmlens("report", "a", cwd=runs)
    assert plain.stdout == "report  a/report.html\n"


def test_the_page_begins_with_what_it_is_about(runs: Path) -> None:
    assert vlmlens("report", "a", cwd=runs).returncode == 0
    page = (runs / "a" / "report.html").read_text(encoding="utf-8")
    lead = page[page.index('class="lead"') : page.index("<section")]
    assert "demo on demo:scenes: 60 questions" in lead
    assert "<h1>A look inside " in page
    reproduce = page[page.index('id="reproduce"') :]
    assert ">adapter: demo\ndata: demo:scenes\n</code>" in reproduce, "only what is no default"


def test_the_page_is_opened_in_the_users_browser(runs: Path) -> None:
    opener = runs / "opener"
    opener.write_text('#!/bin/sh\nprintf "%s" "$1" > opened\n')
    opener.chmod(0o755)
    code = "import sys; from vlmlens.cli import main; sys.argv = ['vlmlens', *sys.argv[1:]]; main()"
    done = subprocess.run(
        [sys.executable, "-c", code, "report", "a", "--open"],
        cwd=runs, env={**os.environ, "BROWSER": str(opener)}, capture_output=True, text=True,
        timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert (runs / "opened").read_text() == (runs / "a" / "report.html").as_uri()


def test_runs_are_compared(runs: Path) -> None:
    done = vlmlens("compare", "a", "b", "--json", cwd=runs)
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert document["report"] == "compare.html"
    assert {finding["verdict"] for finding in document["findings"]} == {"differs"}
    assert (runs / "compare.html").exists()
    told = vlmlens(
        "compare", "a@llm.block.0/last", "b@llm.block.1/last", "--to", "l.html", cwd=runs
    )
    assert "differs" in told.stdout
    assert told.stdout.endswith("report  l.html\n")


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["report", "a", "--figures", "pdf"], "There is no format 'pdf' for figures."),
        (["report", "nowhere"], "holds no run"),
        (["compare", "a"], "only one run"),
        (["compare", "a", "nowhere"], "holds no run"),
    ],
)
def test_mistakes_are_said(runs: Path, args: list[str], said: str) -> None:
    done = vlmlens(*args, cwd=runs)
    assert done.returncode == 2
    assert said in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("command", ["report", "compare"])
def test_help_and_the_work_itself_are_light(runs: Path, command: str) -> None:
    code = (
        "import sys; from vlmlens.cli import main\n"
        "try: main()\nexcept SystemExit: pass\n"
        "heavy = {'torch', 'transformers', 'sklearn'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    for args in ([command, "--help"], [command, "a", "b"][: 3 if command == "compare" else 2]):
        done = subprocess.run(
            [sys.executable, "-c", code, *args], cwd=runs, capture_output=True, text=True,
            timeout=120, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
