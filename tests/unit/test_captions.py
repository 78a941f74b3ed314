"""Captions: objects are found by name, and CHAIR is what another way of counting gives."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from vlmlens.abc import AnalysisContext, Generation, ModelAdapter, Options
from vlmlens.errors import DataError, DataNotFound, MissingAnnotation, VlmlensError
from vlmlens.results import Result, Verdict
from vlmlens.samples import Sample
from vlmlens_plugins.analysis.captions import Captions
from vlmlens_plugins.analysis.captions.options import CaptionOptions
from vlmlens_plugins.demo.dataset import DemoDataset, DemoOptions
from vlmlens_plugins.demo.scenes import COLORS, SHAPES
from vlmlens_plugins.object_names import demo_names, read_names
from vlmlens_plugins.storage.memory import MemoryStore, forget

TABLE = """
# a part of a table
person: man, woman, people, little girl
dog: puppy, hound
hot dog
wine glass, goblet
bus
sea lion < animal
animal: beast
"""


def no_model() -> ModelAdapter:
    raise AssertionError("the model is not needed")


def caption(
    samples: Sequence[Sample],
    written: Mapping[str, str] | None = None,
    model: Any = no_model,
    **options: Any,
) -> Result:
    forget("captions")
    analysis = Captions(CaptionOptions(**{"draws": 200, **options}))
    analysis.check(samples, [])
    generated = {name: Generation(text) for name, text in (written or {}).items()}
    with MemoryStore.open("captions", mode="a", options=Options()) as store:
        return analysis.run(AnalysisContext(samples, store, model, generated=generated))


@pytest.fixture
def table(tmp_path: Path) -> str:
    path = tmp_path / "names.txt"
    path.write_text(TABLE, encoding="utf-8")
    return str(path)


# ---------------------------------------------------------------------- names in texts


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("A hot dog and a dog.", ["hot dog", "dog"]),
        ("Hot-dogs, HOT  DOGS", ["hot dog", "hot dog"]),
        ("a dogma, a hotdog, bedog", []),
        ("Two women and three people, a little girl.", ["person"] * 3),
        ("wine glasses and goblets; a glass of wine", ["wine glass", "wine glass"]),
        ("buses, the bus's door", ["bus", "bus"]),
        ("puppies (and a puppy)", ["dog", "dog"]),
        ("There is no dog.", ["dog"]),
        ("my_dog, hot_dogs; a seaside, a sea lion's", ["dog", "hot dog", "sea lion"]),
        ("a hot do\u017f, an \u0130, a PUPPY, hot d\u0131g", ["dog"]),
        ("", []),
    ],
)
def test_names_are_found_longest_first_between_word_borders(
    table: str, text: str, said: list[str]
) -> None:
    assert [one.object for one in read_names(table).mentions(text)] == said


def test_json_and_lines_say_the_same(table: str, tmp_path: Path) -> None:
    path = tmp_path / "names.json"
    read = read_names(table)
    heads = {name: f"{name} < {read.kinds[name]}" for name in read.kinds}
    path.write_text(json.dumps({heads.get(n, n): list(s) for n, s in read.synonyms.items()}))
    assert read_names(str(path)).synonyms == read.synonyms
    assert read_names(str(path)).kinds == read.kinds == {"sea lion": "animal"}


def test_the_kind_of_an_object_is_true_and_the_other_way_round_is_not() -> None:
    names = demo_names()
    assert {*SHAPES, *names.kinds} == set(names.synonyms)
    assert set(names.kinds) == {f"{color} {shape}" for color in COLORS for shape in SHAPES}
    assert names.is_true("cube", ["red cube"])
    assert names.is_named("red cube", ["cube"])
    assert not names.is_true("red cube", ["cube", "blue cube"])
    assert not names.is_named("red cube", ["blue cube"])


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("dog: hound\nwolf: hound", "'hound' is a name of both 'dog' and 'wolf'"),
        ("# nothing\n", "it names no object"),
        (": hound", "line 1 names no object"),
        ("(toy) dog: hound", "does not begin with a letter"),
        ("dog <: hound", "line 1 names no object"),
        ("dog < animal", "which it does not list"),
        ('{"dog": "hound"}', "no list of texts"),
        ('{"dog": ["hound"]', "no JSON"),
        (b"\xff\xfe\x00", "cannot be read"),
    ],
)
def test_a_table_that_cannot_be_used_is_refused(
    tmp_path: Path, content: str | bytes, words: str
) -> None:
    path = tmp_path / "names.txt"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(DataError, match=words):
        read_names(str(path))


# ---------------------------------------------------------------------- CHAIR


def drawn(count: int = 60) -> tuple[list[Sample], dict[str, str], list[tuple[set[str], list[str]]]]:
    """Samples, two of each group; their texts; and per sample what is there and what is said."""
    rng = np.random.default_rng(3)
    every = ["person", "dog", "bus", "hot dog"]
    samples, texts, known = [], {}, []
    for i in range(count):
        if i % 2 == 0:
            there = {name for name in every if rng.random() < 0.5}
        said = [n for n in rng.choice(every, 3).tolist() if n in there or rng.random() < 0.4]
        name = f"s{i}"
        about = {"objects": json.dumps(sorted(there))}
        task = "long" if i % 4 < 2 else "short"
        samples.append(Sample(name, "?", group=f"g{i // 2}", task=task, attributes=about))
        texts[name] = f"I see {' and a '.join(said) or 'nothing'}."
        known.append((there, said))
    return samples, texts, known


def test_chair_is_what_another_way_of_counting_gives(table: str) -> None:
    samples, texts, known = drawn()
    result = caption(samples, texts, objects=table, draws=2000)
    rows = {row["task"]: row for row in _rows(result, "captions-scores")}
    for task in ("all samples", "long", "short"):
        chosen = [k for s, k in zip(samples, known, strict=True) if task in ("all samples", s.task)]
        wrong = [sum(word not in there for word in said) for there, said in chosen]
        mentions = sum(len(said) for _, said in chosen)
        row = rows[task]
        assert row["chair_i"] == pytest.approx(sum(wrong) / mentions)
        assert row["chair_s"] == pytest.approx(np.mean([w > 0 for w in wrong]))
        named = sum(len(there & set(said)) for there, said in chosen)
        assert row["recall"] == pytest.approx(named / sum(len(there) for there, _ in chosen))
        assert row["chair_i_low"] < row["chair_i"] < row["chair_i_high"]
        pairs = [
            (chosen[i], chosen[j])
            for i in range(len(chosen))
            for j in range(0, len(chosen), 2)
            if j not in (i, i - 1)
        ]
        expected = sum(sum(w not in there for w in said) for (_, said), (there, _) in pairs)
        assert row["exchanged"] == pytest.approx(expected / mentions / (len(chosen) / 2 - 1))
    by_name = {row["object"]: row for row in _rows(result, "captions-objects")}
    assert by_name["dog"]["said"] == sum(said.count("dog") for _, said in known)
    assert by_name["dog"]["hallucinated"] == sum(
        said.count("dog") for there, said in known if "dog" not in there
    )
    first = _rows(result, "captions-examples")[0]
    there, said = known[int(first["sample"][1:])]
    assert first["hallucinated"].split(", ") == [word for word in said if word not in there]
    assert result.findings[0].verdict == Verdict.DIFFERS


def test_few_groups_keep_no_text_of_their_own_and_show_nothing(table: str) -> None:
    samples = [Sample(f"s{i}", "?", group=str(i), attributes={"objects": json.dumps([name])})
               for i, name in enumerate(("dog", "cup"))]  # fmt: skip
    result = caption(samples, {"s0": "a dog", "s1": "a cup"}, objects=table)
    (finding,) = result.findings
    assert (finding.values["chair_i"], finding.values["exchanged"]) == (0, 1)
    assert finding.verdict == Verdict.INCONCLUSIVE
    assert any("2 groups of samples are too few" in one for one in result.warnings)


def test_an_interval_is_over_groups(table: str) -> None:
    """As many texts again in the same groups make it no narrower."""
    samples, texts, _ = drawn()
    again = [Sample(f"{s.id}b", "?", group=s.group, attributes=s.attributes) for s in samples]
    once = _rows(
        caption(again, {f"{k}b": v for k, v in texts.items()}, objects=table), "captions-scores"
    )
    both = [Sample(s.id, "?", group=s.group, attributes=s.attributes) for s in samples] + again
    twice = caption(both, texts | {f"{k}b": v for k, v in texts.items()}, objects=table)
    assert _rows(twice, "captions-scores")[0]["chair_i_low"] == once[0]["chair_i_low"]


def test_texts_of_the_wrong_pictures_are_seen(table: str) -> None:
    """The mistake of joining by line, one line off."""
    samples, texts, _known = drawn()
    ids = [sample.id for sample in samples]
    shifted = dict(
        zip(ids, [*[texts[i] for i in ids[2:]], *[texts[i] for i in ids[:2]]], strict=True)
    )
    (finding,) = [
        each
        for each in caption(samples, shifted, objects=table).findings
        if each.subject == "all samples" and "CHAIR_i" in each.text
    ]
    assert finding.verdict == Verdict.NO_DIFFERENCE
    assert finding.values["chair_i"] == pytest.approx(finding.values["exchanged"], abs=0.1)


def test_texts_may_be_an_attribute_and_regions_name_objects(table: str) -> None:
    boxes = json.dumps({"dog": [0, 0, 4, 4], "sea lion": [4, 0, 8, 4], "tree": [0, 4, 4, 8]})
    samples = [
        Sample("a", "?", attributes={"regions": boxes, "said": "A beast, a puppy and a bus."}),
        Sample("b", "?", attributes={"objects": "[]", "said": "Nothing but a bus."}),
        Sample("c", "?", attributes={"said": "A dog."}),
        Sample("d", "?", attributes={"objects": "[]"}),
    ]
    result = caption(samples, objects=table, texts="said")
    (row,) = _rows(result, "captions-scores")
    assert (row["hallucinated"], row["mentions"], row["named"], row["there"]) == (2, 4, 2, 2)
    assert row["texts"] == 2
    assert len(result.warnings) == 4


def test_the_demo_model_names_shapes(vlm: ModelAdapter) -> None:
    found = DemoDataset("scenes", DemoOptions(scenes=12)).samples([])
    samples = [sample for sample in found if sample.task == "shape"]
    result = caption(samples, model=lambda: vlm, max_new_tokens=1)
    texts = [made.text for made in vlm.generate(vlm.encode(samples), max_new_tokens=1)]
    there = [json.loads(str(sample.attributes["objects"])) for sample in samples]
    wrong = [
        not any(name.endswith(text.strip()) for name in names)
        for text, names in zip(texts, there, strict=True)
    ]
    (row,) = _rows(result, "captions-scores")
    assert row["mentions"] == len(samples)
    assert row["hallucinated"] == sum(wrong)


@pytest.mark.parametrize(
    ("attributes", "options", "error"),
    [
        ({}, {}, MissingAnnotation),
        ({"objects": '["unicorn"]'}, {}, MissingAnnotation),
        ({"objects": "dog"}, {}, DataError),
        ({"objects": '["cube"]'}, {"texts": "caption"}, MissingAnnotation),
        ({"objects": '["cube"]'}, {"objects": "nowhere.txt"}, DataNotFound),
    ],
)
def test_what_is_missing_is_said_before_the_model_runs(
    attributes: dict[str, str], options: dict[str, str], error: type[VlmlensError]
) -> None:
    analysis = Captions(CaptionOptions(**options))  # type: ignore[arg-type]
    with pytest.raises(error):
        analysis.check([Sample("a", "?", attributes=attributes)], [])


def test_texts_without_an_object_are_inconclusive(table: str) -> None:
    samples, texts, _ = drawn(8)
    result = caption(samples, dict.fromkeys(texts, "Nice."), objects=table)
    assert {each.verdict for each in result.findings} == {Verdict.INCONCLUSIVE}
    assert _rows(result, "captions-scores")[0]["chair_i"] is None


def _rows(result: Result, name: str) -> list[dict[str, Any]]:
    table = result.table(name)
    return [dict(zip(table.columns, row, strict=True)) for row in table.rows()]
