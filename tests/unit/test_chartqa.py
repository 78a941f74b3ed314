"""ChartQA: its forms with the charts' tables, relaxed accuracy of each toolkit, years."""

from __future__ import annotations

import base64
import json
from io import BytesIO
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
from PIL import Image

from vlmlens.errors import DataError
from vlmlens.samples import Sample
from vlmlens_plugins.benchmarks import answered, intervals, scored
from vlmlens_plugins.benchmarks.chartqa import CARD, ChartQa, ChartQaOptions
from vlmlens_plugins.benchmarks.chartqa.checks import ASKED, TABLES, written
from vlmlens_plugins.benchmarks.chartqa.parsing import number
from vlmlens_plugins.data.checks import paint


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VLMLENS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "hf")


def dataset(source: Path | str, **options: Any) -> ChartQa:
    return ChartQa(str(source), ChartQaOptions(**options))


def read(source: Path | str, **options: Any) -> list[Sample]:
    return list(dataset(source, **options).samples(()))


def score(
    samples: list[Sample], texts: str | list[str], rule: str = "official"
) -> dict[str, float]:
    said = [texts] * len(samples) if isinstance(texts, str) else texts
    return scored(CARD.metrics, samples, answered(said, samples, CARD.rule(rule)))


LABELS = ("Yes", "14", "2014", "0.57", "Solomon Islands")


@pytest.fixture(scope="module")
def full(tmp_path_factory: pytest.TempPathFactory) -> list[Sample]:
    """1,250 human and 1,250 augmented questions, two on each chart; five labels in turn."""
    asked = {
        part: [(f"{part}{n // 2}.png", f"Question {n}?", LABELS[n % 5]) for n in range(1250)]
        for part in ("human", "augmented")
    }
    return read(written(tmp_path_factory.mktemp("chartqa"), asked))


def test_the_test_split_in_full_size(full: list[Sample]) -> None:
    assert len(full) == 2500
    assert str(full[0].attributes["edition"]).startswith(
        "test, 1,250 human and 1,250 augmented questions (the test split's number); official files"
    )
    assert len({sample.split_group for sample in full}) == 1250
    assert [sample.id for sample in full[1249:1251]] == ["human/1250", "augmented/1"]


def test_constant_answers(full: list[Sample]) -> None:
    for text in ("Yes", "14", "Solomon Islands"):
        found = score(full, text)
        assert (found["relaxed"], found["relaxed_human"], found["relaxed_augmented"]) == (
            20,
            20,
            20,
        )
    assert score(full, "0.6")["relaxed"] == 0
    assert score(full, "0.59")["relaxed"] == 20
    assert score(full, "1950") | {"year_share": 20} == {
        "relaxed": 20,
        "relaxed_human": 20,
        "relaxed_augmented": 20,
        "years_exact": 0,
        "year_share": 20,
    }
    assert score(full, "2014")["years_exact"] == 20
    assert score(full, "1950", "strict")["relaxed"] == 0
    texts = [str(s.label) if s.task == "human" else "?" for s in full]
    part = score(full, texts)
    assert (part["relaxed"], part["relaxed_human"], part["relaxed_augmented"]) == (50, 100, 0)
    drawn = intervals(CARD.metrics, full, answered(texts, full, CARD.rule("strict")), draws=50,
                      rng=np.random.default_rng(0))  # fmt: skip
    assert drawn["relaxed"][0] < 50 < drawn["relaxed"][1]


def asked(label: str) -> Sample:
    return Sample("1", "?", label=label, task="human")


