"""Forms of published data that the dataset `table` reads, and what it says of columns."""

from __future__ import annotations

import base64
import gzip
import io
import json
import os
import time
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from vlmlens.errors import DataError, DataNotFound, DuplicateSample, ManifestError
from vlmlens.samples import Sample
from vlmlens_plugins.data._answers import Answers
from vlmlens_plugins.data.table import Table, TableOptions


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VLMLENS_CACHE", str(tmp_path / "cache"))


def read(path: Path, *prompts: str, **options: Any) -> list[Sample]:
    return told(path, *prompts, **options)[0]


def told(path: Path, *prompts: str, **options: Any) -> tuple[list[Sample], list[str]]:
    """The samples and the notes."""
    table = Table(str(path), TableOptions(**options))
    return table.samples(prompts), list(table.notes)


def written(folder: Path, name: str, content: str | list[Any] | dict[str, Any]) -> Path:
    text = content if isinstance(content, str) else json.dumps(content)
    data = text.encode()
    (folder / name).write_bytes(gzip.compress(data) if name.endswith(".gz") else data)
    return folder / name


def png(red: int, size: int = 6) -> bytes:
    target = io.BytesIO()
    Image.new("RGB", (size, size), (red, 0, 0)).save(target, "PNG")
    return target.getvalue()


def b64(red: int) -> str:
    return base64.b64encode(png(red)).decode()


def reds(sample: Sample) -> list[int]:
    return [image.getpixel((0, 0))[0] for image in sample.open_images()]  # type: ignore[index]


# -------------------------------------------------------------------- names of columns


@pytest.mark.parametrize(
    "name",
    [
        "image_path",
        "img",
        "file_name",
        "imagePath",
        "IMG_FILE",
        "Image",
        "photo",
        "filename",
        "scan",
    ],
)
def test_usual_names_of_images_are_taken_and_said(tmp_path: Path, name: str) -> None:
    path = written(tmp_path, "q.csv", f"{name},prompt\na.png,?\nb.jpg,?\n")
    samples, notes = told(path)
    assert [s.images for s in samples] == [(str(tmp_path / f),) for f in ("a.png", "b.jpg")]
    (note,) = notes
    assert f"the column {name!r} is read as 'image'" in note


@pytest.mark.parametrize(
    ("name", "known", "value"),
    [
        ("question", "prompt", "What?"),
        ("Query", "prompt", "What?"),
        ("answer", "label", "red"),
        ("gt_answer", "label", "red"),
        ("ans", "label", "red"),
        ("Gold Label", "label", "red"),
        ("ground_truth", "label", "red"),
        ("Label", "label", "red"),
        ("options", "choices", ["red", "blue"]),
        ("question_id", "id", 7),
    ],
)
def test_other_usual_names(tmp_path: Path, name: str, known: str, value: Any) -> None:
    path = written(tmp_path, "q.json", [{"prompt": "?", "image": "a.png"} | {name: value}])
    if known == "prompt":
        path = written(tmp_path, "q.json", [{"image": "a.png", name: value}])
    (sample,), notes = told(path)
    found = getattr(sample, known)
    assert found == (tuple(value) if isinstance(value, list) else str(value))
    assert any(f"{name!r} is read as {known!r}" in note for note in notes)


def test_an_id_that_repeats_is_no_id(tmp_path: Path) -> None:
    rows = [{"prompt": "?", "question_id": 1}, {"prompt": "!", "question_id": 1}]
    samples = read(written(tmp_path, "q.json", rows))
    assert [s.id for s in samples] == ["row-000001", "row-000002"]
    with pytest.raises(DuplicateSample):
        read(written(tmp_path, "q.json", rows), columns={"id": "question_id"})


def test_no_column_can_be_asked_for(tmp_path: Path) -> None:
    path = written(tmp_path, "q.csv", "image,prompt,answer\na.png,?,red\n")
    (sample,) = read(path, columns={"label": None, "image": None})
    assert (sample.label, sample.images) == (None, ())


