"""The dataset pope: every form, both editions, and what is refused."""

from __future__ import annotations

import base64
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image
from tests.unit._pope_files import hub_rows, image_name, rows, write_official

from vlmlens.errors import DataError, DataNotFound, SpecError
from vlmlens.samples import Sample
from vlmlens_plugins.benchmarks.pope import CARD, Pope, PopeOptions, carried_over
from vlmlens_plugins.benchmarks.pope.questions import object_of

FEW = 6
"""Images of small files."""


def read(source: Path | str, **options: Any) -> Sequence[Sample]:
    return Pope(str(source), PopeOptions(**options)).samples([])


def noted(source: Path | str, **options: Any) -> str:
    dataset = Pope(str(source), PopeOptions(**options))
    dataset.samples([])
    return "\n".join(dataset.notes)


def lines(path: Path, made: Sequence[Mapping[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in made))
    return path


def painted(folder: Path, number: int = FEW) -> list[bytes]:
    folder.mkdir(exist_ok=True)
    found = []
    for i in range(number):
        Image.new("RGB", (4, 4), (40 * i, 0, 0)).save(folder / f"{i}.png")
        found.append((folder / f"{i}.png").read_bytes())
    return found


def facts(samples: Sequence[Sample]) -> set[tuple[Any, ...]]:
    """What every form of the same questions has in common."""
    return {
        (s.prompt, s.label, s.task, s.attributes["split"], s.attributes["object"]) for s in samples
    }


# ------------------------------------------------------------------------------------- forms


@pytest.fixture(scope="module")
def official(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_official(tmp_path_factory.mktemp("official") / "coco", images=FEW)


def test_official_files_are_read_from_their_folder_and_from_folders_above(official: Path) -> None:
    samples = read(official)
    assert [sample.to_dict() for sample in samples] == [
        sample.to_dict() for sample in read(official.parent)
    ]
    assert Counter(sample.task for sample in samples) == dict.fromkeys(
        ("random", "popular", "adversarial"), 36
    )
    one = samples[1]
    assert (one.id, one.label, one.choices) == ("random/2", "no", ("yes", "no"))
    assert one.group == image_name(0).removesuffix(".jpg")
    assert one.images == (str(official / image_name(0)),)
    assert one.attributes["object"] == object_of(one.prompt) != ""
    assert one.attributes["benchmark"] == "pope"


def test_one_file_is_one_split_and_an_option_chooses_one(official: Path) -> None:
    alone = read(official / "coco_pope_popular.json")
    assert {sample.task for sample in alone} == {"popular"}
    assert [s.id for s in alone] == [s.id for s in read(official, split="popular")]
    assert read(official, images=str(official))[0].images[0].startswith(str(official))


def test_seem_files_are_arrays_and_gqa_names_have_no_folder(tmp_path: Path) -> None:
    for source in ("aokvqa", "gqa"):
        own = tmp_path / "seem" / source
        own.mkdir(parents=True)
        made = [{**row, "image": f"{row['question_id']}.jpg"} for row in rows("random", images=2)]
        made[1]["image"] = 2405722
        (own / f"{source}_pope_seem_random.json").write_text(json.dumps(made, indent=1))
    samples = read(tmp_path)
    assert {sample.task for sample in samples} == {"aokvqa/random", "gqa/random"}
    assert samples[1].images[0].endswith("aokvqa/2405722.jpg")
    alone = read(tmp_path / "seem" / "gqa")
    assert (alone[0].task, alone[0].id) == ("random", "random/1")
    assert "gqa, of no known edition (12 random)" in noted(tmp_path / "seem" / "gqa")


def test_hub_columns_from_parquet_and_from_a_saved_folder(official: Path, tmp_path: Path) -> None:
    pytest.importorskip("datasets")
    from datasets import Dataset as Table

    data = painted(tmp_path / "images")
    made = [
        {**row, "image": {"bytes": data[int(row["image_source"][-2:])], "path": None}}
        for row in hub_rows(images=FEW)
    ]
    pq.write_table(pa.Table.from_pylist(made), tmp_path / "test-00000.parquet")
    Table.from_list(made).save_to_disk(str(tmp_path / "saved"))
    for source in ("test-00000.parquet", "saved"):
        samples = read(tmp_path / source)
        assert facts(samples) == facts(read(official))
        assert {s.id for s in samples} == {s.id for s in read(official)}
        assert {s.group for s in samples} == {s.group for s in read(official)}
        assert samples[0].open_images()[0].size == (4, 4)


def test_hub_columns_without_images_name_files(tmp_path: Path) -> None:
    path = lines(tmp_path / "test.jsonl", list(hub_rows(images=2)))
    (tmp_path / "val2014").mkdir()
    samples = read(path, images=str(tmp_path / "val2014"))
    assert samples[0].images == (str(tmp_path / "val2014" / image_name(0)),)


def write_tsv(folder: Path) -> Path:
    """VLMEvalKit's table: each question once, with its splits; images once, else by index."""
    data = painted(folder / "images")
    once: dict[tuple[str, str], list[str]] = {}
    labels = {}
    for row in hub_rows(images=FEW):
        key = row["image_source"], row["question"]
        once.setdefault(key, []).append(row["category"])
        labels[key] = row["answer"].capitalize()
    table, held = ["index\timage\tquestion\tanswer\tcategory"], {}
    for index, ((name, question), splits) in enumerate(once.items()):
        pixels = base64.b64encode(data[int(name[-2:])]).decode()
        image = str(held.setdefault(name, index)) if name in held else pixels
        held.setdefault(name, index)
        table.append(f"{index}\t{image}\t{question}\t{labels[name, question]}\t{','.join(splits)}")
    (folder / "POPE.tsv").write_text("\n".join(table) + "\n")
    return folder / "POPE.tsv"


def test_vlmevalkits_table_is_exploded_and_shares_images(official: Path, tmp_path: Path) -> None:
    samples = read(write_tsv(tmp_path))
    assert facts(samples) == facts(read(official))
    assert len(samples) == 108
    by_group = {sample.group: sample.images for sample in samples}
    assert len(by_group) == FEW
    assert len(set(by_group.values())) == FEW
    assert samples[0].open_images()[0].getpixel((0, 0)) == (0, 0, 0)


def write_llava(folder: Path, *, first: bool) -> Path:
    suffix = "\nAnswer the question using a single word or phrase."
    made, number = [], 0
    for split in ("adversarial", "popular", "random"):
        for row in rows(split, images=FEW, first=first):
            asked = {"question_id": number, "image": row["image"], "text": row["text"] + suffix}
            made.append({**asked, "category": split})
            number += 1
    return lines(folder / "llava_pope_test.jsonl", made)


def test_llavas_file_takes_labels_from_the_files_beside_it_by_question(tmp_path: Path) -> None:
    path = write_llava(tmp_path, first=True)
    with pytest.raises(DataError, match="has no labels, and no official file lies beside it"):
        read(path)
    known = write_official(tmp_path / "coco", images=FEW, first=True)
    samples = read(path)
    assert facts(samples) == facts(read(known))
    assert samples[0].id == "adversarial/0"
    assert "\n" not in samples[0].prompt


def test_llavas_file_is_not_joined_by_line(tmp_path: Path) -> None:
    """Its labels are those of the same question, whatever the order; a gap is an error."""
    path = write_llava(tmp_path, first=False)
    folder = write_official(tmp_path / "coco", images=FEW)
    right = {sample.id: sample.label for sample in read(path)}
    file = folder / "coco_pope_popular.json"
    file.write_text("".join(reversed(file.read_text().splitlines(keepends=True))))
    assert {sample.id: sample.label for sample in read(path)} == right
    write_official(tmp_path / "coco", images=FEW, first=True)
    with pytest.raises(DataError, match=r"line \d+: the official files have no label"):
        read(path)


# ------------------------------------------------------------------------------------ editions


def test_the_digest_tells_editions_apart_and_is_the_same_for_the_same(tmp_path: Path) -> None:
    first = read(write_official(tmp_path / "a", images=2))[0].attributes["edition"]
    again = read(write_official(tmp_path / "b", images=2))[0].attributes["edition"]
    other = read(write_official(tmp_path / "c", images=2, first=True))[0].attributes["edition"]
    assert first == again != other
    assert "sha256 " in str(first)


def test_answers_to_one_edition_are_carried_over_by_image_and_question(tmp_path: Path) -> None:
    old = read(write_official(tmp_path / "a", images=FEW, first=True))
    new = read(write_official(tmp_path / "b", images=FEW))
    answers = {sample.id: f"answer to {sample.attributes['object']}" for sample in old}
    both = [s for s in new if s.task != "random"]
    found = carried_over(answers, old, both)
    assert all(found[s.id] == f"answer to {s.attributes['object']}" for s in both)
    with pytest.raises(DataError, match="6 of 108 questions have no answer"):
        carried_over(answers, old, new)
    by_line = dict(zip([s.id for s in new], answers.values(), strict=False))
    assert any(by_line[s.id] != f"answer to {s.attributes['object']}" for s in new[:102])


# --------------------------------------------------------------------------------------- leaks


def test_the_order_that_gives_answers_away_is_exposed(official: Path, tmp_path: Path) -> None:
    """Planted: odd numbers are yes. Control: the same questions in another order of numbers."""
    said = noted(official)
    assert "whether a number is odd or even is right for 100.0%" in said
    assert "18 questions about an image are in several splits" in said
    mixed = tmp_path / "coco"
    mixed.mkdir()
    for split in ("random", "popular", "adversarial"):
        made = list(rows(split, images=FEW))
        made = sorted(made, key=lambda row: hash_of(row["image"] + row["text"]))
        again = [{**row, "question_id": i} for i, row in enumerate(made, start=1)]
        lines(mixed / f"coco_pope_{split}.json", again)
    assert "odd or even" not in noted(mixed)


def hash_of(text: str) -> int:
    import zlib

    return zlib.crc32(text.encode())


@pytest.mark.parametrize(
    ("question", "named"),
    [
        ("Is there a snowboard in the image?", "snowboard"),
        ("Is there an umbrella in the imange?", "umbrella"),
        ("Is there a dining table in the image? Please answer yes or no.", "dining table"),
        ("Is there a red cube?", "red cube"),
        ("Do you see a dog?", ""),
    ],
)
def test_the_object_is_read_from_the_question(question: str, named: str) -> None:
    assert object_of(question) == named


# -------------------------------------------------------------------------------------- faults


GOOD = next(rows("random"))
BAD = [
    ({"label": "maybe"}, "line 1: the label is 'maybe', expected yes or no"),
    ({"label": None}, "the label is 'None'"),
    ({"text": " "}, "text is ' ', expected a text"),
    ({"text": 3}, "text is '3', expected a text"),
    ({"image": None}, "expected an image or its path, got 'None'"),
    ({"image": "https://x/1.jpg"}, "expected an image or its path"),
    ({"image": "../../../etc/1.jpg"}, "is outside the folder"),
    ({"question_id": None}, "question_id is 'None', expected a number or a text"),
    ({"question_id": float("nan")}, "question_id is 'nan'"),
    ({"question_id": [1]}, "expected a number or a text"),
]


@pytest.mark.parametrize(("change", "told"), BAD, ids=lambda value: str(value)[:30])
def test_a_wrong_cell_is_named_with_its_line(
    change: Mapping[str, Any], told: str, tmp_path: Path
) -> None:
    path = lines(tmp_path / "coco_pope_random.json", [{**GOOD, **change}, GOOD])
    with pytest.raises(DataError, match=told):
        read(path)


def test_files_of_other_sets_are_refused_with_what_was_found(tmp_path: Path) -> None:
    path = lines(tmp_path / "x.jsonl", [{"index": 1, "question": "?", "A": "a", "B": "b"}])
    with pytest.raises(DataError, match="columns index, question, A, B, which is no form") as info:
        read(path)
    for form in ("official files", "LLaVA's file", "hub columns", "VLMEvalKit's table"):
        assert form in str(info.value.hint)
    mixed = [{**next(iter(hub_rows(images=1))), "category": "easy"}]
    with pytest.raises(DataError, match="the category is 'easy'"):
        read(lines(tmp_path / "y.jsonl", mixed))


def test_folders_without_the_set_are_refused_with_what_they_have(tmp_path: Path) -> None:
    with pytest.raises(DataNotFound, match="has no file of POPE; it has nothing"):
        read(tmp_path)
    (tmp_path / "notes.txt").write_text("x")
    with pytest.raises(DataNotFound, match=r"it has notes\.txt"):
        read(tmp_path)
    with pytest.raises(DataNotFound, match="There is no file or folder"):
        read(tmp_path / "missing")


def test_a_source_is_needed_and_a_missing_folder_of_images_is_said(
    official: Path, tmp_path: Path
) -> None:
    with pytest.raises(DataNotFound, match="pope needs a source"):
        read(" ")
    assert "name the folder of the images with --set options.dataset.images" in noted(official)
    assert "name the folder" not in noted(official, images=str(tmp_path))


def test_two_editions_in_one_folder_are_refused(tmp_path: Path) -> None:
    write_official(tmp_path / "old", images=1, first=True)
    write_official(tmp_path / "new", images=1)
    with pytest.raises(DataError, match="are both the coco adversarial split"):
        read(tmp_path)


def test_a_repeated_id_and_an_empty_choice_are_refused(official: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"occurs more than once.*authors publish it"):
        read(lines(tmp_path / "coco_pope_random.json", [GOOD, GOOD]))
    with pytest.raises(DataNotFound, match="has no questions"):
        read(official / "coco_pope_random.json", split="popular")
    with pytest.raises(SpecError, match="no prompt style 'llawa'"):
        read(official, prompt="llawa")


def test_a_prompt_style_is_added_and_kept(official: Path) -> None:
    sample = read(official, prompt="vcd")[0]
    assert sample.prompt.endswith("image? Please answer this question with one word.")
    assert sample.attributes["prompt_style"] == "vcd"
    own = read(official, prompt=" Yes or no?")[0]
    assert own.prompt.endswith("image? Yes or no?")
    assert CARD.headline == "mean_f1"
