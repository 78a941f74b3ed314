"""What is fixed and known of CHAIR."""

from __future__ import annotations

from collections.abc import Sequence

from vlmlens.samples import Sample
from vlmlens_plugins.benchmarks import _nltk
from vlmlens_plugins.benchmarks.card import OFFICIAL, STRICT, Card, Prompt, Reference, Rule
from vlmlens_plugins.benchmarks.chair import readers
from vlmlens_plugins.benchmarks.chair.metrics import Chair
from vlmlens_plugins.benchmarks.chair.tables import key_of, table

QUESTION = "Please describe this image in detail."
_BETWEEN = ", "


def _asked(question: str) -> Prompt:
    """A style that asks something else than the set's own question."""
    return Prompt(write=lambda sample: question)


def _rule(reader: readers.Reader, about: str, *, nltk: bool = False) -> Rule:
    """A rule whose metrics, and whose truth, are by its own reader."""

    def needs(samples: Sequence[Sample]) -> None:
        del samples
        _nltk.check()

    def read(text: str, sample: Sample) -> str | None:
        return _BETWEEN.join(reader.named(text, sample)[0]) if text.strip() else None

    def credit(said: str | None, sample: Sample) -> float:
        there, names = reader.there(sample), table(key_of(sample)).names
        objects = filter(None, (said or "").split(_BETWEEN))
        return float(all(names.is_true(one, there) for one in objects))

    metrics, check = Chair(reader), needs if nltk else None
    return Rule(read, credit, metrics, about, task_metrics=metrics, needs=check)


_COPIES = (
    "As later copies of the code read ({who}): WordNet's lemma of each token by its part of speech "
    "(NLTK and its data are needed), then as the original. The length counts tokens, stops and "
    "commas too."
)
_REFERENCE = "512 tokens, the bare question; another draw of 500 images"

CARD = Card(
    name="chair",
    title="CHAIR",
    paper="arXiv 1809.02156",
    licence="annotations of COCO CC BY 4.0, pictures under the terms of Flickr; code BSD-2-Clause",
    prompts={
        OFFICIAL: Prompt(),
        "lmms-eval": Prompt(),
        "opera": _asked("Please help me describe this image in detail."),
        "short": _asked("Provide a one-sentence caption for the provided image."),
    },
    rules={
        STRICT: _rule(
            readers.STRICT,
            "The longest name of the table at each place, in singular and regular plural, at the "
            "borders of words. Names of two words are taken as in the original's list.",
        ),
        OFFICIAL: _rule(
            readers.ORIGINAL,
            "As the code of Rohrbach et al. reads: tokens, their singulars, a list of pairs of "
            "words that count as one. It never finds bus (its singular is 'bu'), ties, doggies or "
            "collies; of dining table, which is no such pair, it finds table.",
        ),
        "opera": _rule(readers.LEMMATIZED, _COPIES.format(who="OPERA and others"), nltk=True),
        "lmms-eval": _rule(
            readers.LEMMATIZED, _COPIES.format(who="lmms-eval, coco_cap_chair"), nltk=True
        ),
    },
    metrics=Chair(readers.STRICT),
    headline="chair_i",
    task_metrics=Chair(readers.STRICT),
    units={"length": "words"},
    lower_is_better=frozenset({"chair_i", "chair_s"}),
    max_new_tokens=512,
    constants=("There is a person.",),
    shortcuts=(
        "Who says less hallucinates less: an empty caption has a CHAIR_s of 0. Read CHAIR beside "
        "recall and length.",
        "People are in about half of COCO's pictures: who always names a person is often right.",
    ),
    faults=(
        "The images are drawn anew by every paper (500 of val2014 as a rule), and prompt and most "
        "tokens differ: figures of two papers can seldom be compared.",
        "What is there is what is outlined or named by one of five captions: a thing that nobody "
        "named or outlined counts as hallucinated.",
        "Negation is not understood: 'there is no dog' names a dog.",
        "In the published synonyms.txt 'motor bike' has a blank too many, so that no copy of the "
        "code finds it. The parser strict does.",
    ),
    references=tuple(
        Reference("LLaVA-1.5-7B", metric, value, setting, source)
        for setting, source, found in (
            (f"{_REFERENCE}; beam 5", "OPERA, README", {"chair_s": 44.6, "chair_i": 12.8}),
            (_REFERENCE, "Deco#6", {"chair_s": 48.6, "chair_i": 14.2}),
            (
                _REFERENCE,
                "OPERA#39, OPERA#19",
                {"chair_s": 49.9, "chair_i": 14.1, "recall": 78.3, "length": 94.7},
            ),
        )
        for metric, value in found.items()
    ),
    free=True,
    truth="objects",
)
