"""The command line as users start it: real processes, real plugins, the demo model."""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests._program import vlmlens

from tests import _program
from vlmlens import Run

COMMANDS = (
    "look",
    "run",
    "extract",
    "analyze",
    "tune",
    "report",
    "compare",
    "sites",
    "show",
    "export",
    "import",
    "merge",
    "verify",
    "plugins",
    "new",
    "schema",
    "estimate",
    "doctor",
    "version",
)
SMALL = (
    "--limit",
    "20",
    "--sites",
    "llm.block.*/last",
    "--sites",
    "vision.block.1/image",
    "--sites",
    "vision.block.0/image.mean",
)


def document(done: subprocess.CompletedProcess[str]) -> Any:
    """The one JSON document on stdout."""
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any, str]:
    """One small run: its folder, its JSON document and what it said on stderr."""
    cwd = tmp_path_factory.mktemp("cli")
    done = vlmlens("run", *SMALL, "--analysis", "logit-lens", "--out", "small", "--json", cwd=cwd)
    return cwd / "small", document(done), done.stderr


def test_run_gives_findings_and_a_report(made: tuple[Path, Any, str]) -> None:
    path, data, said = made
    assert set(data) == {"run", "report", "overview", "findings", "summary"}
    assert {finding["analysis"] for finding in data["findings"]} == {"logit-lens"}
    assert all(finding["text"] for finding in data["findings"])
    assert data["summary"]["samples"] == 20
    assert (path.parent / data["report"]).read_text().lstrip().lower().startswith("<!doctype html")
    assert "20 samples" in said
    assert "extract (20)" in said


def test_show_run(made: tuple[Path, Any, str]) -> None:
    path, *_ = made
    data = document(vlmlens("show", str(path), "--json", cwd=path.parent))
    columns = {column["name"]: column for column in data["columns"]}
    assert (data["state"], data["samples"]) == ("finished", 20)
    assert list(data["results"]) == ["logit-lens"]
    assert columns["vision.block.1/image"]["ragged"] is True
    assert columns["vision.block.0/image.mean"]["ragged"] is False
    text = vlmlens("show", str(path), cwd=path.parent).stdout
    assert text.startswith("demo on demo:scenes: 4 images, 20 questions, ")
    assert f"stored  {len(columns)} columns: llm.block.*/last (" in text
    assert f"numbers  vlmlens show {path} logit-lens" in text
    listed = vlmlens("show", str(path), "--columns", cwd=path.parent).stdout
    assert all(f"{name} " in listed for name in columns)


Called = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def call(made: tuple[Path, Any, str], monkeypatch: pytest.MonkeyPatch) -> Called:
    """Calls the program in the folder of the small run, where the test is, too."""
    monkeypatch.chdir(made[0].parent)
    return vlmlens


def test_show_an_analysis_and_its_tables(call: Called) -> None:
    result = Run("small").results["logit-lens"]
    text = call("show", "small", "logit-lens").stdout
    assert result.findings[0].text[:60] in text
    assert result.tables[0].title not in text
    with_tables = call("show", "small", "logit-lens", "--tables").stdout
    assert all(table.title in with_tables for table in result.tables)
    assert "all rows  small/results/*.parquet" in with_tables
    data = json.loads(call("show", "small", "logit-lens", "--json").stdout)
    assert [found["text"] for found in data["findings"]] == [f.text for f in result.findings]
    wrong = call("show", "small", "logit-lense")
    assert wrong.returncode == 2
    assert "Did you mean logit-lens?" in wrong.stderr


def test_show_generated_texts(call: Called) -> None:
    none = call("show", "small", "--generated")
    assert none.returncode == 2
    assert "--generate N" in none.stderr
    flags = ("--limit", "2", "--sites", "llm.norm/last", "--generate", "3", "--out", "spoken")
    assert call("extract", *flags, "-q").returncode == 0
    texts = json.loads(call("show", "spoken", "--generated", "--json").stdout)["generated"]
    assert len(texts) == 2
    shown = call("show", "spoken", "--generated").stdout
    assert all(sample in shown and text.strip() in shown for sample, text in texts.items())
    assert "2 generated; --generated" in call("show", "spoken").stdout


def test_analyze_says_as_much_as_is_asked(call: Called) -> None:
    command = ("analyze", "small", "--analysis", "logit-lens")
    lines = call(*command).stdout.splitlines()
    assert lines[0].startswith("demo on demo:scenes: 4 images, 20 questions, ")
    assert lines[-3] == "report   small/report.html"
    assert lines[-1] == "numbers  vlmlens show small logit-lens"
    assert len(lines) <= 25
    assert call(*command, "-q").stdout == "small\n"
    everything = call(*command, "-v").stdout
    assert all(table.title in everything for table in Run("small").results["logit-lens"].tables)
    assert everything.endswith("\n".join(lines[-3:]) + "\n")


def test_show_column_is_what_the_run_holds(made: tuple[Path, Any, str]) -> None:
    import vlmlens as package

    path, *_ = made
    expected = package.Run(path).activations["llm.block.0/last"]
    data = document(vlmlens("show", str(path), "llm.block.0/all[-1]", "--json", cwd=path.parent))
    assert (data["name"], data["dtype"]) == ("llm.block.0/last", "float32")
    assert data["shape"] == list(expected.shape)
    for i, row in enumerate(data["first"]):
        assert row["values"] == [pytest.approx(expected[i, :6].tolist())]
    text = vlmlens("show", str(path), "llm.block.0/last", cwd=path.parent).stdout
    assert f"float32 {list(expected.shape)}" in text
    assert f"{expected[0, 0]:.5g}" in text


