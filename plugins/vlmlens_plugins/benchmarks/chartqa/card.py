"""ChartQA's card: prompts, rules, metrics, published figures, shortcuts and faults."""

from __future__ import annotations

from typing import Final

from vlmlens_plugins.benchmarks.card import Card, Prompt, Reference, Rule
from vlmlens_plugins.benchmarks.chartqa import parsing
from vlmlens_plugins.benchmarks.chartqa.metrics import Relaxed
from vlmlens_plugins.benchmarks.counting import MeanCredit

CARD: Final = Card(
    name="chartqa",
    title="ChartQA",
    paper="arXiv 2203.10244",
    licence="GPL-3.0",
    prompts={
        "official": Prompt(),
        "lmms-eval": Prompt("\nAnswer the question with a single word."),
        "lmms-eval-qwen-vl": Prompt(" Answer:"),
        "vlmevalkit": Prompt("\nAnswer the question using a single word or phrase."),
        "qwen2-vl": Prompt(
            "\nPlease try to answer the question with short words or phrases if possible."
        ),
    },
    rules={
        "strict": Rule(
            parsing.without_dot,
            parsing.strictly,
            about="Numbers within 5 %, but years (1500 to 2099) exactly; commas of thousands and "
            "currencies are read, a percent sign agrees with the label's, a dot at the end goes; "
            "all items of a list must be there; other text is equal apart from case.",
        ),
        "official": Rule(
            parsing.stripped,
            parsing.relaxed,
            about="Relaxed accuracy of the paper: numbers within 5 % (a percent sign divides by "
            "100), else equal apart from case. A label of 0 is compared as text; years are numbers "
            "like others.",
        ),
        "lmms-eval": Rule(
            parsing.whole,
            parsing.relaxed,
            about="lmms-eval's: as the official one, but the text is not stripped: 'Yes\\n' is not "
            "'Yes'.",
        ),
        "vlmevalkit": Rule(
            parsing.stripped,
            parsing.any_of_list,
            about="VLMEvalKit's: as the official one; where the label is the text of a list, such "
            "as [2014, 2016], one of its items is enough.",
        ),
    },
    metrics=Relaxed(),
    headline="relaxed",
    task_metrics=MeanCredit("relaxed"),
    groups="a chart",
    max_new_tokens=16,
    references=(Reference("Qwen2-VL-7B", "relaxed", 83.0, "test, 2,500 questions", "model card"),),
    shortcuts=(
        "Yes and No are the labels of many human questions, small whole numbers those of others: "
        "compare with the best constant and with answers without the chart.",
        "Two questions are about the same chart: hold out charts.",
    ),
    faults=(
        "A year is a number, so one within 5 % (100 years off) is right: see years_exact "
        "(pix2struct, issue 35). Other whole numbers from 1500 to 2099 count as years there.",
        "'2%' is 0.02, so it is wrong for 2; '977,633' is no number; '1.4 billion' is no 1.4 "
        "(VLMEvalKit, issue 1313).",
        "A dot at the end makes a number or a word wrong ('1995.', 'Yes.'): 25.7 instead of 59.2 "
        "in VLMEvalKit, issue 948.",
        "Older VLMEvalKit had label and answer exchanged (issue 584).",
        "Labels write a share of 3 % as 3 or as 0.03.",
    ),
    free=True,
)
