"""AMBER's captions: which words count, held against the authors' flags, and what is refused."""

from __future__ import annotations

import json
import random
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from vlmlens.errors import DataError, DataNotFound, ManifestError, MissingDependency
from vlmlens.samples import Sample
from vlmlens_plugins.benchmarks import answered, scored
from vlmlens_plugins.benchmarks.amber import CARD
from vlmlens_plugins.benchmarks.amber.captions import HALLU, STRICT, TRUTH, Same, judged
from vlmlens_plugins.benchmarks.amber.checks import lists as written
from vlmlens_plugins.benchmarks.amber.lists import LISTS, Lists, keyed, lists

WORDS = (
    "sky", "grass", "ground", "man", "person", "dog", "sun", "ship", "cloud", "sea", "lake", "bird",
)  # fmt: skip


def never(first: str, second: str) -> bool:
    del first, second
    return False


def alike(first: str, second: str) -> bool:
    """A likeness that is no equality: words of the same first letter."""
    return first[0] == second[0]


def flagged(
    nouns: Sequence[str], truth: list[str], hallu: list[str], known: Lists, same: Same
) -> tuple[int, ...]:
    """The counts by lists of flags over related and listed words, another way to the same."""

    def pool(words: list[str]) -> list[tuple[str, int]]:
        found = [(one, i) for i, word in enumerate(words) for one in known.related.get(word, [])]
        return found + list(zip(words, range(len(words)), strict=True))

    safe, made_up = pool(truth), pool(hallu)
    safe_flags, hallu_flags, wrong = [0] * len(truth), [0] * len(hallu), 0
    for noun in nouns:
        if noun in known.safe:
            continue
        if noun in [word for word, _ in safe]:
            safe_flags[next(i for word, i in safe if word == noun)] = 1
            continue
        for found in (
            [i for word, i in made_up if word == noun],
            [i for word, i in made_up if same(noun, word)],
        ):
            for i in found[:1]:
                hallu_flags[i] = 1
        for word, i in safe:
            if same(noun, word):
                safe_flags[i] = 1
                break
        else:
            wrong += 1
    lengths = len(nouns), len(truth), len(hallu)
    return wrong, lengths[0], sum(safe_flags), lengths[1], sum(hallu_flags), lengths[2]


@pytest.mark.parametrize("same", [never, alike])
def test_counts_are_those_of_the_authors_flags(same: Same) -> None:
    rng = random.Random(0)
    seen = set()
    for _ in range(300):
        related = {word: rng.sample(WORDS, rng.randint(0, 2)) for word in rng.sample(WORDS, 6)}
        known = Lists(related, frozenset(rng.sample(WORDS, 1)))
        truth = [rng.choice(WORDS) for _ in range(rng.randint(0, 5))]
        hallu = rng.sample(WORDS, rng.randint(0, 3))
        nouns = [rng.choice(WORDS) for _ in range(rng.randint(0, 6))]
        found = tuple(judged(nouns, truth, hallu, known, same))
        assert found == flagged(nouns, truth, hallu, known, same)
        seen.add(found)
    assert len(seen) > 100


@pytest.fixture
def caption(tmp_path: Path) -> Sample:
    about = {TRUTH: '["sky", "grass", "man", "dog", "dog"]', HALLU: '["sun", "ship"]'}
    key = keyed(written(tmp_path))
    return Sample("1", "", task="generative", attributes={**about, LISTS: key})


@pytest.mark.parametrize(
    ("text", "said", "counts"),
    [
        ("A man with his dogs.", "man, dog", (0, 2, 2)),
        ("The SKY above the ground", "sky, ground", (0, 2, 2)),
        ("The person's ship, two ships", "person, ship, ship", (2, 3, 1)),
        ("A light orange balloon", "", (0, 0, 0)),
        ("dogmatic menu", "", (0, 0, 0)),
        ("A dog, a dog and a dog", "dog, dog, dog", (0, 3, 1)),
        ("The sun", "sun", (1, 1, 0)),
    ],
)
def test_strict_reads_the_words_of_the_lists(
    text: str, said: str, counts: tuple[int, int, int], caption: Sample
) -> None:
    assert CARD.rule("strict").read(text, caption) == said
    found = STRICT.judged(text, caption)
    assert (found.wrong, found.kept, found.covered) == counts
    assert found.truths == 5
    credit = answered([text], [caption], CARD.rule("strict"))[0].credit
    assert credit == (counts[0] == 0)