def test_show_one_sample_and_a_bare_store(made: tuple[Path, Any, str]) -> None:
    import vlmlens as package

    path, *_ = made
    sample = package.Run(path).samples[7].id
    name = "vision.block.1/image"
    shown = vlmlens("show", "small/columns", name, "--sample", sample, "--json", cwd=path.parent)
    data = document(shown)
    assert data["shape"] == [20, None, data["width"]]
    assert [row["sample"] for row in data["first"]] == [sample]
    expected = package.Run(path).activations[name][7]
    assert data["first"][0]["shape"] == list(expected.shape)
    assert data["first"][0]["values"][0] == pytest.approx(expected[0, :6].tolist())


def test_a_second_run_into_the_folder_is_refused_and_resume_repeats_nothing(
    made: tuple[Path, Any, str],
) -> None:
    path, *_ = made
    arguments = ("extract", *SMALL, "--out", "small")
    refused = vlmlens(*arguments, "--json", cwd=path.parent)
    assert refused.returncode == 2
    assert json.loads(refused.stdout)["error"]["type"] == "RunExists"
    assert "--resume" in refused.stderr
    resumed = vlmlens(*arguments, "--resume", cwd=path.parent)
    assert resumed.returncode == 0, resumed.stderr
    assert "already stored" in resumed.stderr


def test_analyze_later(made: tuple[Path, Any, str]) -> None:
    path, first, _ = made
    done = vlmlens(
        "analyze", "small", "--analysis", "logit-lens", "--set", "analysis.logit-lens.norm=false",
        "--fresh", "--json", cwd=path.parent,
    )  # fmt: skip
    data = document(done)
    assert data["run"] == "small"
    assert data["findings"] != first["findings"]
    stored = json.loads((path / "results" / "logit-lens.json").read_text())
    assert stored["options"]["norm"] is False


def test_dry_run_and_estimate_write_nothing(tmp_path: Path) -> None:
    flags = (*SMALL, "--analysis", "logit-lens", "--json")
    plan = document(vlmlens("run", *flags, "--dry-run", cwd=tmp_path))
    assert plan["samples"] == 20
    assert plan["analyses"] == ["logit-lens"]
    assert "vision.block.1/image" in plan["columns"]
    estimate = document(vlmlens("estimate", *flags, cwd=tmp_path))
    assert estimate == {**plan["estimate"], "free_bytes": estimate["free_bytes"]}
    assert estimate["fits"] is True
    timed = document(vlmlens("estimate", *flags, "--time", "--batch-size", "2", cwd=tmp_path))
    assert 0 < timed["time"]["seconds_low"] < timed["time"]["seconds_high"]
    assert list(tmp_path.iterdir()) == []


def test_ctrl_c_says_how_to_go_on_and_that_works(tmp_path: Path) -> None:
    samples = 120
    command = ("extract", "--limit", samples, "--batch-size", "2")
    with _program.started(*command, cwd=tmp_path) as program:
        program.until(lambda: "\nextract" in program.said()[1])
        time.sleep(0.3)
        os.kill(program.pid, signal.SIGINT)
        status, rest = program.wait(60), program.said()[1]
    assert status == 130, rest
    assert "Traceback" not in rest
    (way_on,) = [line for line in rest.splitlines() if "--resume" in line]
    arguments = shlex.split(way_on.partition("vlmlens ")[2])
    resumed = vlmlens(*arguments, "--json", cwd=tmp_path)
    assert document(resumed)["samples"] == samples


def test_sites(tmp_path: Path) -> None:
    named = document(vlmlens("sites", "--json", cwd=tmp_path))["sites"]
    assert {"projector", "llm.block.0", "vision.block.0", "llm.norm"} <= {x["site"] for x in named}
    (block,) = [site for site in named if site["site"] == "llm.block.0"]
    assert (block["class"], block["axis"]) == ("LlamaDecoderLayer", "llm")
    assert isinstance(block["width"], int)
    every = document(vlmlens("sites", "--all", "--json", cwd=tmp_path))["sites"]
    assert len(every) > 3 * len(named)
    one = vlmlens("sites", "llm.block.-1.mlp", cwd=tmp_path)
    assert "LlamaMLP" in one.stdout
    wrong = vlmlens("sites", "llm.blok.1", cwd=tmp_path)
    assert wrong.returncode == 2
    assert "llm.block.1" in wrong.stderr


def test_doctor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_secret_value")
    done = vlmlens("doctor", "--json", cwd=tmp_path)
    data = document(done)
    assert data["healthy"] is True
    checks = {check["name"]: check for check in data["checks"]}
    assert checks["torch"]["state"] == checks["lmdb"]["state"] == "ok"
    assert checks["network"]["detail"] == "offline (HF_HUB_OFFLINE)"
    assert checks["token"]["detail"] == "set"
    assert "hf_secret_value" not in done.stdout + done.stderr
    assert "vlmlens can run." in vlmlens("doctor", cwd=tmp_path).stdout


def test_the_console_script() -> None:
    script = Path(sys.executable).with_name("vlmlens")
    done = subprocess.run([script, "version"], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("vlmlens ")
