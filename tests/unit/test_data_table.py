"""The dataset `table`: columns, values, paths, prompts, and errors that name file and line."""

from __future__ import annotations

import datetime
import decimal
import json
import string
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from vlmlens.errors import DataError, DataNotFound, DuplicateSample, ManifestError
from vlmlens.samples import Sample
from vlmlens_plugins.data._cells import CellError, choices, text
from vlmlens_plugins.data._table_files import _text
from vlmlens_plugins.data.table import Table, TableOptions


def read(path: Path, *prompts: str, **options: Any) -> list[Sample]:
    return Table(str(path), TableOptions(**options)).samples(prompts)


def jsonl(folder: Path, *rows: dict[str, Any]) -> Path:
    path = folder / "data.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def text_file(folder: Path, text: str, name: str = "data.csv") -> Path:
    path = folder / name
    path.write_bytes(text.encode())
    return path


def parquet(folder: Path, **columns: Any) -> Path:
    pq.write_table(pa.table(columns), folder / "data.parquet")
    return folder / "data.parquet"


def test_a_full_row(tmp_path: Path) -> None:
    path = jsonl(
        tmp_path,
        {
            "id": 7,
            "image": "img/1.png",
            "prompt": " What colour? ",
            "label": "red",
            "choices": ["red", "blue"],
            "group": 3.0,
            "task": "colour",
            "weight": 1.5,
            "seen": True,
            "boxes": [[1, 2]],
            "note": None,
        },
    )
    assert read(path) == [
        Sample(
            id="7",
            prompt=" What colour? ",
            images=(str(tmp_path / "img/1.png"),),
            label="red",
            choices=("red", "blue"),
            group="3",
            task="colour",
            attributes={"weight": 1.5, "seen": True, "boxes": "[[1, 2]]", "note": None},
        )
    ]


def test_csv_tsv_and_parquet_say_the_same(tmp_path: Path) -> None:
    rows = [("a", "1.png", "Colour?", "3", "1|3"), ("b", "", 'Say "x",\ny', "", "")]
    quoted = [",".join('"' + cell.replace('"', '""') + '"' for cell in row) for row in rows]
    csv = text_file(tmp_path, "\ufeffid,image,prompt,label,choices\r\n" + "\r\n".join(quoted))
    semicolons = text_file(
        tmp_path,
        'id; image;prompt;label;choices\na;1.png;Colour?;3;1|3\nb;;"Say ""x"",\ny";;\n',
        "s.csv",
    )
    tsv = text_file(
        tmp_path,
        "id\timage\tprompt\tlabel\tchoices\na\t1.png\tColour?\t3\t[1, 3]\n\n"
        'b\t\t"Say ""x"",\ny"\t\t\n',
        "data.tsv",
    )
    table = parquet(
        tmp_path,
        id=["a", "b"],
        image=["1.png", None],
        prompt=["Colour?", rows[1][2]],
        label=[3.0, None],
        choices=[["1", "3"], None],
    )
    expected = [
        Sample("a", "Colour?", (str(tmp_path / "1.png"),), label="3", choices=("1", "3")),
        Sample("b", rows[1][2]),
    ]
    for path in (csv, semicolons, tsv, table):
        assert read(path) == expected, path


def test_parquet_attributes_keep_their_types(tmp_path: Path) -> None:
    path = parquet(
        tmp_path,
        prompt=["?"],
        day=[datetime.date(2024, 5, 1)],
        price=[decimal.Decimal("1.50")],
        n=[3],
        missing=[float("nan")],
        box=[{"x": 1}],
    )
    assert dict(read(path)[0].attributes) == {
        "day": "2024-05-01",
        "price": "1.50",
        "n": 3,
        "missing": None,
        "box": '{"x": 1}',
    }


def test_csv_attributes_are_text(tmp_path: Path) -> None:
    path = text_file(tmp_path, "prompt,weight\n?,3\n")
    assert dict(read(path)[0].attributes) == {"weight": "3"}


def test_rows_without_an_id_are_numbered(tmp_path: Path) -> None:
    path = text_file(
        tmp_path, "\n".join(['{"prompt": "?"}', "", '{"prompt": "?", "id": ""}']), "x.ndjson"
    )
    assert [sample.id for sample in read(path)] == ["row-000001", "row-000002"]