@pytest.mark.parametrize(
    ("column", "value", "kind"),
    [
        ("image_2", "b.png", "image"),
        ("mask", "m.png", "image"),
        ("video", "x.mp4", "video"),
        ("clip", "x.webm", "video"),
        ("answer", "blue", "label"),
        ("question", "Why?", "prompt"),
        ("thumbnail_image", "t", "image"),
    ],
)
def test_what_is_not_used_is_named(tmp_path: Path, column: str, value: str, kind: str) -> None:
    path = written(
        tmp_path, "q.csv", f"image,prompt,label,weight,{column}\na.png,?,red,3,{value}\n"
    )
    samples, notes = told(path)
    assert samples[0].images == (str(tmp_path / "a.png"),)
    (note,) = notes
    assert (
        f"not used but kept as attributes, if they are text or numbers: {column!r} ({kind})" in note
    )
    assert "weight" not in note


def test_ids_of_images_without_images_are_named(tmp_path: Path) -> None:
    rows = {"questions": [{"image_id": 9, "question": "?", "question_id": 1}]}
    _, notes = told(written(tmp_path, "q.json", rows))
    assert any("'image_id' (image)" in note for note in notes)


def test_several_columns_of_images_must_be_told_apart(tmp_path: Path) -> None:
    path = written(tmp_path, "q.csv", "left,right,prompt\na.png,b.png,?\n")
    with pytest.raises(ManifestError, match="several columns hold images: 'left', 'right'"):
        read(path)
    assert read(path, columns={"image": "right"})[0].images == (str(tmp_path / "b.png"),)


def test_numbered_images_are_several_images(tmp_path: Path) -> None:
    path = written(
        tmp_path, "q.csv", "image_2,image_1,image_10,prompt\nb.png,a.png,,?\n,c.png,d.png,?\n"
    )
    samples, notes = told(path)
    assert [[Path(str(i)).name for i in s.images] for s in samples] == [
        ["a.png", "b.png"],
        ["c.png", "d.png"],
    ]
    assert "'image_1', 'image_2', 'image_10' are the images" in notes[0]


def test_a_prompt_of_the_user_is_said_to_replace_those_of_the_table(tmp_path: Path) -> None:
    path = written(tmp_path, "q.csv", "image,prompt\na.png,?\n")
    assert any("--prompt replaces the prompts of 'prompt'" in n for n in told(path, "What?")[1])
    path = written(tmp_path, "t.csv", "image,text\na.png,a caption\n")
    (sample,), notes = told(path, "What?")
    assert dict(sample.attributes) == {"text": "a caption"}
    assert any("'text' (prompt)" in note for note in notes)


def test_the_folder_of_images_can_be_said(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "photos").mkdir()
    path = written(tmp_path / "data", "q.csv", "image,prompt\na.png,?\n")
    root = str(tmp_path / "photos")
    assert read(path, image_root=root)[0].images == (str(tmp_path / "photos/a.png"),)
    path = written(tmp_path / "data", "q.csv", "image,prompt\n../data/a.png,?\n")
    with pytest.raises(DataError, match="is outside the folder"):
        read(path, image_root=root)


# ------------------------------------------------------------------------------ JSON


