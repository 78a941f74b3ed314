"""Runs whose files hold other kinds of values than vlmlens writes: pages say so, or do without."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tests.unit._view_pages import EVIL, client_of, make_run, page_of

from vlmlens import Sample
from vlmlens.results import Finding, Glance, Result, Table
from vlmlens.runs.run import Run

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
