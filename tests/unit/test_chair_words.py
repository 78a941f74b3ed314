"""How CHAIR's rules read captions: rows of texts, singulars, the tables of names."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from vlmlens.errors import DataError, DataNotFound, MissingDependency
from vlmlens.samples import Sample
from vlmlens_plugins.benchmarks import answered
from vlmlens_plugins.benchmarks.chair import CARD
from vlmlens_plugins.benchmarks.chair.tables import JOINED, NAMES, keyed, table
from vlmlens_plugins.benchmarks.chair.words import joined, singular, tokens
from vlmlens_plugins.object_names import coco_names, demo_names, read_names

SYNONYMS = """person, man, woman, people, child, baby, passenger
motorcycle, scooter,  motor bike, motor cycle, motorbike
airplane, plane, jet
bus, minibus
train, locomotive
traffic light, street light
bear, panda
dog, puppy, doggie
tie, bow, bow tie
wine glass
knife, pocketknife
hot dog
chair, seat, stool
dining table, table, desk
toilet, urinal
"""
"""In the layout of the authors' file, with its blank too many before `motor bike`."""


@pytest.fixture
def asked(tmp_path: Path) -> Sample:
    path = tmp_path / "synonyms.txt"
    path.write_text(SYNONYMS, encoding="utf-8")
    return Sample("1", "", attributes={NAMES: keyed(str(path)), "objects": "[]"})


def said(rule: str, text: str, sample: Sample) -> str | None:
    return CARD.rule(rule).read(text, sample)


@pytest.mark.parametrize(
    ("text", "official", "strict"),
    [
        ("A dog and two dogs.", "dog, dog", "dog, dog"),
        ("A bus.", "", "bus"),
        ("Two buses.", "bus", "bus"),
        ("A minibus; minibuses", "bus", "bus, bus"),
        ("A motor bike, a motor cycle", "motorcycle", "motorcycle, motorcycle"),
        ("A wine glass, two wine glasses", "wine glass, wine glass", "wine glass, wine glass"),
        ("A hot dog", "hot dog", "hot dog"),
        ("A hot-dog", "", "hot dog"),
        ("Knives, women, children", "knife, person, person", "knife, person"),
        ("A baby bear and an adult bear", "bear, bear", "bear, bear"),
        ("A baby animal", "", ""),
        ("A passenger train, a passenger jet", "train, airplane", "train, airplane"),
        ("A bow tie. Ties.", "tie", "tie, tie"),
        ("A doggie; doggies", "dog", "dog, dog"),
        ("The seat of the toilet", "toilet", "toilet"),
        ("A toilet seat", "toilet", "toilet"),
        ("A seat and a chair", "chair, chair", "chair, chair"),
        ("A dining table", "dining table", "dining table"),
        ('The dog\'s tie. (A man), "a dog"!', "dog, tie, person, dog", "dog, tie, person, dog"),
        ("There is no dog.", "dog", "dog"),
        ("A train track", "train", ""),
        ("Home plate", "", ""),
        ("DOG", "dog", "dog"),
        ("Dogmatic trains of thought", "train", "train"),
        ("dog/cat, 3:dog", "dog", "dog, dog"),
        ("...dog...", "dog", "dog"),
        ("Nothing.", "", ""),
    ],
)
def test_the_original_rule_keeps_its_faults_and_strict_has_none(
    text: str, official: str, strict: str, asked: Sample
) -> None:
    assert said("official", text, asked) == official
    assert said("strict", text, asked) == strict


def test_an_empty_caption_says_nothing(asked: Sample) -> None:
    assert [said(rule, " \n", asked) for rule in ("strict", "official")] == [None, None]


@pytest.mark.parametrize(
    ("word", "one"),
    [
        ("dogs", "dog"),
        ("bus", "bu"),
        ("buses", "bus"),
        ("glass", "glas"),
        ("glasses", "glass"),
        ("benches", "bench"),
        ("toothbrushes", "toothbrush"),
        ("puppies", "puppy"),
        ("ties", "ty"),
        ("collies", "collies"),
        ("calves", "calf"),
        ("knives", "knife"),
        ("mice", "mouse"),
        ("geese", "goose"),
        ("firemen", "fireman"),
        ("people", "person"),
        ("scissors", "scissors"),
        ("luggage", "luggage"),
        ("tomatoes", "tomato"),
        ("horseshoes", "horseshoe"),
        ("vases", "vase"),
        ("skis", "ski"),
        ("pizza", "pizza"),
    ],
)
def test_singulars_are_those_of_the_original(word: str, one: str) -> None:
    assert singular(word) == one