@pytest.mark.parametrize("given", [["a.png", "b/c.png"], '["a.png", "b/c.png"]'])
def test_several_images(tmp_path: Path, given: object) -> None:
    (sample,) = read(jsonl(tmp_path, {"prompt": "?", "images": given}))
    assert sample.images == (str(tmp_path / "a.png"), str(tmp_path / "b/c.png"))


def test_renamed_columns(tmp_path: Path) -> None:
    path = jsonl(tmp_path, {"question": "Colour?", "prompt": "kept aside", "answer": 3})
    (sample,) = read(path, columns={"prompt": "question", "label": "answer"})
    assert (sample.prompt, sample.label) == ("Colour?", "3")
    assert dict(sample.attributes) == {"prompt": "kept aside"}
    with pytest.raises(ManifestError, match=r"no column 'qestion' .* Did you mean question\?"):
        read(path, columns={"prompt": "qestion"})
    with pytest.raises(ManifestError, match="There are question, prompt, answer"):
        read(path, columns={"prompt": "zzz"})


def test_user_prompts_replace_the_tables_and_nothing_else(tmp_path: Path) -> None:
    row = {"id": "a", "prompt": "Colour?", "label": "red", "choices": "red|blue", "task": "colour"}
    path = jsonl(tmp_path, row, {"id": "b", "prompt": ""})
    first, second = read(path, "Describe.")
    assert (first.id, first.prompt, first.label, first.choices) == (
        "a",
        "Describe.",
        "red",
        ("red", "blue"),
    )
    assert (first.task, second.prompt) == ("colour", "Describe.")
    product = read(path, "One?", "Two?")
    assert [(s.id, s.task, s.group) for s in product] == [
        ("a#0", "colour: One?", "a"),
        ("a#1", "colour: Two?", "a"),
        ("b#0", "One?", "b"),
        ("b#1", "Two?", "b"),
    ]


def test_rows_of_one_image_share_its_group_in_a_product(tmp_path: Path) -> None:
    path = jsonl(tmp_path, {"image": "1.png"}, {"image": "1.png"}, {"image": "1.png", "group": "g"})
    groups = [sample.group for sample in read(path, "One?", "Two?")]
    assert groups == [str(tmp_path / "1.png")] * 4 + ["g"] * 2


@pytest.mark.parametrize("given", ["../x.png", "img/../../x.png", "/etc/hostname"])
def test_images_outside_the_folder(tmp_path: Path, given: str) -> None:
    path = jsonl(tmp_path, {"prompt": "?"}, {"prompt": "?", "image": given})
    with pytest.raises(DataError, match=r"line 2: .* is outside the folder") as caught:
        read(path)
    assert "options.dataset.allow_outside=true" in caught.value.hint
    assert read(path, allow_outside=True)[1].images == (str(tmp_path / given),)


def test_a_link_out_of_the_folder(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "x.png").symlink_to(tmp_path / "secret.png")
    path = jsonl(tmp_path / "data", {"prompt": "?", "image": "x.png"})
    with pytest.raises(DataError, match="is outside the folder"):
        read(path)


