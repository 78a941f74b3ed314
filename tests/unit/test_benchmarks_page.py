"""docs/benchmarks.md: its example runs, and says what a user would get."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from PIL import Image
from tests._answered import row

import vlmlens
from vlmlens.errors import SpecError
from vlmlens_plugins.analysis.benchmark.options import BenchmarkScoreOptions
from vlmlens_plugins.benchmarks import BenchmarkOptions
from vlmlens_plugins.benchmarks import benchmark as room
from vlmlens_plugins.benchmarks.manifests import POPE

PAGE = (Path(__file__).parents[2] / "docs" / "benchmarks.md").read_text(encoding="utf-8")


@pytest.fixture
def source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.chdir(tmp_path)
    (code,) = re.findall(r"cat > mine\.py <<'END'\n(.*?)^END$", PAGE, re.DOTALL | re.MULTILINE)
    Path("mine.py").write_text(code)
    rows = [
        {
            "id": f"{i}/{name}",
            "image": f"{i}.png",
            "question": f"Is there a {name}?",
            "object": name,
            "answer": "yes" if (i + k) % 3 else "no",
        }
        for i in range(12)
        for k, name in enumerate(("cup", "dog"))
    ]
    for i in range(12):
        Image.new("RGB", (8, 8)).save(f"{i}.png")
    Path("questions.jsonl").write_text("".join(json.dumps(each) + "\n" for each in rows))
    said = [{"id": each["id"], "text": each["answer"].title() + "."} for each in rows]
    Path("answers.jsonl").write_text("".join(json.dumps(each) + "\n" for each in said))
    return "mine.py:Mine:questions.jsonl"


def test_the_benchmark_of_the_page_is_scored(source: str) -> None:
    options = {"dataset": {"answers": "answers.jsonl"}}
    run = vlmlens.run(data=source, analysis="benchmark", out="runs/mine", options=options)
    table = run.results["benchmark"].table("benchmark-scores")
    assert row(table, metric="f1")["value"] == 100
    assert run.samples[0].prompt == "Is there a cup? Please answer yes or no."
    assert run.samples[0].attributes["benchmark"] == "mine.py:Mine"
    again = {"benchmark:twice": {"card": "mine.py:Mine", "draws": 200}}
    (found,) = vlmlens.analyze("runs/mine", again).values()
    assert row(found.table("benchmark-scores"), metric="f1")["value"] == 100


def test_a_run_names_no_code(source: str, monkeypatch: pytest.MonkeyPatch) -> None:
    options = {"dataset": {"answers": "answers.jsonl"}}
    vlmlens.run(data=source, analysis="benchmark", out="runs/mine", options=options)
    monkeypatch.setattr(room, "_read", {})  # as in another process
    with pytest.raises(SpecError, match=r"'mine.py:Mine' installed.*card=FILE.py:Class"):
        vlmlens.analyze("runs/mine", {"benchmark:twice": {}})


def test_the_options_of_the_page_exist() -> None:
    names = set(re.findall(r"analysis\.benchmark(?::\w+)?\.(\w+)=", PAGE))
    assert names <= set(BenchmarkScoreOptions.model_fields)
    of_data = set(re.findall(r"options\.dataset\.([a-z_]+)=", PAGE))
    assert of_data <= set(BenchmarkOptions.model_fields)
    listed = re.findall(
        r"^\| `(\w+)`(?:, `(\w+)`)? \|", PAGE.partition("## Where")[0], re.MULTILINE
    )
    assert {name for pair in listed for name in pair if name} <= set(BenchmarkOptions.model_fields)


def test_every_installed_set_is_on_the_page() -> None:
    from vlmlens_plugins.benchmarks import manifests

    kind = type(POPE)
    known = [each.name for each in vars(manifests).values() if isinstance(each, kind)]
    for name in known:
        assert f"`{name}:`" in PAGE, name
        assert f"benchmarks/{name}.md" in PAGE, name