def test_tokens_are_those_of_a_treebank() -> None:
    text = "It's a man's dog-house (red), 'big'; 3,000 cats... isn't it? \"Yes.\""
    assert tokens(text) == [
        "It", "'s", "a", "man", "'s", "dog-house", "(", "red", ")", ",", "'big", "'", ";", "3,000",
        "cats", "...", "is", "n't", "it", "?", '"', "Yes", ".", '"',
    ]  # fmt: skip


def test_pairs_are_joined_from_the_left() -> None:
    assert joined(["hot", "dog", "dog"], JOINED) == ["hot dog", "dog"]
    assert joined(["baby", "cow", "tie"], JOINED) == ["cow", "tie"]
    assert joined([], JOINED) == []


@pytest.mark.parametrize("rule", ["opera", "lmms-eval"])
def test_rules_of_copies_refuse_without_nltk(
    rule: str, asked: Sample, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "nltk", None)
    with pytest.raises(MissingDependency, match="nltk") as caught:
        CARD.rule(rule).check([asked])
    assert "nltk.downloader" in caught.value.hint
    with pytest.raises(MissingDependency):
        answered(["Two zebus, say."], [asked], CARD.rule(rule))
    CARD.rule("strict").check([asked])
    CARD.rule("official").check([asked])


def test_the_own_table_has_the_kinds_of_coco_and_no_name_twice() -> None:
    names = coco_names()
    assert len(names.synonyms) == 80
    assert all(names.object_of(kind) == kind for kind in names.synonyms)
    text = "A baby elephant, two mice, a baseball player on a baseball field, and a train station."
    assert [one.object for one in names.mentions(text)] == ["elephant", "mouse", "person"]
    assert names.object_of("train station") is None


def test_every_kind_of_coco_is_read_by_its_own_name() -> None:
    sample = Sample("1", "", attributes={"objects": "[]"})
    kinds = list(coco_names().synonyms)
    assert said("strict", "; ".join(kinds), sample) == ", ".join(kinds)
    lost = [kind for kind in kinds if said("official", f"A {kind}.", sample) != kind]
    assert lost == ["bus"]


def test_a_table_is_read_again_only_if_it_is_the_same(tmp_path: Path) -> None:
    path = tmp_path / "synonyms.txt"
    path.write_text("dog, puppy\n", encoding="utf-8")
    key = keyed(str(path))
    assert table(key).names.object_of("puppy") == "dog"
    path.write_text("dog, hound\n", encoding="utf-8")
    table.cache_clear()
    with pytest.raises(DataNotFound, match="changed"):
        table(key)
    path.unlink()
    with pytest.raises(DataNotFound, match="not there"):
        table(key)


def test_tables_that_cannot_be_used_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataNotFound):
        keyed(str(tmp_path / "none.txt"))
    (tmp_path / "chair.pkl").write_bytes(b"\x80\x04N.")
    with pytest.raises(DataError, match="pickle"):
        keyed(str(tmp_path / "chair.pkl"))
    (tmp_path / "twice.txt").write_text("dog, pet\ncat, pet\n")
    with pytest.raises(DataError, match="'pet'"):
        keyed(str(tmp_path / "twice.txt"))


def test_a_table_with_colons_is_read_by_all_rules(tmp_path: Path) -> None:
    (tmp_path / "own.txt").write_text("dog: puppy, hound\nsea lion < dog\n")
    sample = Sample("1", "", attributes={NAMES: keyed(str(tmp_path / "own.txt")), "objects": "[]"})
    assert said("official", "Two puppies and a hound", sample) == "dog, dog"
    assert said("strict", "A sea lion and a puppy", sample) == "sea lion, dog"


def test_names_of_the_demo_are_pairs_for_the_original_rule() -> None:
    sample = Sample("1", "", attributes={NAMES: "demo", "objects": "[]"})
    for rule in ("strict", "official"):
        assert said(rule, "A red cube and blue cones.", sample) == "red cube, blue cone"
    assert set(demo_names().synonyms) >= {"cube", "red cube"}


def test_the_file_of_the_authors_is_a_table_for_captions_too(tmp_path: Path) -> None:
    (tmp_path / "synonyms.txt").write_text(SYNONYMS)
    names = read_names(str(tmp_path / "synonyms.txt"))
    assert names.object_of("motor bike") == "motorcycle"
