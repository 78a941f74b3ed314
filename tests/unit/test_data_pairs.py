"""Pairs in tables: columns `pair` and `role` in every format, and lines that hold a whole pair."""

from __future__ import annotations

import csv
import gzip
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

import vlmlens
from vlmlens.errors import DuplicateSample, ManifestError
from vlmlens.pairs import pairs_of
from vlmlens.samples import Sample
from vlmlens_plugins.data.hf import HubDataset
from vlmlens_plugins.data.table import Table, TableOptions

REGIONS = {"cup": [1, 2, 9, 8], "große Vase": [0, 0, 4.5, 4]}
ROWS: list[dict[str, Any]] = [
    {
        "id": f"{name}-{role}", "image": f"{color}.png", "prompt": "Color?", "answer": color,
        "choices": "red|blue", "pair": name, "role": role, "regions": REGIONS,
    }
    for name in ("a", "ü 2")
    for role, color in (("clean", "red"), ("corrupted", "blue"))
]  # fmt: skip
LINE: dict[str, Any] = {
    "id": "a",
    "clean": {"image": "red.png", "answer": "red"},
    "corrupted": {"image": "blue.png", "answer": "blue", "regions": REGIONS},
    "prompt": "Color?",
    "choices": ["red", "blue"],
    "task": "color",
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for color in ("red", "blue"):
        Image.new("RGB", (16, 16), color).save(tmp_path / f"{color}.png")
    return tmp_path


def read(path: Path, *prompts: str, **options: Any) -> list[Sample]:
    return list(Table(str(path), TableOptions(**options)).samples(prompts))


def lines(folder: Path, *rows: Any, name: str = "pairs.jsonl") -> Path:
    path = folder / name
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def written(folder: Path, kind: str) -> Path:
    """The rows as a table; where cells are text, regions are JSON text."""
    flat = [{**row, "regions": json.dumps(row["regions"], ensure_ascii=False)} for row in ROWS]
    path = folder / f"data.{kind}"
    if kind in ("csv", "tsv"):
        with path.open("w", encoding="utf-8", newline="") as file:
            table = csv.DictWriter(file, list(ROWS[0]), delimiter="," if kind == "csv" else "\t")
            table.writeheader()
            table.writerows(flat)
    elif kind == "parquet":
        pq.write_table(pa.Table.from_pylist(ROWS), path)
    elif kind == "xlsx":
        openpyxl = pytest.importorskip("openpyxl")
        book = openpyxl.Workbook()
        for row in [list(ROWS[0]), *(list(row.values()) for row in flat)]:
            book.active.append(row)
        book.save(path)
    elif kind == "jsonl.gz":
        path.write_bytes(gzip.compress("\n".join(map(json.dumps, ROWS)).encode()))
    else:
        path.write_text(json.dumps(ROWS), encoding="utf-8")
    return path


class TestColumns:
    @pytest.mark.parametrize("kind", ["csv", "tsv", "parquet", "xlsx", "jsonl.gz", "json"])
    def test_every_format(self, folder: Path, kind: str) -> None:
        samples = read(written(folder, kind))
        pairs, dropped = pairs_of(samples)
        assert [(each.id, each.answers, each.group) for each in pairs] == [
            ("a", ("red", "blue"), str(folder / "red.png")),
            ("ü 2", ("red", "blue"), str(folder / "red.png")),
        ]
        assert dropped == []
        assert {sample.group for sample in samples} == {str(folder / "red.png")}
        assert all(json.loads(str(s.attributes["regions"])) == REGIONS for s in samples)

    def test_the_package_datasets(self, folder: Path) -> None:
        rows = [{**row, "role": row["role"].title()} for row in ROWS]
        path = folder / "hub.parquet"
        pq.write_table(pa.Table.from_pylist(rows), path)
        options = HubDataset.Options(image_root=str(folder))
        samples = HubDataset(str(path), options).samples([])
        assert [each.id for each in pairs_of(samples)[0]] == ["a", "ü 2"]
        assert samples[1].group == str(folder / "red.png")
        assert json.loads(str(samples[0].attributes["regions"])) == REGIONS
        rows[2]["role"] = "after"
        pq.write_table(pa.Table.from_pylist(rows), path)
        with pytest.raises(ManifestError, match=r"row 3: column 'role': 'after' is no role"):
            HubDataset(str(path), options).samples([])

    def test_rows_in_memory_hold_images(self) -> None:
        red, blue = (Image.new("RGB", (8, 8), color) for color in ("red", "blue"))
        rows = [
            {"image": red, "prompt": "Color?", "answer": "red", "pair": 1, "role": "original"},
            {"image": blue, "prompt": "Color?", "answer": "blue", "pair": 1.0,
             "role": " CounterFactual "},
        ]  # fmt: skip
        samples = Table.of_rows(rows, TableOptions()).samples([])
        (pair,), _ = pairs_of(samples)
        assert (pair.id, pair.clean.id, pair.corrupted.id) == ("1", "row-000001", "row-000002")

    def test_a_group_of_the_user_stays(self, folder: Path) -> None:
        rows = [{**row, "group": "g"} for row in ROWS[:2]] + ROWS[2:]
        groups = [sample.group for sample in read(lines(folder, *rows, name="x.jsonl"))]
        assert groups == ["g", "g", *[str(folder / "red.png")] * 2]

    def test_rows_without_a_pair_may_stand_between(self, folder: Path) -> None:
        alone = {"id": "alone", "image": "red.png", "prompt": "Color?", "role": "user"}
        samples = read(lines(folder, ROWS[0], alone, ROWS[1], name="x.jsonl"))
        assert [each.id for each in pairs_of(samples)[0]] == ["a"]
        assert samples[1].group is None
        assert samples[1].attributes["role"] == "user"

    def test_other_spellings_and_names(self, folder: Path) -> None:
        rows = [
            {"Pair_ID" if k == "pair" else "Role" if k == "role" else k: v for k, v in row.items()}
            for row in ROWS
        ]
        assert len(pairs_of(read(lines(folder, *rows, name="x.jsonl")))[0]) == 2
        rows = [{"which" if k == "role" else k: v for k, v in row.items()} for row in ROWS]
        found = read(lines(folder, *rows, name="y.jsonl"), columns={"role": "which"})
        assert len(pairs_of(found)[0]) == 2

    @pytest.mark.parametrize("only", ["pair", "role"])
    def test_one_of_the_columns_is_an_attribute_like_others(self, folder: Path, only: str) -> None:
        rows = [{"image": "red.png", "prompt": "Color?", only: f"any {i}"} for i in range(2)]
        samples = read(lines(folder, *rows, name="x.jsonl"))
        assert [sample.attributes for sample in samples] == [{only: "any 0"}, {only: "any 1"}]

    @pytest.mark.parametrize(
        ("role", "what"),
        [("after", "'after' is no role in the pair 'a'"), (None, "it is empty in the pair 'a'")],
    )
    def test_another_role_names_its_row(self, folder: Path, role: str | None, what: str) -> None:
        path = lines(folder, ROWS[0], {**ROWS[1], "role": role}, name="x.jsonl")
        with pytest.raises(ManifestError, match=rf"x\.jsonl, line 2: column 'role': {what}"):
            read(path)
        assert read(path, columns={"pair": None})[1].attributes["role"] == role

    def test_a_column_that_is_named_needs_the_other(self, folder: Path) -> None:
        rows = [{"image": "red.png", "prompt": "Color?", "scene": 1}]
        path = lines(folder, *rows, name="x.jsonl")
        with pytest.raises(ManifestError, match=r"'scene' is read as 'pair', but .* 'role'"):
            read(path, columns={"pair": "scene"})


class TestLines:
    def test_two_samples_per_line(self, folder: Path) -> None:
        clean, corrupted = read(lines(folder, LINE))
        assert clean == Sample(
            "a/clean",
            "Color?",
            (str(folder / "red.png"),),
            label="red",
            choices=("red", "blue"),
            group=str(folder / "red.png"),
            task="color",
            attributes={"regions": None, "pair": "a", "role": "clean"},
        )
        assert corrupted.id == "a/corrupted"
        assert json.loads(str(corrupted.attributes["regions"])) == REGIONS
        assert pairs_of([clean, corrupted])[0][0].answers == ("red", "blue")

    def test_what_is_inside_goes_before_what_is_outside(self, folder: Path) -> None:
        line = {
            "image": "red.png",
            "prompt": "Color?",
            "answer": "yes",
            "group": 7,
            "clean": {},
            "corrupted": {"id": "own", "prompt": "Colour?", "answer": "no"},
        }
        samples = read(lines(folder, line, name="any.jsonl"))
        assert [s.id for s in samples] == ["pair-000001/clean", "own"]
        assert [s.prompt for s in samples] == ["Color?", "Colour?"]
        assert [s.label for s in samples] == ["yes", "no"]
        assert [s.group for s in samples] == ["7", "7"]
        assert samples[1].attributes["pair"] == "pair-000001"

    def test_letters_stand_for_choices(self, folder: Path) -> None:
        halves = {role: {**LINE[role], "answer": letter}
                  for role, letter in (("clean", "A"), ("corrupted", "B"))}  # fmt: skip
        samples = read(lines(folder, {**LINE, **halves}))
        assert [sample.label for sample in samples] == ["red", "blue"]

    def test_prompts_of_the_user(self, folder: Path) -> None:
        samples = read(lines(folder, LINE), "Which color?", "Color?")
        assert len(pairs_of(samples)[0]) == 2

    def test_a_packed_file_and_one_of_parquet(self, folder: Path) -> None:
        packed = folder / "pairs.jsonl.gz"
        packed.write_bytes(gzip.compress(json.dumps(LINE).encode()))
        pq.write_table(pa.Table.from_pylist([LINE]), folder / "any.parquet")
        for path in (packed, folder / "any.parquet"):
            assert len(pairs_of(read(path))[0]) == 1

    def test_a_file_of_that_name_may_hold_rows(self, folder: Path) -> None:
        assert len(pairs_of(read(lines(folder, *ROWS)))[0]) == 2

    def test_columns_of_paths_are_no_pairs(self, folder: Path) -> None:
        rows = [{"clean": "red.png", "corrupted": "blue.png", "prompt": "Color?"}]
        with pytest.raises(ManifestError, match="several columns hold images: 'clean'"):
            read(lines(folder, *rows, name="x.jsonl"))

    @pytest.mark.parametrize(
        ("line", "what"),
        [
            ({"id": "b", "clean": {}}, "line 2: 'corrupted' is missing"),
            ({"corrupted": {}}, "line 2: 'clean' is missing"),
            ({**LINE, "clean": "red.png"}, "line 2: 'clean' is no object .* 'red.png'"),
            ({**LINE, "corrupted": [1]}, r"line 2: 'corrupted' is no object .* \[1\]"),
            ({**LINE, "id": ["x"]}, "line 2: column 'id': expected text"),
            ([LINE], "line 2: expected an object"),
            ({**LINE, "id": "b", "prompt": None}, "line 2, clean: column 'prompt'"),
            ({**LINE, "id": "b", "corrupted": {"image": 3}}, "line 2, corrupted: column 'image'"),
            (
                {**LINE, "id": "b", "clean": {"image": "red.png", "answer": "green"}},
                "line 2, clean: column 'answer': 'green' is not one of the choices",
            ),
        ],
    )
    def test_a_malformed_line_is_named(self, folder: Path, line: Any, what: str) -> None:
        path = lines(folder, LINE, line)
        with pytest.raises(ManifestError, match=rf"pairs\.jsonl, {what}"):
            read(path)

    def test_a_file_of_that_name_without_pairs(self, folder: Path) -> None:
        """Whoever called an ordinary table so before there were pairs can still read it."""
        path = lines(folder, {"image": "red.png", "prompt": "Color?"})
        (sample,) = read(path)
        assert "pair" not in sample.attributes

    def test_the_same_pair_twice(self, folder: Path) -> None:
        with pytest.raises(DuplicateSample, match="'a/clean'"):
            read(lines(folder, LINE, LINE))


def test_a_run_keeps_pairs(folder: Path) -> None:
    """What is read from the run folder is what the table gave, by path and in memory."""
    path = lines(folder, LINE, {**LINE, "id": "b"})
    images = [sample.open_images()[0] for sample in read(path)[:2]]
    in_memory = [
        Sample(role, "Color?", (image,), label=role, attributes={"pair": "x", "role": role})
        for role, image in zip(("clean", "corrupted"), images, strict=True)
    ]
    for number, data in enumerate((str(path), in_memory)):
        run = vlmlens.extract(
            adapter="demo", data=data, sites=["projector"], out=folder / f"run-{number}"
        )
        pairs, dropped = pairs_of(run.samples)
        assert len(pairs) == 2 - number
        assert dropped == []
        assert pairs[0].clean.open_images()[0].getpixel((0, 0)) == (255, 0, 0)
