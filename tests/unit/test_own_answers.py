"""Answers from elsewhere are joined by id; a gap, or an id that is not there, is one error."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tests._answered import questions

from vlmlens.errors import DataError, DataNotFound, SpecError, VlmlensError
from vlmlens.samples import Sample

ASKED = [Sample(f"popular/{i}", "Is it?", label="yes", choices=("yes", "no")) for i in range(1, 4)]
ROWS: list[dict[str, Any]] = [
    {"id": "popular/3", "text": "Yes, a dog."},
    {"id": "popular/1", "text": ""},
    {"id": "popular/2", "text": "no"},
]
JOINED = ["", "no", "Yes, a dog."]


def written(path: Path, rows: list[dict[str, Any]] = ROWS) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(path)


def joined(path: str, **options: Any) -> list[Any]:
    samples = questions(ASKED, answers=path, **options)
    assert [sample.id for sample in samples] == [sample.id for sample in ASKED]
    return [sample.attributes["answer"] for sample in samples]


def parquet(path: Path) -> str:
    import pyarrow
    from pyarrow.parquet import write_table

    write_table(pyarrow.Table.from_pylist(ROWS), path)
    return str(path)


def test_answers_in_any_order_and_form_reach_their_questions(tmp_path: Path) -> None:
    assert joined(written(tmp_path / "a.jsonl")) == JOINED
    listed = tmp_path / "a.json"
    listed.write_text(json.dumps(ROWS))
    assert joined(str(listed)) == JOINED
    comma = tmp_path / "a.csv"
    comma.write_text('id,text\npopular/3,"Yes, a dog."\npopular/1,\npopular/2,no\n')
    assert joined(str(comma)) == JOINED
    assert joined(parquet(tmp_path / "a.parquet")) == JOINED


def test_columns_of_other_tools_are_known(tmp_path: Path) -> None:
    rows = [{"question_id": row["id"], "prompt": "?", "answer": row["text"]} for row in ROWS]
    assert joined(written(tmp_path / "a.jsonl", rows)) == JOINED
    numbers = [Sample(str(i), "How many?", label="2") for i in (1, 2)]
    rows = [{"index": 2, "prediction": 1995.0}, {"index": 1, "prediction": 2}]
    samples = questions(numbers, answers=written(tmp_path / "b.jsonl", rows))
    assert [sample.attributes["answer"] for sample in samples] == ["2", "1995"]


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        (ROWS[:2], r"1 question without an answer \(the first: 'popular/2'\)"),
        ([*ROWS, {"id": "popular/4", "text": "no"}], r"1 answer to unknown ids.*'popular/4'"),
        (
            [{**row, "id": row["id"].partition("/")[2]} for row in ROWS],
            r"3 questions without an answer.*3 answers to unknown ids \(the first: '3'\)",
        ),
        ([*ROWS, ROWS[0]], r"line 4: the id 'popular/3' is given twice"),
        ([{"id": "", "text": "yes"}], r"line 1: the id '' is empty"),
        ([{"text": "yes"}], r"no column of ids: expected one of id,.*found text"),
        ([{"id": "popular/1", "said": "yes"}], r"no column of texts.*found id, said"),
        ([{**ROWS[0], "text": None}], r"expected text in the column 'text', got 'None'"),
        ([{**ROWS[0], "text": ["yes"]}], r"expected text in the column 'text', got"),
        ([{**ROWS[0], "text": True}], r"expected text in the column 'text', got 'True'"),
        ([{**ROWS[0], "text": float("nan")}], r"expected text in the column 'text', got 'nan'"),
    ],
)
def test_what_does_not_match_is_one_error(
    rows: list[dict[str, Any]], said: str, tmp_path: Path
) -> None:
    with pytest.raises(DataError, match=said):
        joined(written(tmp_path / "a.jsonl", rows))


def test_no_file_and_no_table_are_errors(tmp_path: Path) -> None:
    with pytest.raises(DataNotFound, match="There is no file of answers"):
        joined(str(tmp_path / "none.jsonl"))
    with pytest.raises(DataNotFound, match="There is no file of answers"):
        joined(str(tmp_path))
    text = tmp_path / "a.txt"
    text.write_text("yes\nno\n")
    with pytest.raises(DataError, match="in no table"):
        joined(str(text))
    broken = tmp_path / "b.jsonl"
    broken.write_text('{"id": "popular/1", "text": "ye')
    with pytest.raises(VlmlensError, match="line 1"):
        joined(str(broken))
    empty = tmp_path / "c.jsonl"
    empty.write_text("")
    with pytest.raises(VlmlensError):
        joined(str(empty))


def test_answers_are_not_those_to_other_prompts(tmp_path: Path) -> None:
    path = written(tmp_path / "a.jsonl")
    with pytest.raises(SpecError, match=r"not to --prompt"):
        questions(ASKED, prompts=["Is it there?"], answers=path)


def test_every_sample_says_its_set_edition_style_and_size() -> None:
    (first, *_) = questions(ASKED, prompt="short")
    assert first.prompt == "Is it?\nOne word."
    known = {"benchmark": "small-set", "edition": "the only one; memory"}
    assert dict(first.attributes) == {**known, "prompt_style": "short", "questions": "3"}
    (own, *_) = questions(ASKED, prompts=["There?"])
    assert (own.prompt, own.attributes["prompt_style"]) == ("There?", "own")