@pytest.mark.parametrize(
    ("label", "text", "official", "lmms_eval", "vlmevalkit", "strict"),
    [
        ("14", "14", 1, 1, 1, 1),
        ("14", "14.7", 1, 1, 1, 1),
        ("14", "14.71", 0, 0, 0, 0),
        ("14", "13.3", 1, 1, 1, 1),
        ("14", "13.29", 0, 0, 0, 0),
        ("-20", "-20.9", 1, 1, 1, 1),
        ("-20", "20", 0, 0, 0, 0),
        ("14", "14.", 1, 1, 1, 1),
        ("14", "14\n", 1, 1, 1, 1),
        ("14", "It is 14", 0, 0, 0, 0),
        ("Yes", "yes", 1, 1, 1, 1),
        ("Yes", "Yes\n", 1, 0, 1, 1),
        ("Yes", " Yes", 1, 0, 1, 1),
        ("Yes", "Yes.", 0, 0, 0, 1),
        ("2", "2%", 0, 0, 0, 1),
        ("2%", "2%", 1, 1, 1, 1),
        ("2%", "2", 0, 0, 0, 1),
        ("0.02", "2%", 1, 1, 1, 1),
        ("2%", "2% ", 1, 0, 1, 1),
        ("2%", "200%", 0, 0, 0, 0),
        ("977633", "977,633", 0, 0, 0, 1),
        ("977633", "977,63", 0, 0, 0, 0),
        ("3", "$3", 0, 0, 0, 1),
        ("1.4", "1.4 billion", 0, 0, 0, 0),
        ("0", "0", 1, 1, 1, 1),
        ("0", "0.0", 0, 0, 0, 1),
        ("0", "0.001", 0, 0, 0, 0),
        ("2014", "2014", 1, 1, 1, 1),
        ("2014", "1950", 1, 1, 1, 0),
        ("2014", "1900", 0, 0, 0, 0),
        ("2014", "2014.0", 1, 1, 1, 1),
        ("[2014, 2016]", "2016", 0, 0, 1, 0),
        ("[2014, 2016]", "[2014, 2016]", 1, 1, 0, 1),
        ("[2014, 2016]", "2016 and 2014", 0, 0, 0, 1),
        ("[2014, 2016]", "2014, 2015", 0, 0, 0, 0),
        ("['Red', 'Blue']", "blue", 0, 0, 1, 0),
        ("[Red, Blue]", "[red, blue]", 1, 1, 1, 1),
        ("Solomon Islands", "solomon  islands", 0, 0, 0, 1),
        ("14", "", 0, 0, 0, 0),
        ("14", "nan", 0, 0, 0, 0),
        ("14", "inf", 0, 0, 0, 0),
        ("nan", "nan", 0, 0, 0, 1),
    ],
)
def test_rules(
    label: str, text: str, official: int, lmms_eval: int, vlmevalkit: int, strict: int
) -> None:
    found = {}
    for name, rule in CARD.rules.items():
        (answer,) = answered([text], [asked(label)], rule)
        found[name] = answer.credit
    expected = {"official": official, "lmms-eval": lmms_eval, "vlmevalkit": vlmevalkit}
    assert found == {"strict": strict, **expected}


def test_an_exact_limit_is_within(tmp_path: Path) -> None:
    """5 % of 20 is 1: 21 is right. The tolerance goes by the label, not by the answer."""
    for label, text, right in (("20", "21", 1), ("21", "20", 1), ("20", "19", 1), ("19", "20", 0)):
        (answer,) = answered([text], [asked(label)], CARD.rule("official"))
        assert answer.credit == right
    assert number("12 %") == 0.12
    assert number("1e3") == 1000
    assert number("") is None


def test_the_official_folder(tmp_path: Path) -> None:
    top = written(tmp_path)
    paint(top / "test" / "png", "1.png", "two_2.png")
    (top / "test" / "tables" / "two_2.csv").unlink()
    made = dataset(tmp_path)
    samples = list(made.samples(()))
    assert [s.id for s in samples] == ["human/1", "human/2", "augmented/1", "augmented/2"]
    assert [s.label for s in samples] == ["14", "2014", "Yes", "0.57"]
    assert samples[0].attributes["table"] == TABLES["1"].strip()
    assert "table" not in samples[2].attributes
    assert any("1 of 2 charts have no table" in note for note in made.notes)
    assert samples[0].open_images()[0].size == (6, 4)
    assert [s.split_group for s in samples] == ["1.png", "1.png", "two_2.png", "two_2.png"]
    ids = [sample.id for sample in samples]
    for source in (top, top / "test"):
        assert [s.id for s in read(source)] == ids
    assert [s.id for s in read(top / "test" / "test_human.json")] == ids[:2]
    assert [s.id for s in read(top, part="augmented")] == ids[2:]
    assert "table" not in read(top, tables=False)[0].attributes


def test_splits(tmp_path: Path) -> None:
    top = written(tmp_path)
    other = {"human": [("1.png", "Another?", "3")]}
    written(tmp_path / "more", other, "val")
    (tmp_path / "more" / "ChartQA Dataset" / "val").rename(top / "val")
    assert len(read(top)) == 4
    assert [s.prompt for s in read(top, split="val")] == ["Another?"]
    with pytest.raises(DataError, match="no split 'train'"):
        read(top, split="train")
    with pytest.raises(DataError, match="no split 'test'"):
        read(top / "val", split="test")
    with pytest.raises(DataError, match="no augmented questions"):
        read(top, split="val", part="augmented")