ROW = {"id": "1", "image": "a.png", "prompt": "?"}


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.json", [ROW]),
        ("b.json", json.dumps(ROW) + "\n" + json.dumps({**ROW, "id": "2"}) + "\n"),
        ("c.json", {"info": {}, "questions": [ROW]}),
        ("d.json", {"1": {"image": "a.png", "prompt": "?"}}),
        ("e.json", {"id": {"0": "1"}, "image": {"0": "a.png"}, "prompt": {"0": "?"}}),
        ("f.json", {"id": ["1"], "image": ["a.png"], "prompt": ["?"]}),
        ("g.json", json.dumps(ROW, indent=1)),
        ("h.json.gz", [ROW]),
        ("i.jsonl.gz", json.dumps(ROW)),
        ("j.JSONL.GZ", json.dumps(ROW)),
        ("k.csv.gz", "id,image,prompt\n1,a.png,?\n"),
        ("l.tsv.gz", "id\timage\tprompt\n1\ta.png\t?\n"),
    ],
)
def test_forms_of_json_and_packed_text(tmp_path: Path, name: str, content: Any) -> None:
    name = name.lower() if name.endswith("GZ") else name
    path = written(tmp_path, name, content)
    assert Table.reads(str(path))
    assert read(path)[0] == Sample("1", "?", (str(tmp_path / "a.png"),))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([1], "item 1: expected an object"),
        ({"a": 1}, "expected a list of objects, one per sample"),
        ("3", "expected a list of objects, got int"),
        ({"a": [ROW], "b": [ROW]}, "several lists of objects, 'a', 'b'"),
        ({"id": [1, 2], "prompt": ["?"]}, "different lengths"),
        ("[" * 200_000, "not JSON"),
        ('{"a":' * 200_000, "not JSON"),
        ('[{"prompt": "?",]', "line 1: not JSON"),
        ({"images": [{"id": 1}], "annotations": [{"id": 1}]}, "looks like COCO's"),
    ],
)
def test_wrong_json(tmp_path: Path, content: Any, message: str) -> None:
    with pytest.raises(ManifestError, match=message):
        read(written(tmp_path, "x.json", content))


def test_one_of_several_lists_can_be_named(tmp_path: Path) -> None:
    path = written(tmp_path, "x.json", {"a": [{**ROW, "id": "7"}], "b": [ROW]})
    assert read(path, rows="a")[0].id == "7"
    with pytest.raises(ManifestError, match="no list of objects is called 'c'"):
        read(path, rows="c")


def test_damaged_gzip(tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl.gz"
    for data in (b"no gzip", gzip.compress(b"{}" * 99)[:20]):
        path.write_bytes(data)
        with pytest.raises(ManifestError, match="not a whole gzip file"):
            read(path)


CONVERSATIONS: list[tuple[dict[str, Any], Sample]] = [
    (
        {
            "id": "1",
            "image": "a.png",
            "conversations": [
                {"from": "human", "value": "<image>\nColor?"},
                {"from": "gpt", "value": "red"},
            ],
        },
        Sample("1", "Color?", ("a.png",), label="red"),
    ),
    (
        {
            "id": "2",
            "image": "a.png",
            "conversations": [
                {"from": "human", "value": "Compare <image> with memory.\n<image>"},
                {"from": "gpt", "value": "same"},
                {"from": "human", "value": "Sure?"},
                {"from": "gpt", "value": "yes"},
            ],
        },
        Sample("2", "Compare <image> with memory.", ("a.png",), label="same"),
    ),
    (
        {
            "id": "3",
            "messages": [
                {"role": "system", "content": "Be brief."},
                {
                    "role": "user",
                    "content": [{"type": "image", "image": "a.png"}, {"type": "text", "text": "?"}],
                },
                {"role": "assistant", "content": [{"type": "text", "text": "red"}]},
            ],
        },
        Sample("3", "?", ("a.png",), label="red"),
    ),
    (
        {"id": "4", "images": ["a.png"], "messages": [{"role": "user", "content": "<image>?"}]},
        Sample("4", "?", ("a.png",)),
    ),
]


@pytest.mark.parametrize(("row", "expected"), CONVERSATIONS)
@pytest.mark.parametrize("suffix", ["json", "jsonl", "parquet"])
def test_conversations(tmp_path: Path, row: dict[str, Any], expected: Sample, suffix: str) -> None:
    path = tmp_path / f"x.{suffix}"
    if suffix == "parquet":
        if row["id"] == "3":
            pytest.skip("Parquet cannot hold text and lists in one column")
        pq.write_table(pa.Table.from_pylist([row]), path)
    else:
        written(tmp_path, path.name, [row] if suffix == "json" else json.dumps(row))
    (sample,), notes = told(path)
    assert (sample.id, sample.prompt, sample.label) == (
        expected.id,
        expected.prompt,
        expected.label,
    )
    assert sample.images == (str(tmp_path / "a.png"),)
    more = [note for note in notes if "go on after the first answer" in note]
    assert len(more) == (row["id"] == "2")


def test_a_conversation_without_a_question_is_refused(tmp_path: Path) -> None:
    rows = [CONVERSATIONS[0][0], {"id": "9", "image": "b.png", "conversations": []}]
    with pytest.raises(ManifestError, match="item 2: column 'prompt'"):
        read(written(tmp_path, "x.json", rows))


COCO = {
    "images": [{"id": 3, "file_name": "a.jpg"}, {"id": 5, "file_name": "b.jpg"}],
    "categories": [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}],
}