def test_listed_hallucinations_are_counted_once_each(caption: Sample) -> None:
    found = scored(
        CARD.metrics, [caption], answered(["A ship, a ship, a man"], [caption], CARD.rule("strict"))
    )
    assert found["cog"] == 50
    assert found["chair"] == pytest.approx(200 / 3)
    assert (found["hal"], found["cover"]) == (100, 20)


def test_an_empty_caption_says_nothing_and_makes_nothing_up(caption: Sample) -> None:
    answers = answered([" "], [caption], CARD.rule("strict"))
    assert answers[0].said is None
    found = scored(CARD.metrics, [caption], answers)
    assert (found["hal"], found["cover"], found["chair"]) == (0, 0, 0)


def test_planted_rates_are_found_and_shifted_captions_are_not(tmp_path: Path) -> None:
    rng = random.Random(1)
    folder = tmp_path / "lists"
    folder.mkdir()
    words = [f"thing{i}" for i in range(60)]
    (folder / "relation.json").write_text(json.dumps({word: [] for word in words}))
    (folder / "safe_words.txt").write_text("")
    key, samples, texts, wrong, kept = keyed(folder), [], [], 0, 0
    for i in range(200):
        truth = rng.sample(words, 4)
        bad = [word for word in rng.sample(words, 2) if word not in truth][: rng.randint(0, 2)]
        about = {TRUTH: json.dumps(truth), HALLU: json.dumps(bad[:1]), LISTS: key}
        samples.append(Sample(str(i), "", task="generative", attributes=about))
        texts.append(" ".join([*truth[:3], *bad]))
        wrong, kept = wrong + len(bad), kept + 3 + len(bad)
    rule = CARD.rule("strict")
    found = scored(CARD.metrics, samples, answered(texts, samples, rule))
    assert found["chair"] == pytest.approx(100 * wrong / kept)
    assert found["cover"] == 75
    assert found["cog"] == 100
    shifted = answered([*texts[1:], texts[0]], samples, rule)
    assert scored(CARD.metrics, samples, shifted)["chair"] > 80


@pytest.mark.parametrize("rule", ["official", "lmms-eval"])
def test_the_authors_rule_refuses_captions_without_its_packages(
    rule: str, caption: Sample, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "nltk", None)
    question = Sample("2", "", label="no", choices=("yes", "no"), task="existence")
    with pytest.raises(MissingDependency, match="nltk"):
        CARD.rule(rule).check([question, caption])
    with pytest.raises(MissingDependency):
        CARD.rule(rule).read("A pair of unseen words.", caption)
    CARD.rule(rule).check([question])
    assert CARD.rule(rule).read("No", question) == "no"
    CARD.rule("vlmevalkit").check([caption])


def test_lists_that_changed_are_not_used(tmp_path: Path) -> None:
    key = keyed(written(tmp_path))
    assert "ground" in lists(key).words
    (tmp_path / "safe_words.txt").write_text("sky")
    lists.cache_clear()
    with pytest.raises(DataNotFound, match="changed"):
        lists(key)
    with pytest.raises(DataNotFound, match="not there"):
        lists("")


@pytest.mark.parametrize("text", ["[]", "{}", '{"sky": "cloud"}', "{", '{"sky": [1]}'])
def test_lists_of_another_form_are_refused(text: str, tmp_path: Path) -> None:
    written(tmp_path)
    (tmp_path / "relation.json").write_text(text)
    with pytest.raises(ManifestError, match="related words"):
        keyed(tmp_path)


def test_captions_without_their_truth_are_refused(caption: Sample) -> None:
    with pytest.raises(DataError, match="truth"):
        STRICT.judged("A dog", Sample("1", "", attributes={LISTS: caption.attributes[LISTS]}))
