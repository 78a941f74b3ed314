"""Results as files: complete, strict, in the folder and nowhere else."""

from __future__ import annotations

import json
import runpy
from pathlib import Path
from types import MappingProxyType
from xml.etree import ElementTree

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vlmlens._clean import clean
from vlmlens._files import write_bytes
from vlmlens.errors import RunError
from vlmlens.report import files
from vlmlens.report._text import one_line, slug
from vlmlens.report.figures import figure_svg
from vlmlens.results import Figure, Finding, Result, Series, Table, Verdict
from vlmlens.runs.result_files import read_results
from vlmlens.runs.run import Run
from vlmlens.spec.model import make_spec

EXAMPLES = runpy.run_path(str(Path(__file__).with_name("test_report_examples.py")))


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    results = EXAMPLES["examples"]()
    for result in results:
        files.write_result(result, tmp_path)
    again = {result.analysis: result for result in read_results(tmp_path)}
    assert list(again) == ["blind-test", "logit-lens", "probe"]
    for result in results:
        assert files.plain(again[result.analysis]) == files.plain(result)
        assert again[result.analysis].findings == list(result.findings)


def test_every_verdict_is_read_back(tmp_path: Path) -> None:
    found = [Finding(each.name, each) for each in Verdict]
    files.write_result(Result("a", "A", found), tmp_path)
    (again,) = read_results(tmp_path)
    assert [finding.verdict for finding in again.findings] == list(Verdict)


def test_names_of_files(tmp_path: Path) -> None:
    paths = files.write_result(EXAMPLES["probe"](), tmp_path)
    names = [path.name for path in paths]
    assert names == ["probe.json", "probe.layers.parquet", "probe.selectivity.svg"]
    assert sorted(names) == sorted(path.name for path in tmp_path.iterdir())


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf"), np.float32("nan")])
def test_json_is_strict(bad: float) -> None:
    result = Result("a", "A", [Finding("x", values={"p": bad})], options={"o": bad})
    data = json.loads(files.to_json(result), parse_constant=pytest.fail)
    assert data["findings"][0]["values"] == {"p": None}
    assert data["options"] == {"o": None}


def test_plain_data_of_what_results_hold() -> None:
    options = MappingProxyType({"k": np.int64(3), "s": {"b", "a"}, "p": Path("x"), "t": (1, True)})
    plain = files.plain(Result("a", "A", [Finding("x", Verdict.ENCODED)], options=options))
    assert plain["options"] == {"k": 3, "s": ["a", "b"], "p": "x", "t": [1, True]}
    assert plain["findings"][0]["verdict"] == "encoded"


def test_plain_data_refuses_what_json_has_not() -> None:
    with pytest.raises(TypeError, match="object"):
        files.plain({"x": object()})


@pytest.mark.parametrize("name", ["../../evil", "/etc/passwd", "a\\b", "..", "", "x\0y", "C:\\x"])
def test_no_name_leaves_the_folder(tmp_path: Path, name: str) -> None:
    folder = tmp_path / "run" / "results"
    table = Table(name, "T", {"a": [1]})
    figure = Figure(name, "F", "bar", ["a"], series=[Series("s", [1.0])])
    for path in files.write_result(Result(name, "R", tables=[table], figures=[figure]), folder):
        assert path.resolve().parent == folder.resolve()
        assert path.is_file()
    assert len(list(tmp_path.rglob("*.*"))) == 3


@given(st.text())
def test_slugs_are_plain_file_names(text: str) -> None:
    made = slug(text)
    assert made
    assert made.isascii()
    assert not set(made) & set("/\\.:\0 ")
    assert slug(made) == made
    assert len(made) <= 80


@given(st.text())
def test_clean_text_can_be_encoded_and_is_valid_xml(text: str) -> None:
    made = one_line(text)
    made.encode()
    assert not any(ord(character) < 32 or character == "\x7f" for character in made)
    assert clean(made) == made


def test_equal_names_of_files_are_numbered(tmp_path: Path) -> None:
    """Tasks give names to figures, and may have no letter that a file name keeps."""
    tables = [Table(name, "", {"x": [i]}) for i, name in enumerate(("a/b", "A b", "a-b-2"))]
    figures = [Figure(name, "", "bar", ["a"], series=[Series("s", [1.0])]) for name in "猫犬"]
    made = files.write_result(Result("r", "R", tables=tables, figures=figures), tmp_path)
    assert [path.name for path in made] == [
        "r.json", "r.a-b.parquet", "r.A-b-2.parquet", "r.a-b-2-2.parquet",
        "r.unnamed.svg", "r.unnamed-2.svg",
    ]  # fmt: skip
    assert {path.name for path in tmp_path.iterdir()} == {path.name for path in made}