def test_coco_instances(tmp_path: Path) -> None:
    seen = [{"image_id": 3, "category_id": 1}, {"image_id": 3, "category_id": 1}]
    both = {**COCO, "annotations": [*seen, {"image_id": 5, "category_id": 2}]}
    samples, notes = told(written(tmp_path, "x.json", both), "What?")
    assert [(s.id, s.label) for s in samples] == [("3", "cat"), ("5", "dog")]
    assert samples[0].images == (str(tmp_path / "a.jpg"),)
    assert samples[0].attributes["categories"] == '["cat"]'
    assert any("COCO" in note for note in notes)
    mixed = {**both, "annotations": [*seen, {"image_id": 3, "category_id": 2}]}
    assert [s.label for s in read(written(tmp_path, "x.json", mixed), "What?")] == [None, None]


def test_coco_captions(tmp_path: Path) -> None:
    notes = [{"image_id": 3, "caption": "A cat."}, {"image_id": 3, "caption": "Another."}]
    document = {"images": COCO["images"], "annotations": notes}
    samples = read(written(tmp_path, "x.json", document), "What?")
    assert [dict(s.attributes) for s in samples] == [{"caption": "A cat."}, {"caption": None}]


# ---------------------------------------------------------------- images inside the table


def test_vlmevalkit_tables(tmp_path: Path) -> None:
    listed = f"['{b64(10)}', '{b64(20)}']"
    rows = [
        "index\tquestion\tA\tB\tC\tanswer\tcategory\timage",
        f"1\tWhich?\tred\tblue\t\tA\tcolor\t{b64(10)}",
        f"2\tWhich?\tred\tgreen\tblue\tC\tcolor\t{b64(20)}",
        "3\tAgain?\tred\tgreen\t\tB\tcolor\t2",
        f"4\tBoth?\tred\tgreen\t\tB\tcolor\t{listed}",
    ]
    samples, notes = told(written(tmp_path, "x.tsv", "\n".join(rows)))
    assert [s.id for s in samples] == ["1", "2", "3", "4"]
    assert [reds(s) for s in samples] == [[10], [20], [20], [10, 20]]
    assert [s.label for s in samples] == ["red", "blue", "green", "green"]
    assert samples[1].choices == ("red", "green", "blue")
    assert samples[1].split_group == samples[2].split_group
    assert any("'A' to 'C' are the choices" in note for note in notes)
    assert any("'answer' are letters of the choices" in note for note in notes)


def test_a_cell_of_any_length_and_a_data_uri(tmp_path: Path) -> None:
    noise = Image.effect_noise((400, 400), 90)
    target = io.BytesIO()
    noise.save(target, "PNG")
    long = base64.b64encode(target.getvalue()).decode()
    assert len(long) > 131_072
    uri = f"data:image/png;base64,{b64(30)}"
    rows = f"prompt\timage\n?\t{long}\n?\t{uri}\n"
    first, second = read(written(tmp_path, "x.tsv", rows))
    assert first.open_images()[0].size == (400, 400)
    assert reds(second) == [30]


@pytest.mark.parametrize("kind", ["JPEG", "GIF", "WEBP", "BMP", "AVIF", "TIFF"])
def test_base64_of_other_formats(tmp_path: Path, kind: str) -> None:
    target = io.BytesIO()
    Image.new("RGB", (60, 60), (250, 0, 0)).save(target, kind)
    cell = base64.b64encode(target.getvalue()).decode()
    (sample,) = read(written(tmp_path, "x.json", [{"prompt": "?", "image": cell}]))
    assert reds(sample)[0] > 200


