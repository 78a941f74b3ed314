"""Runs whose files hold other kinds of values than vlmlens writes: pages say so, or do without."""

from __future__ import annotations

import asyncio
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from starlette.exceptions import HTTPException
from starlette.requests import Request
from tests.unit._view_pages import EVIL, client_of, make_run, page_of

from vlmlens import Sample
from vlmlens.results import Finding, Glance, Result, Table
from vlmlens.runs.run import Run
from vlmlens.view.live.uploads import body_of

PAGES = ("/runs/0", "/runs/0/samples", "/runs/0/analyses/said", "/beside")


@pytest.fixture
def run(tmp_path: Path) -> Run:
    samples = [Sample(f"s{number}", "What?", task="color") for number in range(3)]
    result = Result(
        "said",
        "What was said",
        findings=[Finding("It is red.", subject="color", values={"share": 0.5})],
        overview=[Glance("color", "it says", "red", value=0.5, curve=(0.1, None, 0.5))],
        tables=[Table("answers", "Answers", {"sample": ["s0", "s1"], "answer": ["a", "b"]})],
        warnings=["Few samples."],
    )
    made = make_run(tmp_path / "run", samples, [result])
    made.update(made=["results/said.json"])
    return made


def change(file: Path, where: list[str | int], value: Any) -> None:
    whole = json.loads(file.read_text())
    inner = whole
    for key in where[:-1]:
        inner = inner[key]
    inner[where[-1]] = value
    file.write_text(json.dumps(whole))


@pytest.mark.parametrize(
    ("name", "value"),
    [("warnings", 3), ("made", [["x"]]), ("model", "x"), ("samples", {}), ("started", 5),
     ("summary", {"seconds": {"extract": "long"}})],
)  # fmt: skip
def test_an_entry_of_another_kind_is_damage_that_a_page_tells(
    run: Run, name: str, value: Any
) -> None:
    change(run.path / "run.json", [name], value)
    found = client_of(Run(run.path, trust=True)).get("/runs/0", headers={"accept": "text/html"})
    assert found.status_code == 422
    assert "run.json" in found.text
    assert "is damaged" in found.text


def test_what_is_no_day_is_shown_as_it_is_and_nothing_as_if_it_were_missing(run: Run) -> None:
    change(run.path / "run.json", ["started"], f"yesterday{EVIL}")
    for name in ("warnings", "seeds", "columns", "summary", "model"):
        change(run.path / "run.json", [name], None)
    shown = page_of(client_of(run), "/runs/0")
    assert "yesterday" in shown
    assert EVIL not in shown
    assert page_of(client_of(run), "/runs/0/analyses/said")


@pytest.mark.parametrize(
    ("where", "value"),
    [
        (["analysis"], [1]), (["analysis"], "\ud800"), (["title"], 1), (["warnings", 0], {}),
        (["findings", 0, "subject"], 1.5), (["findings", 0, "values"], "x"),
        (["overview", 0, "question"], ["x"]), (["overview", 0, "curve"], ["x"]),
        (["tables", 0, "title"], None),
    ],
)  # fmt: skip
def test_a_result_of_another_form_is_damage_that_pages_tell(
    run: Run, where: list[str | int], value: Any
) -> None:
    change(run.path / "results" / "said.json", where, value)
    client = client_of(run)
    for page in PAGES[:3]:
        found = client.get(page, headers={"accept": "text/html"})
        assert found.status_code == 422, page
        assert "holds no result" in found.text


def test_rows_are_told_apart_by_columns_that_there_are(run: Run) -> None:
    change(run.path / "results" / "said.json", ["tables", 0, "keys"], ["sample", "gone"])
    assert run.results["said"].tables[0].about == ("sample",)
    client = client_of(run, run)
    for page in PAGES:
        assert page_of(client, page)


def test_a_run_that_is_removed_while_it_is_open_is_told(run: Run) -> None:
    client = client_of(run)
    assert page_of(client, "/runs/0")
    shutil.rmtree(run.path)
    for page in PAGES[:3]:
        found = client.get(page, headers={"accept": "text/html"})
        assert found.status_code == 422, page
        assert "open it where it is now" in found.text or "open the run where it is" in found.text


def test_runs_without_a_sample_in_common_are_told(run: Run, tmp_path: Path) -> None:
    other = make_run(tmp_path / "other", [Sample("t", "?")], list(run.results.values()))
    change(other.path / "results" / "said.json", ["tables", 0, "columns", "sample"], ["t", "u"])
    assert "have no sample in common" in page_of(client_of(run, other), "/beside")


def test_of_a_table_of_very_many_columns_the_first_are_shown(tmp_path: Path) -> None:
    columns = {"sample": ["s"], **{f"c{number}": [number] for number in range(5_000)}}
    result = Result("said", "Said", tables=[Table("wide", "Wide", columns)])
    client = client_of(make_run(tmp_path / "run", [Sample("s", "?")], [result]))
    menu = page_of(client, "/runs/0/samples")
    assert "said/wide/c1999" in menu
    assert "said/wide/c2000" not in menu
    for page in ("/runs/0/analyses/said", "/runs/0/samples/0"):
        shown = page_of(client, page)
        assert "c998" in shown
        assert "c1001" not in shown
    assert "the first 1,000 of 5,001 columns" in page_of(client, "/runs/0/analyses/said")
    assert client.get("/runs/0/analyses/said/tables/0?sort=1000").status_code == 404


def test_an_upload_that_breaks_off_is_no_failure_of_the_app() -> None:
    async def receive() -> dict[str, str]:
        return {"type": "http.disconnect"}

    request = Request({"type": "http", "method": "POST", "headers": []}, receive)
    with pytest.raises(HTTPException) as found:
        asyncio.run(body_of(request, 100))
    assert found.value.status_code == 400


def test_runs_of_one_name_are_told_apart(run: Run, tmp_path: Path) -> None:
    other = make_run(tmp_path / "other" / "run", [Sample("t", "?")])
    shown = page_of(client_of(run, other), "/runs/0")
    assert '<p class="group">run (0)</p>' in shown
    assert ">run (1)</a>" in shown