def test_files_of_an_earlier_result_go(tmp_path: Path) -> None:
    (tmp_path / "probe-2.layers.parquet").write_bytes(b"another analysis")
    files.write_result(EXAMPLES["probe"](), tmp_path)
    files.write_result(Result("probe", "Probe"), tmp_path)
    left = sorted(path.name for path in tmp_path.iterdir())
    assert left == ["probe-2.layers.parquet", "probe.json"]


def test_a_figure_that_cannot_be_drawn_costs_no_numbers(tmp_path: Path) -> None:
    wrong = Figure("f", "F", "bar", ["a"], series=[Series("s", ["no number"])])  # type: ignore[list-item]
    result = Result("r", "R", [Finding("kept")], figures=[wrong])
    with pytest.raises(ValueError, match="no number"):
        files.write_result(result, tmp_path)
    assert read_results(tmp_path)[0].findings[0].text == "kept"


def test_a_failed_write_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    write_bytes(path, b"old")
    with pytest.raises(TypeError):
        write_bytes(path, "not bytes")  # type: ignore[arg-type]
    assert path.read_bytes() == b"old"
    assert [item.name for item in tmp_path.iterdir()] == ["x.json"]


@pytest.mark.parametrize("content", ["", "[]", "{", '{"analysis": "a"}', '"x"'])
def test_what_is_no_result_is_named(tmp_path: Path, content: str) -> None:
    (tmp_path / "probe.json").write_text(content)
    with pytest.raises(RunError, match=r"probe\.json"):
        read_results(tmp_path)


def test_parquet_types_follow_the_values(tmp_path: Path) -> None:
    columns = {
        "i": [1, None, np.int32(3)],
        "f": [1, 2.5, None],
        "b": [True, None, False],
        "s": ["a", None, "\ud800"],
        "mixed": ["a", 1, 2.5],
        "none": [None, None, None],
        "huge": [2**70, 1, 2],
        "nan": [float("nan"), 1.0, None],
    }
    files.write_result(Result("r", "R", tables=[Table("t", "T", columns)]), tmp_path)
    table = pq.read_table(tmp_path / "r.t.parquet")
    kinds = {name: str(table.schema.field(name).type) for name in columns}
    assert kinds == {
        "i": "int64", "f": "double", "b": "bool", "s": "string", "mixed": "string",
        "none": "string", "huge": "double", "nan": "double",
    }  # fmt: skip
    assert table["s"].to_pylist() == ["a", None, "\\ud800"]
    assert table["mixed"].to_pylist() == ["a", "1", "2.5"]
    assert table["nan"].null_count == 1
    assert isinstance(table, pa.Table)


def test_figures_are_the_same_bytes_each_time() -> None:
    for result in EXAMPLES["examples"]():
        for figure in result.figures:
            assert figure_svg(figure) == figure_svg(figure)


HOSTILE = "<script>alert(1)</script> $\\frac{$ _x & \x1b[31m \ud800 颜色"


@pytest.mark.parametrize("kind", ["line", "bar", "heatmap"])
def test_svg_files_hold_texts_as_text(kind: str) -> None:
    figure = Figure(
        "f", HOSTILE, kind, [HOSTILE, "_b"], HOSTILE, HOSTILE,  # type: ignore[arg-type]
        [
            Series("_" + HOSTILE, [0.5, None], [0.4, None], [0.6, None]),
            Series("_", [1, 1], dashed=True),
        ]
        if kind != "heatmap" else (),
        y=[HOSTILE], cells=[[0.5, None]] if kind == "heatmap" else (), texts=[["$a", "b"]],
    )  # fmt: skip
    root = ElementTree.fromstring(figure_svg(figure))
    names = {item.tag.rpartition("}")[2] for item in root.iter()}
    assert "script" not in names
    texts = " ".join("".join(item.itertext()) for item in root.iter() if item.tag.endswith("text"))
    whole = "".join(texts.split())  # a title may be in several lines
    assert "<script>alert(1)</script>$\\frac{$_x&\\x1b[31m" in whole
    if kind != "heatmap":
        assert "_<script>" in texts


@pytest.mark.parametrize("kind", ["line", "bar", "heatmap"])
def test_empty_figures_are_drawn_empty(kind: str) -> None:
    figure = Figure("f", "nothing", kind, [])  # type: ignore[arg-type]
    assert b"nothing" in figure_svg(figure)


def test_results_come_in_the_order_of_the_spec(tmp_path: Path) -> None:
    run = Run.create(tmp_path, make_spec({"analysis": ["probe", "blind-test", "gone"]}), {})
    for name in ("blind-test", "added", "probe", "overview"):
        files.write_result(Result(name, name), tmp_path / "results")
    assert list(run.results) == ["probe", "blind-test", "added"]