def test_base64_of_no_image_is_not_shown_whole(tmp_path: Path) -> None:
    cell = base64.b64encode(b"no image" * 9_000).decode()
    with pytest.raises(ManifestError, match="no image in base64") as caught:
        read(written(tmp_path, "x.tsv", f"prompt\timage\n?\t{cell}\n"))
    assert len(str(caught.value)) < 400


@pytest.mark.parametrize("form", ["struct", "bytes", "list", "path"])
def test_parquet_with_images_inside(tmp_path: Path, form: str) -> None:
    (tmp_path / "a.png").write_bytes(png(10))
    cells: dict[str, list[Any]] = {
        "struct": [{"bytes": png(10), "path": "x.png"}, {"bytes": None, "path": None}],
        "bytes": [png(10), None],
        "list": [[{"bytes": png(10), "path": None}], []],
        "path": [{"bytes": None, "path": "a.png"}, None],
    }
    pq.write_table(pa.table({"question": ["?", "!"], "image": cells[form]}), tmp_path / "x.parquet")
    first, second = read(tmp_path / "x.parquet")
    assert (reds(first), second.images) == ([10], ())


# ----------------------------------------------------------------------------- Excel


def test_excel(tmp_path: Path) -> None:
    import openpyxl

    book = openpyxl.Workbook()
    for row in (
        ["id", "image", "prompt", "label"],
        [1, "a.png", "?", 3.5],
        [],
        [2, None, "!", None],
    ):
        book.active.append(row)
    book.create_sheet("other")
    book.save(tmp_path / "x.xlsx")
    samples, notes = told(tmp_path / "x.xlsx")
    assert [(s.id, s.label, len(s.images)) for s in samples] == [("1", "3.5", 1), ("2", None, 0)]
    assert any("only the first of 2 sheets" in note for note in notes)


# --------------------------------------------------------------------- choices, labels


@pytest.mark.parametrize(
    "given",
    ["['red', 'blue']", '["red", "blue"]', "('red', 'blue')", "red|blue", "red\nblue",
     '{"A": "red", "B": "blue"}', "{'A': 'red', 'B': 'blue'}", {"A": "red", "B": "blue"}],
)  # fmt: skip
def test_forms_of_choices(tmp_path: Path, given: Any) -> None:
    (sample,) = read(written(tmp_path, "x.json", [{"prompt": "?", "options": given}]))
    assert sample.choices == ("red", "blue")


@pytest.mark.parametrize("given", ["['red' 'blue']", "[" * 5_000, "[1, 2", "['red', blue]"])
def test_what_is_no_list_of_choices_is_refused(tmp_path: Path, given: str) -> None:
    with pytest.raises(ManifestError, match="column 'options'"):
        read(written(tmp_path, "x.json", [{"prompt": "?", "options": given}]))


@pytest.mark.parametrize("names", [("A", "B"), ("option_a", "option_b"), ("Choice 1", "Choice 2")])
def test_columns_of_single_choices(tmp_path: Path, names: tuple[str, str]) -> None:
    row = {"prompt": "?", names[0]: "red", names[1]: "blue", "answer": "B"}
    (sample,) = read(written(tmp_path, "x.json", [row]))
    assert (sample.choices, sample.label) == (("red", "blue"), "blue")


def test_open_questions_among_closed_ones(tmp_path: Path) -> None:
    """As in MMMU: the options of an open question are an empty list."""
    rows = [
        {"question": "?", "options": "['red', 'blue']", "answer": "B"},
        {"question": "!", "options": "[]", "answer": "six"},
    ]
    samples = read(written(tmp_path, "x.json", rows))
    assert [(s.choices, s.label) for s in samples] == [(("red", "blue"), "blue"), ((), "six")]


def labels(tmp_path: Path, *rows: tuple[Any, list[str]], **options: Any) -> list[str | None]:
    made = [{"prompt": "?", "label": label, "choices": choices} for label, choices in rows]
    return [s.label for s in read(written(tmp_path, "x.json", made), **options)]


