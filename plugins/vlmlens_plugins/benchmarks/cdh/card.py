"""CDH-Bench's card: prompts, rules, metrics, published figures, shortcuts and faults."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from vlmlens.samples import Sample
from vlmlens_plugins.benchmarks.card import Card, Prompt, Reference, Rule
from vlmlens_plugins.benchmarks.cdh.metrics import ByKind, CommonAndOdd
from vlmlens_plugins.benchmarks.cdh.parsing import (
    CHOICE,
    QA,
    contains,
    equals,
    kind_of,
    official,
    strict,
)

_SUFFIXES: Mapping[str, str] = {
    QA: "\nAnswer with yes or no.",
    CHOICE: "\nAnswer with a single letter (A, B, C, or D).",
}


def asked(sample: Sample) -> str:
    """The question (with its options) and the ending of its kind."""
    return sample.prompt + _SUFFIXES[CHOICE if kind_of(sample) == CHOICE else QA]


_EACH = {
    "both": "percent",
    "cs_acc": "percent",
    "cf_acc": "percent",
    "cfad": "points",
    "ccr": "share",
    "rpd": "share",
}
_LESS = ("cfad", "ccr", "rpd")
_SETTING = "pictures of 512 x 512, greedy, official rule"
_MODEL, _SOURCE = "Qwen3-VL-32B-Instruct", "CDH-Bench, README"
_FIGURES = {
    "qa_cf_acc": 55.67,
    "qa_cs_acc": 93.33,
    "qa_rpd": 0.404,
    "choice_cf_acc": 46.0,
    "choice_cs_acc": 92.67,
    "choice_ccr": 0.846,
    "choice_rpd": 0.504,
}

CARD: Final = Card(
    name="cdh",
    title="CDH-Bench",
    paper="arXiv 2603.27982",
    licence="MIT; generated pictures",
    prompts={"official": Prompt(" | ".join(s.strip() for s in _SUFFIXES.values()), write=asked)},
    rules={
        "strict": Rule(
            strict,
            equals,
            metrics=ByKind(CommonAndOdd(strict, equals)),
            task_metrics=CommonAndOdd(strict, equals),
            about="The first word is yes or no, the letter of an option stands alone at the start, "
            "a number or free words are the whole answer; nothing is guessed.",
        ),
        "official": Rule(
            official,
            contains,
            about="The authors': after </think>; yes, y, true or no, n, false as the first word, "
            "else anywhere, yes before no; a letter A to D at the start, after 'answer' (also of "
            "'the answer depends': D), else alone; the first number; free words anywhere. The "
            "Chinese for 'it is not' and 'not right' reads as yes.",
        ),
    },
    metrics=ByKind(CommonAndOdd(official, contains)),
    headline="both",
    task_metrics=CommonAndOdd(official, contains),
    units={
        **_EACH,
        **{f"{kind}_{name}": unit for kind in (QA, CHOICE) for name, unit in _EACH.items()},
    },
    lower_is_better=frozenset(
        (*_LESS, *(f"{kind}_{name}" for kind in (QA, CHOICE) for name in _LESS))
    ),
    groups="a pair of pictures",
    max_new_tokens=128,
    references=tuple(
        Reference(_MODEL, name, value, _SETTING, _SOURCE) for name, value in _FIGURES.items()
    ),
    shortcuts=(
        "Nearly every direct question is right with yes on the common and with no on the odd "
        "picture: a constant yes has cs_acc near 100 and cf_acc near 0.",
        "Pairs 296 and 300 are the other way round.",
        "So cf_acc alone is no evidence of sight: a constant no has nearly 100. The headline both, "
        "which is our own, asks for both pictures of a pair to be answered right.",
        "Both pictures of a pair get the same question: hold out pairs.",
    ),
    faults=(
        "ccr of direct questions is 1 wherever every answer is read: the only other answer is the "
        "common one.",
        "Options of pairs 290 and 293 are cut at a comma (six entries), so letters go by prefix.",
        "Pair 9 has two equal options; the questions of pairs 294 and 295 say 'not glowing and not "
        "glowing'.",
        "The README counts 128 pairs, the file 300; it calls ccr 'consistent correctness', the "
        "script counts collapse to common sense.",
        "Pictures that are missing leave the denominators: here they are refused, or left out with "
        "--on-bad-sample skip.",
    ),
)
