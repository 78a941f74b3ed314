"""Results and samples that stay in their files say what those say that are read whole."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.unit._view_pages import EVIL, make_run, planted, planted_results

from vlmlens.errors import RunError
from vlmlens.report.files import to_json
from vlmlens.results import Result, Table
from vlmlens.runs import stored_tables
from vlmlens.runs.generated_texts import GeneratedTexts
from vlmlens.runs.result_files import read_results
from vlmlens.runs.stored_samples import StoredSamples, samples_in_place
from vlmlens.runs.stored_tables import StoredColumn, read_in_place
from vlmlens.samples import Sample

ODD = ['a\n    ],\n   "b": [', "]", '"', "\\", "", " ", "\u2028", "日本", EVIL, '": [\n']
CELLS = st.one_of(
    st.none(), st.booleans(), st.integers(-5, 5), st.floats(-1, 1), st.sampled_from(ODD)
)


@pytest.fixture
def any_size(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stored_tables, "_SMALL", 0)


def written(folder: Path, result: Result) -> Path:
    path = folder / "a.json"
    path.write_text(to_json(result), encoding="utf-8")
    return path


def columns_of(result: Result) -> list[dict[str, list[Any]]]:
    return [{name: list(cells) for name, cells in each.columns.items()} for each in result.tables]


@pytest.mark.usefixtures("any_size")
def test_any_table_is_the_same_read_in_place(tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("tables")
    names = st.one_of(st.text(max_size=4), st.sampled_from(ODD))

    @settings(max_examples=25, deadline=None)
    @given(st.data())
    def check(data: st.DataObject) -> None:
        rows = data.draw(st.integers(0, 6))
        table = st.dictionaries(names, st.lists(CELLS, min_size=rows, max_size=rows), max_size=3)
        tables = [Table(f"t{i}", data.draw(names), data.draw(table), ("k",)) for i in range(2)]
        path = written(folder, Result("a", data.draw(names), tables=tables))
        whole, found = Result.from_dict(json.loads(path.read_bytes())), read_in_place(path)
        assert columns_of(found) == columns_of(whole)
        assert found.title == whole.title
        for mine, theirs in zip(found.tables, whole.tables, strict=True):
            assert (mine.title, mine.keys, len(mine)) == (theirs.title, theirs.keys, len(theirs))
            start, stop = sorted(data.draw(st.tuples(st.integers(-7, 7), st.integers(-7, 7))))
            for name, cells in mine.columns.items():
                assert list(cells[start:stop]) == list(theirs.columns[name][start:stop])
                assert [cells[i] for i in range(rows)] == list(theirs.columns[name])
                if isinstance(cells, StoredColumn):
                    assert list(cells.first(2)) == list(theirs.columns[name][:2])

    check()


def test_a_small_result_and_one_of_another_form_are_read_whole(tmp_path: Path) -> None:
    small = written(tmp_path, Result("a", "A", tables=[Table("t", "T", {"x": [1, 2]})]))
    assert not isinstance(read_in_place(small).tables[0].columns["x"], StoredColumn)
    rows = [float(i) for i in range(9_000)]
    data = json.loads(to_json(Result("a", "A", tables=[Table("t", "T", {"x": rows})])))
    inline = {"name": "u", "title": "U", "columns": {"y": "[[0]]", "z": "[[7]]"}}
    for indent in (None, 2, 1):
        path = tmp_path / f"{indent}.json"
        text = json.dumps({**data, "tables": [*data["tables"], inline]}, indent=indent)
        path.write_text(text.replace('"[[0]]"', "[[0]]").replace('"[[7]]"', "[[7]]"))
        assert list(read_in_place(path).tables[0].columns["x"]) == rows


@pytest.mark.usefixtures("any_size")
def test_a_file_that_is_replaced_or_cut_does_not_mix_with_what_was_read(tmp_path: Path) -> None:
    path = written(tmp_path, Result("a", "A", tables=[Table("t", "T", {"x": list(range(100))})]))
    cells = read_in_place(path).tables[0].columns["x"]
    other = written(tmp_path / ".", Result("a", "A", tables=[Table("t", "T", {"x": ["no"] * 100})]))
    assert other == path
    assert isinstance(cells, StoredColumn)
    with pytest.raises(RunError, match="holds no result any more"):
        list(cells)
    path = written(tmp_path, Result("a", "A", tables=[Table("t", "T", {"x": list(range(100))})]))
    cells = read_in_place(path).tables[0].columns["x"]
    new = tmp_path / "new"
    new.write_text("{}")
    new.replace(path)
    assert list(cells) == list(range(100))
    path = written(tmp_path, Result("a", "A", tables=[Table("t", "T", {"x": list(range(100))})]))
    cells = read_in_place(path).tables[0].columns["x"]
    os.truncate(path, 80)
    with pytest.raises(RunError, match="shorter than it was"):
        cells[99]


def test_damaged_results_are_told_as_ever(tmp_path: Path) -> None:
    rows: list[float] = [float(i) for i in range(9_000)]
    text = to_json(Result("a", "A", tables=[Table("t", "T", {"x": rows})]))
    for damaged in (text[:-40], text.replace('"title"', '"titel"'), "[]", "{"):
        (tmp_path / "a.json").write_text(damaged)
        with pytest.raises(RunError, match=r"a\.json holds no result"):
            read_results(tmp_path, read=read_in_place)


def test_samples_in_place_are_the_samples(tmp_path: Path) -> None:
    samples, values = planted(tmp_path / "pictures", 150)
    samples[3] = Sample("odd\n\u2028", "\\\n", label="x", task=None)
    run = make_run(tmp_path / "run", samples, planted_results(samples, values))
    found = samples_in_place(run)
    assert isinstance(found, StoredSamples)
    assert found == run.samples == samples
    assert (found.ids, found.tasks) == (run.samples.ids, run.samples.tasks)
    assert found[60:140] == samples[60:140]
    assert found.get("s0077") == samples[77]
    assert [found.label_codes.values[c] for c in found.label_codes.codes] == [
        sample.label for sample in samples
    ]
    assert [each.id for each in found.take([5, 149])] == ["s0005", "s0149"]


def test_only_the_lines_of_a_sample_are_parsed(tmp_path: Path) -> None:
    samples = [Sample(f"s{i}", "?") for i in range(300)]
    run = make_run(tmp_path / "run", samples)
    path = run.path / "samples.jsonl"
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join([*lines[:200], b"{\n", *lines[201:]]))
    found = StoredSamples(path, run.sample_of, 300)
    assert found[299].id == "s299"
    with pytest.raises(RunError, match="line 201"):
        found[201]
    with pytest.raises(RunError, match="line 201"):
        _ = found.ids
    with pytest.raises(RunError, match="300 lines, and 7"):
        StoredSamples(path, run.sample_of, 7)


def test_the_last_text_of_a_sample_is_found_alone(tmp_path: Path) -> None:
    (tmp_path / "generated.jsonl").write_text(
        '{"id": "a\\"b", "text": "one", "token_ids": []}\n'
        '{"id": "b", "text": "a\\"b", "token_ids": []}\n'
        '{"id": "a\\"b", "text": "two", "token_ids": []}\n{"id": "a\\"b", "te'
    )
    texts = GeneratedTexts(tmp_path)
    assert texts.of('a"b') == texts.read()['a"b']["text"] == "two"
    assert texts.of("c") is None
