"""MME's card: prompts, rules, metrics, published figures, shortcuts and faults."""

from __future__ import annotations

from typing import Final

from vlmlens.samples import Sample
from vlmlens_plugins.benchmarks.card import Card, Prompt, Reference, Rule
from vlmlens_plugins.benchmarks.mme import parsing
from vlmlens_plugins.benchmarks.mme.asked import ENDING, SUFFIX
from vlmlens_plugins.benchmarks.mme.metrics import AccAndPlus, Totals
from vlmlens_plugins.benchmarks.reading import first_yes_no
from vlmlens_plugins.benchmarks.toolkits import vlmevalkit_yes_no


def as_written(sample: Sample) -> str:
    """The question as it is in its file."""
    return sample.prompt + str(sample.attributes.get(ENDING, SUFFIX))


_OFFICIAL = Prompt(SUFFIX, write=as_written)
_LLAVA = Prompt("\nAnswer the question using a single word or phrase.")
_SEVEN = "LLaVA-1.5-7B"
_ISSUE = "LLaVA, issue 1928"
_OWN = "the set's own suffix, float16, greedy"

CARD: Final = Card(
    name="mme",
    title="MME",
    paper="arXiv 2306.13394",
    licence="for research, on request from the authors",
    prompts={
        "official": _OFFICIAL,
        "llava": _LLAVA,
        "lmms-eval": _LLAVA,
        "lmms-eval-gpt4v": Prompt("\nAnswer the question with Yes or No."),
        "lmms-eval-qwen-vl": Prompt(" Answer:"),
        "vlmevalkit": _OFFICIAL,
    },
    rules={
        "strict": Rule(first_yes_no, about="The first word is yes or no; nothing is guessed."),
        "official": Rule(
            parsing.official,
            about="The authors': yes, else no, among the first four characters, with nothing "
            "stripped; 'Not sure' is no. All else is other, which is wrong.",
        ),
        "lmms-eval": Rule(
            parsing.lmms_eval,
            about="lmms-eval's: without blanks around and dots, y or n alone, else as the "
            "authors'. It stops where an image has not two questions.",
        ),
        "vlmevalkit": Rule(
            vlmevalkit_yes_no,
            about="VLMEvalKit's without a judge: exactly one of the words yes and no. It fails "
            "unless all 14 tasks are there, and calls cognition reasoning.",
        ),
    },
    metrics=Totals(),
    headline="perception",
    task_metrics=AccAndPlus(),
    task_headline="score",
    units={"perception": "points", "cognition": "points", "total": "points", "score": "points"},
    references=(
        Reference(_SEVEN, "perception", 1510.7, "LLaVA's suffix, greedy", "LLaVA, model zoo"),
        Reference(_SEVEN, "total", 1859.87, f"{_OWN}, one sample at a time", _ISSUE),
        Reference(_SEVEN, "perception", 1509.5, f"{_OWN}, one sample at a time", _ISSUE),
        Reference(_SEVEN, "cognition", 350.36, f"{_OWN}, one sample at a time", _ISSUE),
        Reference(_SEVEN, "total", 1850.23, f"{_OWN}, 16 at a time (two answers flip)", _ISSUE),
    ),
    shortcuts=(
        "A constant answer has acc 50 and acc+ 0 in every task: perception 500, cognition 200.",
        "Both questions of an image come with opposite answers: what sees one knows the other.",
    ),
    faults=(
        "Authors, lmms-eval and VLMEvalKit read answers by three different rules.",
        "The authors' script fails where all answers of a task are other.",
        "lmms-eval replaces the questions' own ending by LLaVA's.",
        "LLaVA-1.5-7B is reported from 1373 to 1510 in perception: libraries, prompts and batch "
        "sizes differ (VLMEvalKit, issue 1029; LLaVA, issues 1835 and 1928).",
    ),
)
