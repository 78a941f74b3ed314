"""The card of MMMU."""

from __future__ import annotations

from vlmlens_plugins.benchmarks.card import Card, Reference
from vlmlens_plugins.benchmarks.counting import MeanCredit
from vlmlens_plugins.benchmarks.mmmu.metrics import MmmuMetrics
from vlmlens_plugins.benchmarks.mmmu.prompts import PROMPTS
from vlmlens_plugins.benchmarks.mmmu.rules import RULES

_VAL = "validation, 900 questions"

CARD = Card(
    name="mmmu",
    title="MMMU",
    paper="arXiv 2311.16502",
    licence="Apache-2.0",
    prompts=PROMPTS,
    rules=RULES,
    metrics=MmmuMetrics(),
    headline="micro",
    task_metrics=MeanCredit(),
    max_new_tokens=128,
    constants=("A", "B", "C", "D"),
    shortcuts=(
        "On validation, A is right in 242 of 847 questions with options, B in 230, C in 198, "
        "D in 149: always A scores about 27 %.",
    ),
    faults=(
        "The authors' script draws a random letter where it finds none, so that its score depends "
        "on the order of questions (MMMU#72).",
        "lmms-eval scores all 53 open questions of validation wrong.",
        "VLMEvalKit turns open questions into choices, and asks a judge where its rule reads "
        "nothing: figures with and without a judge differ by points (VLMEvalKit#797, #1092).",
        "In the authors' script an open answer of one letter is found in any text with a word that "
        'begins or ends with it ("no idea at all" is A); four questions of validation have such.',
        "Options may hold images; the paper's LLaVA saw the first image only (MMMU#9).",
    ),
    references=(
        Reference("Qwen2-VL-7B", "micro", 54.1, f"{_VAL}; the vendor's own setting", "model card"),
        Reference("Qwen2-VL-7B", "micro", 50.6, f"{_VAL}; VLMEvalKit", "Qwen3-VL#628"),
        Reference("Qwen2-VL-7B", "micro", 51.2, f"{_VAL}; lmms-eval", "Qwen3-VL#628"),
        Reference("Qwen2.5-VL-7B", "micro", 58.6, f"{_VAL}; the vendor's judge", "Qwen3-VL#1149"),
        Reference("Qwen2.5-VL-7B", "micro", 51.3, f"{_VAL}; lmms-eval", "Qwen3-VL#1149"),
        Reference("Qwen2.5-VL-7B", "micro", 52.4, f"{_VAL}; VLMEvalKit", "Qwen3-VL#1149"),
    ),
)
