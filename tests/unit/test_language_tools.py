"""How CHAIR's and AMBER's rules use NLTK and spaCy, with stand-ins that know a few words."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from vlmlens.errors import MissingDependency
from vlmlens.samples import Sample
from vlmlens_plugins.benchmarks import _nltk, answered, scored
from vlmlens_plugins.benchmarks.amber import CARD as AMBER
from vlmlens_plugins.benchmarks.amber import captions
from vlmlens_plugins.benchmarks.amber.captions import HALLU, TRUTH
from vlmlens_plugins.benchmarks.amber.lists import LISTS, keyed
from vlmlens_plugins.benchmarks.chair import CARD as CHAIR
from vlmlens_plugins.benchmarks.chair import readers

TAGS = {"Dogs": "NNS", "dogs": "NNS", "Sky": "NNP", "rides": "VBZ", "puppy": "NN", "bus": "NN"}
LEMMAS = {("dogs", "n"): "dog", ("rides", "v"): "ride", ("rides", "n"): "rider"}
ALIKE = {frozenset(("puppy", "dog")): 0.81, frozenset(("ship", "sky")): 0.8}


class Lemmatizer:
    def lemmatize(self, word: str, pos: str) -> str:
        return LEMMAS.get((word, pos), word)


class Word(str):
    def similarity(self, other: str) -> float:
        return 1.0 if self == other else ALIKE.get(frozenset((str(self), str(other))), 0.1)


def forget() -> None:
    for cached in (
        _nltk.tagged, _nltk.lemma, readers._named, captions._said, captions._similar,
        captions._document, captions._vectors,
    ):  # fmt: skip
        cached.cache_clear()


@pytest.fixture(autouse=True)
def tools(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    nltk: Any = ModuleType("nltk")
    nltk.word_tokenize = lambda text: text.replace(".", " .").split()
    nltk.pos_tag = lambda words: [(word, TAGS.get(word, "DT")) for word in words]
    nltk.stem = SimpleNamespace(WordNetLemmatizer=Lemmatizer)
    spacy: Any = ModuleType("spacy")
    spacy.load = lambda name: {"en_core_web_lg": Word}[name]
    monkeypatch.setitem(sys.modules, "nltk", nltk)
    monkeypatch.setitem(sys.modules, "spacy", spacy)
    forget()
    yield SimpleNamespace(nltk=nltk, spacy=spacy)
    forget()


@pytest.fixture
def caption(tmp_path: Path) -> Sample:
    related: dict[str, list[str]] = {"dog": [], "sky": [], "puppy": [], "ship": []}
    (tmp_path / "relation.json").write_text(json.dumps(related))
    (tmp_path / "safe_words.txt").write_text("")
    about = {TRUTH: '["dog", "sky"]', HALLU: '["ship"]', LISTS: keyed(tmp_path)}
    return Sample("1", "", task="generative", attributes=about)


def test_lemmas_are_of_the_part_of_speech() -> None:
    sample = Sample("1", "", attributes={"objects": '["dog"]'})
    for name in ("opera", "lmms-eval"):
        CHAIR.rule(name).check([sample])
        answers = answered(["The dogs rides a bus."], [sample], CHAIR.rule(name))
        assert answers[0].said == "dog, bus"
        assert answers[0].credit == 0
        metrics = CHAIR.rule(name).metrics
        assert metrics is not None
        found = scored(metrics, [sample], answers)
        assert (found["chair_i"], found["length"]) == (50, 6)


def test_words_of_like_vectors_count_as_one(caption: Sample) -> None:
    rule = AMBER.rule("official")
    rule.check([caption])
    # Sky is no noun of the list as it is spelled; a puppy is like a dog, and counts as it
    answers = answered(["Sky puppy dogs."], [caption], rule)
    assert (answers[0].said, answers[0].credit) == ("puppy, dog", 1)
    found = captions.OFFICIAL.judged("Sky puppy dogs.", caption)
    assert (found.wrong, found.kept, found.covered, found.hit) == (0, 2, 1, 0)
    strict = captions.STRICT.judged("Sky puppy dogs.", caption)
    assert (strict.wrong, strict.kept, strict.covered) == (1, 3, 2)


def test_missing_data_and_vectors_are_named(tools: Any, caption: Sample) -> None:
    def unknown(name: str) -> None:
        raise OSError(f"no model {name}")

    tools.spacy.load = unknown
    with pytest.raises(MissingDependency, match="en_core_web_lg"):
        AMBER.rule("official").check([caption])

    def lost(text: str) -> None:
        raise LookupError("\n***\n  Resource \x1b[93mpunkt_tab\x1b[0m not found.\n")

    tools.nltk.word_tokenize = lost
    forget()
    with pytest.raises(MissingDependency, match="punkt_tab"):
        CHAIR.rule("opera").check([caption])
