"""HallusionBench's card: prompts, rules, metrics, published figures, shortcuts and faults."""

from __future__ import annotations

from typing import Final

from vlmlens.samples import Sample
from vlmlens_plugins.benchmarks.card import Card, Prompt, Reference, Rule
from vlmlens_plugins.benchmarks.hallusionbench.metrics import AccuracyBy, Everything
from vlmlens_plugins.benchmarks.reading import first_yes_no
from vlmlens_plugins.benchmarks.toolkits import said_yes_no, vlmevalkit_yes_no


def lmms_eval(text: str, sample: Sample) -> str:
    """lmms-eval's rule without a judge: yes if "yes" occurs anywhere, else no.

    >>> lmms_eval("Yesterday.", Sample("1", "")), lmms_eval("", Sample("1", ""))
    ('yes', 'no')
    """
    del sample
    return "yes" if "yes" in text.lower() else "no"


_README = "HallusionBench, README"
_GPT = "1,129 questions, answers judged by GPT-4"
_ISSUE = "VLMEvalKit, issue 825"
_TABLE = "951 questions, VLMEvalKit"


def _references() -> tuple[Reference, ...]:
    judged = {"qAcc": 10.55, "fAcc": 24.86, "easy": 49.67, "hard": 29.77, "aAcc": 46.94}
    read = {
        "Qwen2-VL-7B": {"aAcc": 67.93, "fAcc": 37.86, "qAcc": 43.96, "mean": 49.9},
        "Qwen2.5-VL-7B": {"aAcc": 71.82, "fAcc": 47.98, "qAcc": 47.25, "mean": 55.7},
    }
    return (
        *(Reference("LLaVA-1.5", name, value, _GPT, _README) for name, value in judged.items()),
        *(
            Reference(model, name, value, _TABLE, _ISSUE)
            for model, values in read.items()
            for name, value in values.items()
        ),
    )


CARD: Final = Card(
    name="hallusionbench",
    title="HallusionBench",
    paper="arXiv 2310.14566",
    licence="BSD-3-Clause",
    prompts={
        "official": Prompt(),
        "lmms-eval": Prompt(),
        "vlmevalkit": Prompt(),
        "qwen2-vl": Prompt(" Please answer yes or no."),
    },
    rules={
        "strict": Rule(first_yes_no, about="The first word is yes or no; nothing is guessed."),
        "official": Rule(
            said_yes_no,
            about="In place of the authors' judge (GPT-4, which compares with the right sentence): "
            "the first word is yes or no, else only one of both occurs. An answer that says "
            "neither is unclear; without a figure, unclear is right.",
        ),
        "lmms-eval": Rule(
            lmms_eval,
            metrics=AccuracyBy(blank=False),
            task_metrics=AccuracyBy(blank=False),
            about="lmms-eval's rule without a judge, which its task does not switch on: yes if "
            "'yes' occurs anywhere, else no. Only questions with a figure count. With its judge "
            "and no working key, every answer is unclear and all its scores are 0.",
        ),
        "vlmevalkit": Rule(
            vlmevalkit_yes_no,
            metrics=AccuracyBy(blank=False),
            task_metrics=AccuracyBy(blank=False),
            about="VLMEvalKit's without a judge: exactly one of the words yes and no. Only "
            "questions with a figure count; other answers, which it shows to a judge, are wrong.",
        ),
    },
    metrics=Everything(),
    headline="mean",
    task_metrics=AccuracyBy(),
    units={"yes_diff": "share", "fp_ratio": "share"},
    groups="a set of figures",
    max_new_tokens=128,
    shortcuts=(
        "Always no: aAcc 57.13, fAcc 12.14, qAcc 19.34 of all 1,129 questions (57.83, 12.14, 20.00 "
        "of the 951 with a figure). That beats the qAcc of LLaVA-1.5, 10.55.",
        "Always yes: aAcc 42.87, fAcc 7.23, qAcc 3.96 (42.17, 7.23, 4.62).",
        "Questions of a set share their figures and wording: hold out sets, never figures.",
    ),
    faults=(
        "Scores of 951 and of 1,129 questions stand side by side: toolkits drop the 178 questions "
        "without a figure (VLMEvalKit, issue 1037).",
        "'Score' is aAcc in one place and the mean of aAcc, fAcc and qAcc in another (VLMEvalKit, "
        "issues 113 and 825).",
        "The official figures need a judge; here its place is taken by the words yes and no.",
        "The authors' easy and hard 'aAcc' go by pair of questions, not by question.",
        "lmms-eval gives 0 in all three scores if its judge cannot be reached (issues 248, 795).",
        "The authors' README still counts 254 questions and 69 figures.",
    ),
    references=_references(),
)
