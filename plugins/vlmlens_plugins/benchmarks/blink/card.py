"""The card of BLINK."""

from __future__ import annotations

from vlmlens_plugins.benchmarks.blink.metrics import BlinkMetrics
from vlmlens_plugins.benchmarks.blink.prompts import PROMPTS
from vlmlens_plugins.benchmarks.blink.rules import RULES
from vlmlens_plugins.benchmarks.card import Card, Reference
from vlmlens_plugins.benchmarks.counting import MeanCredit

_VAL = "validation, 1,901 questions"
_PAPER = f"{_VAL}; the authors' setting"

CARD = Card(
    name="blink",
    title="BLINK",
    paper="arXiv 2404.12390",
    licence="Apache-2.0",
    prompts=PROMPTS,
    rules=RULES,
    metrics=BlinkMetrics(),
    headline="macro",
    task_metrics=MeanCredit(),
    max_new_tokens=128,
    constants=("A", "B", "C", "D"),
    shortcuts=(
        "On validation, A is right in 709 of 1,901 questions, B in 708, C in 269, D in 215: always "
        "A scores 37.5 % (macro), always B 37.8 %, guessing 38.1 %.",
    ),
    faults=(
        "The authors have GPT-3.5 read which option an answer means; without it scores differ.",
        "lmms-eval took the first letter of any word for the answer until August 2026 "
        "(lmms-eval#1434).",
        "The authors' total is the mean over tasks, that of lmms-eval and VLMEvalKit the mean over "
        "questions.",
        "Figures of one model differ by up to 9 points between settings (Qwen3-VL#1630).",
        "The first edition had 1,973 questions in validation, today's has 1,901.",
    ),
    references=(
        Reference("people", "macro", 95.7, _PAPER, "BLINK's page"),
        Reference("guessing", "macro", 38.1, _PAPER, "BLINK's page"),
        Reference("LLaVA-1.5-7B", "macro", 37.1, _PAPER, "BLINK's page"),
        Reference("LLaVA-1.6-34B", "macro", 46.8, _PAPER, "BLINK's page"),
        Reference("GPT-4o", "macro", 60.0, _PAPER, "BLINK's page"),
        Reference("InternVL2-8B", "micro", 50.0, f"{_VAL}; VLMEvalKit", "VLMEvalKit#649"),
        Reference("Qwen3-VL-8B", "micro", 59.9, f"{_VAL}; VLMEvalKit", "Qwen3-VL#1630"),
        Reference("Qwen3-VL-8B", "micro", 69.1, f"{_VAL}; the vendor's", "Qwen3-VL#1630"),
    ),
)