def test_a_link_to_the_folder_is_no_way_out(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    jsonl(tmp_path / "data", {"prompt": "?", "image": "x.png"})
    (tmp_path / "link").symlink_to(tmp_path / "data")
    assert read(tmp_path / "link" / "data.jsonl")[0].images == (str(tmp_path / "link/x.png"),)


ROW_ERRORS: list[tuple[dict[str, Any], str]] = [
    ({"prompt": ""}, "column 'prompt': it is empty"),
    ({"prompt": " \n"}, "column 'prompt': it is empty"),
    ({"prompt": 3}, "column 'prompt': expected text, got int 3"),
    ({"id": "x"}, "column 'prompt': expected text, got nothing"),
    ({"prompt": "?", "label": ["a"]}, r"column 'label': .*got list \['a'\]"),
    ({"prompt": "?", "label": "c", "choices": ["a", "b"]}, "'c' is not one of the choices"),
    ({"prompt": "?", "choices": "a|a"}, "two or more different answers"),
    ({"prompt": "?", "choices": "a|"}, "two or more different answers"),
    ({"prompt": "?", "choices": "a"}, "two or more different answers"),
    ({"prompt": "?", "choices": "[1, 2"}, "expected a JSON list"),
    ({"prompt": "?", "choices": 3}, "expected a list or texts"),
    ({"prompt": "?", "image": 3}, "expected a path, got int 3"),
    ({"prompt": "?", "image": "https://x.org/a.png"}, "is an address"),
    ({"prompt": "?", "image": "a\0b"}, "expected a path"),
    ({"prompt": "?", "image": {"bytes": "x" * 99}}, r"expected a path, got dict .*\.\.\."),
    ({"prompt": "?", "images": "a.png"}, "expected a JSON list"),
    ({"prompt": "?", "images": '{"a": 1}'}, "expected a JSON list"),
    ({"prompt": "?", "images": ["a.png", None]}, "image 2 of 2 is missing"),
    ({"prompt": "?", "image": "QUJD" * 2000}, "8000 characters .'QUJDQUJD.* no image in base64"),
    ({"prompt": "?", "image": "a.png", "images": ["b.png"]}, "in the column 'image' too"),
    ({"prompt": "?", "weight": float("inf")}, "column 'weight': expected a finite number"),
    ({"prompt": "?", "label": float("inf")}, "column 'label': expected a finite number"),
]


@pytest.mark.parametrize(("row", "message"), ROW_ERRORS)
def test_wrong_cells_name_file_line_and_column(
    tmp_path: Path, row: dict[str, Any], message: str
) -> None:
    path = jsonl(tmp_path, {"prompt": "fine"}, row)
    with pytest.raises(ManifestError, match=rf"data\.jsonl, line 2: .*{message}") as caught:
        read(path)
    assert caught.value.subject == f"{path}, line 2"


FILE_ERRORS = [
    ("x.jsonl", '{"prompt": "?"}\n\n{"prompt": ?}', "line 3: not JSON: Expecting value, column 12"),
    ("x.jsonl", '{"prompt": "?"}\n"text"', "line 2: expected an object"),
    ("x.jsonl", '{"prompt": "\\ud83d"}', "line 1: half a surrogate pair"),
    ("x.jsonl", "[" * 200_000, "line 1: not JSON"),
    ("x.jsonl", '{"n": ' + "9" * 5000 + "}", "line 1: not JSON"),
    ("x.csv", 'prompt,id\n"a\nb",1\nc\n', "line 4: 1 fields, but the header has 2"),
    ("x.csv", 'prompt\n"open', "line 2: unexpected end of data"),
    ("x.csv", "prompt,id,id\n?,1,2\n", "header: the column 'id' appears twice"),
    ("x.csv", "promt\n?\n", "the column 'promt' looks like 'prompt'"),
    ("x.csv", "prompt,Lable\n?,a\n", r"'Lable' looks like 'label'.*columns\.label=Lable"),
    ("x.csv", "id,label\n1,a\n", "no column 'prompt', and no --prompt is given"),
    ("x.parquet", "PAR1 nothing", "not a Parquet file"),
]


@pytest.mark.parametrize(("name", "text", "message"), FILE_ERRORS)
def test_wrong_files(tmp_path: Path, name: str, text: str, message: str) -> None:
    with pytest.raises(ManifestError, match=rf"x\.\w+.*{message}"):
        read(text_file(tmp_path, text, name))


def test_more_wrong_files(tmp_path: Path) -> None:
    (tmp_path / "latin.csv").write_bytes("prompt\nfine\ngr\u00fcn\n".encode("latin-1"))
    with pytest.raises(ManifestError, match=r"line 3: not UTF-8 text. Save it as UTF-8."):
        read(tmp_path / "latin.csv")
    with pytest.raises(DataNotFound, match="has no rows"):
        read(text_file(tmp_path, "prompt\n"))
    with pytest.raises(DataNotFound, match=r"is not a table. Tables end in .csv, .json"):
        read(text_file(tmp_path, "", "x.xls"))
    with pytest.raises(ManifestError, match=r"x.xlsx: not an Excel file"):
        read(text_file(tmp_path, "", "x.xlsx"))
    with pytest.raises(DataNotFound, match=r"Did you mean data.csv"):
        read(tmp_path / "date.csv")
    with pytest.raises(ManifestError, match=r"bytes .* cannot be an attribute"):
        read(parquet(tmp_path, prompt=["?"], blob=[b"x"]))
    with pytest.raises(DuplicateSample, match="'a'"):
        read(jsonl(tmp_path, {"id": "a", "prompt": "?"}, {"id": "a", "prompt": "?"}))


def test_unrelated_columns_are_attributes(tmp_path: Path) -> None:
    path = text_file(tmp_path, "prompt,image,images_seen,label_2,box\n?,,1,2,3\n")
    assert dict(read(path)[0].attributes) == {"images_seen": "1", "label_2": "2", "box": "3"}


def test_reads(tmp_path: Path) -> None:
    for name in ("a.JSONL", "a.csv", "a.txt"):
        text_file(tmp_path, "", name)
    (tmp_path / "folder.csv").mkdir()
    names = ("a.JSONL", "a.csv", "a.txt", "folder.csv", "missing.csv")
    claims = [Table.reads(str(tmp_path / name)) for name in names]
    assert claims == [True, True, False, False, False]


WORD = st.text(string.ascii_letters + "é ,;\"'\n|#", min_size=1, max_size=8).filter(
    lambda word: word == word.strip() and "\n" not in word
)
SAMPLE = st.fixed_dictionaries(
    {"prompt": WORD},
    optional={
        "label": st.none() | WORD,
        "task": WORD,
        "score": st.none() | st.integers(-9, 9) | st.floats(-9, 9) | st.booleans(),
    },
)


@settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
    max_examples=40,
)
@given(st.lists(SAMPLE, min_size=1, max_size=4))
def test_what_is_written_is_read(tmp_path: Path, rows: list[dict[str, Any]]) -> None:
    for sample, row in zip(read(jsonl(tmp_path, *rows)), rows, strict=True):
        assert sample.prompt == row["prompt"]
        assert (sample.label, sample.task) == (row.get("label"), row.get("task"))
        assert sample.attributes.get("score") == row.get("score")


@settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
    max_examples=60,
)
@given(st.binary(max_size=60), st.sampled_from(["jsonl", "csv", "tsv", "parquet"]))
def test_any_bytes_are_samples_or_a_data_error(tmp_path: Path, data: bytes, kind: str) -> None:
    path = tmp_path / f"data.{kind}"
    path.write_bytes(data)
    try:
        samples = read(path, "Colour?")
    except DataError as caught:
        error = caught
    else:
        assert samples
        return
    assert error.hint


@given(st.recursive(st.none() | st.text() | st.integers() | st.floats(), st.lists))
def test_choices_are_two_different_answers_or_an_error(value: object) -> None:
    try:
        answers = choices(value)
    except CellError:
        return
    assert answers == () or len(set(answers)) == len(answers) >= 2


def test_text_of_cells() -> None:
    values = (3, 3.0, 0.5, float("nan"), True, " red ", " ", None)
    assert [text(value) for value in values] == ["3", "3", "0.5", None, "true", "red", None, None]


def test_a_surrogate_pair_is_text(tmp_path: Path) -> None:
    path = text_file(tmp_path, '{"prompt": "\\ud83d\\ude00?"}', "x.jsonl")
    assert read(path)[0].prompt == "\U0001f600?"


def test_a_table_that_may_not_be_read(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    with pytest.raises(ManifestError, match="cannot be read: Is a directory"):
        _text(tmp_path / "folder")


@pytest.mark.parametrize("text", ["π", "Größe", "問題"])
def test_long_text_beyond_ascii_is_no_image(tmp_path: Path, text: str) -> None:
    """Base64 is looked for in cells of 64 characters and more; other letters are no error."""
    asked = f"{text} " + "is asked here, at such length that it could be an image? " * 2
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps({"prompt": asked}) + "\n" + json.dumps({"prompt": "short"}))
    assert [sample.prompt for sample in read(path)] == [asked, "short"]