def test_labels_that_are_letters_or_positions(tmp_path: Path) -> None:
    two, three = ["red", "blue"], ["red", "blue", "green"]
    assert labels(tmp_path, ("A", two), ("C", three)) == ["red", "green"]
    assert labels(tmp_path, ("(b)", two), ("A.", two)) == ["blue", "red"]
    assert labels(tmp_path, (0, two), (1, two)) == ["red", "blue"]
    assert labels(tmp_path, ("1", two), ("2", two)) == ["red", "blue"]
    assert labels(tmp_path, (1, three), (2, three)) == ["blue", "green"]
    assert labels(tmp_path, (1, three), (2, three), count_from="1") == ["red", "blue"]
    prefixed = ["B. red", "A. blue"]
    assert labels(tmp_path, ("A", prefixed)) == ["A. blue"]
    assert labels(tmp_path, ("A", ["A", "B"]), ("B", ["A", "B"])) == ["A", "B"]


@pytest.mark.parametrize(
    "rows",
    [
        [("red", ["red", "blue"]), ("B", ["red", "blue"])],
        [("C", ["red", "blue"])],
        [("0", ["a", "b"]), ("2", ["a", "b"])],
        [("3", ["2", "3", "4"]), ("1", ["2", "3", "4"])],
        [("7", ["2", "3", "4"])],
    ],
)
def test_labels_that_are_neither_are_refused(
    tmp_path: Path, rows: list[tuple[str, list[str]]]
) -> None:
    with pytest.raises(ManifestError, match="is not one of the choices"):
        labels(tmp_path, *rows)


def test_how_labels_were_read_is_said() -> None:
    note = Answers([("1", ["a", "b"]), ("0", ["a", "b"])]).note
    assert note is not None
    assert "from 0 (from 1: --set options.dataset.count_from=1)" in note
    assert Answers([("a", ["a", "b"])]).note is None


def test_packed_text_is_not_unpacked_without_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vlmlens_plugins.data._table_files._MOST_TEXT", 1_000)
    with pytest.raises(ManifestError, match="more than 2 GiB unpacked"):
        read(written(tmp_path, "x.jsonl.gz", " " * 5_000))


def test_base64_with_much_space_is_read_in_linear_time(tmp_path: Path) -> None:
    cell = b64(10) + " " * 300_000 + "!"
    began = time.perf_counter()
    with pytest.raises(ManifestError, match="no image in base64"):
        read(written(tmp_path, "x.json", [{"prompt": "?", "image": cell}]))
    assert time.perf_counter() - began < 5
    spaced = "\n".join(b64(10)[i : i + 40] for i in range(0, len(b64(10)), 40))
    (sample,) = read(written(tmp_path, "x.json", [{"prompt": "?", "image": spaced}]))
    assert reds(sample) == [10]


def test_a_pipe_is_no_table(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "x.csv")
    assert not Table.reads(str(tmp_path / "x.csv"))
    with pytest.raises(DataNotFound, match="is not a table"):
        read(tmp_path / "x.csv")


@pytest.mark.parametrize("depth", [100, 500, 900])
def test_deep_cells_are_attributes_or_an_error(tmp_path: Path, depth: int) -> None:
    cell = "[" * depth + "]" * depth
    for column in ("x", "image", "choices", "label"):
        path = written(tmp_path, "x.jsonl", f'{{"prompt": "?", "{column}": {cell}}}')
        if column == "x":
            assert len(str(read(path)[0].attributes["x"])) == 2 * depth
        else:
            with pytest.raises(ManifestError, match=f"column '{column}'"):
                read(path)


def test_paths_of_windows_and_of_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "img").mkdir()
    (tmp_path / "img" / "a.png").write_bytes(png(10))
    path = written(tmp_path, "q.csv", "image,prompt\nimg\\a.png,?\n")
    assert reds(read(path)[0]) == [10]
    monkeypatch.setenv("HOME", str(tmp_path))
    path = written(tmp_path, "q.csv", "image,prompt\n~/img/a.png,?\n")
    assert reds(read(path)[0]) == [10]
    monkeypatch.setenv("HOME", "/nowhere")
    with pytest.raises(DataError, match="is outside the folder"):
        read(path)