def png(red: int) -> bytes:
    sink = BytesIO()
    Image.new("RGB", (6, 4), (red, 0, 0)).save(sink, "PNG")
    return sink.getvalue()


def test_tables_of_three_owners(tmp_path: Path) -> None:
    """All give the same questions, labels, parts and groups as the official files."""
    flat = [
        (part, n, *each) for part, questions in ASKED.items() for n, each in enumerate(questions)
    ]
    image = [{"bytes": png(len(each[2])), "path": None} for each in flat]
    parts, questions, labels = ([each[i] for each in flat] for i in (0, 3, 4))
    m4 = {
        "image": image,
        "query": questions,
        "label": [[label] for label in labels],
        "human_or_machine": [int(part == "augmented") for part in parts],
    }
    features = datasets.Features(
        {
            "image": datasets.Image(),
            "query": datasets.Value("string"),
            "label": datasets.List(datasets.Value("string")),
            "human_or_machine": datasets.ClassLabel(names=["human", "machine"]),
        }
    )
    datasets.Dataset.from_dict(m4, features=features).save_to_disk(tmp_path / "m4")
    lmms = {
        "type": [f"{part}_test" for part in parts],
        "question": questions,
        "answer": labels,
        "image": image,
    }
    datasets.Dataset.from_dict(lmms).to_parquet(tmp_path / "lmms.parquet")
    lines = ["index\tquestion\tanswer\tsplit\timage"]
    for i, (part, n, _, question, label) in enumerate(flat):
        cell = str(i - 1) if n else base64.b64encode(image[i]["bytes"]).decode()  # type: ignore[arg-type]
        lines.append("\t".join((str(i), question, label, f"test_{part}", cell)))
    (tmp_path / "ChartQA_TEST.tsv").write_text("\n".join(lines))
    expected = [("human", "14"), ("human", "2014"), ("augmented", "Yes"), ("augmented", "0.57")]
    for source, form in (
        ("m4", "HuggingFaceM4"),
        ("lmms.parquet", "lmms-lab"),
        ("ChartQA_TEST.tsv", "VLMEvalKit table"),
    ):
        made = dataset(tmp_path / source)
        samples = list(made.samples(()))
        assert form in made.notes[0]
        assert [(s.task, s.label) for s in samples] == expected
        assert [s.prompt for s in samples] == questions
        assert samples[0].split_group == samples[1].split_group != samples[2].split_group
    assert [s.id for s in samples] == ["human/0", "human/1", "augmented/2", "augmented/3"]


def test_prompts(tmp_path: Path) -> None:
    top = written(tmp_path)
    for style, ending in {
        "official": "",
        "lmms-eval": "\nAnswer the question with a single word.",
        "vlmevalkit": "\nAnswer the question using a single word or phrase.",
    }.items():
        assert read(top, prompt=style)[0].prompt == "How many bars?" + ending


def test_wrong_sources_give_one_clear_error(tmp_path: Path) -> None:
    (tmp_path / "mixed.jsonl").write_text('{"question": "?", "label": "no"}\n')
    with pytest.raises(DataError, match="none of the forms of ChartQA") as caught:
        read(tmp_path / "mixed.jsonl")
    assert "test_human.json" in caught.value.hint
    (tmp_path / "test_human.json").write_text('[{"question": "?", "label": "no"}]')
    with pytest.raises(DataError, match="has the columns question, label"):
        read(tmp_path / "test_human.json")
    (tmp_path / "test_human.json").write_text('[{"imgname": "1.png", "query": "?"}]')
    with pytest.raises(DataError, match="has the columns imgname, query"):
        read(tmp_path)


def test_a_table_stays_in_its_folder(tmp_path: Path) -> None:
    top = written(tmp_path)
    table = top / "test" / "tables" / "1.csv"
    (tmp_path / "secret.csv").write_text("a,b\n")
    table.unlink()
    table.symlink_to(tmp_path / "secret.csv")
    with pytest.raises(DataError, match="outside the folder"):
        read(top)
    table.unlink()
    table.write_bytes(b"a,\xff\n")
    made = dataset(top)
    assert made.samples(())[0].attributes["table"] == "a,\ufffd"
    assert any("tables that are not all UTF-8: 1 (such as 1.csv)" in n for n in made.notes)
    rows = [{"imgname": "../../secret.csv", "query": "?", "label": "1"}]
    (top / "test" / "test_human.json").write_text(json.dumps(rows))
    with pytest.raises(DataError, match="outside the folder"):
        read(top)
