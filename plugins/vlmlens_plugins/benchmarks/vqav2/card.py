"""The card of VQAv2."""

from __future__ import annotations

from vlmlens_plugins.benchmarks.card import Card, Prompt, Reference
from vlmlens_plugins.benchmarks.counting import MeanCredit
from vlmlens_plugins.benchmarks.vqav2.metrics import VqaMetrics
from vlmlens_plugins.benchmarks.vqav2.rules import RULES

_SHORT = Prompt("\nAnswer the question using a single word or phrase.")

CARD = Card(
    name="vqav2",
    title="VQAv2",
    paper="arXiv 1612.00837",
    licence="annotations CC BY 4.0; images of COCO under the terms of Flickr",
    prompts={"official": Prompt(), "llava": _SHORT, "lmms-eval": _SHORT},
    rules=RULES,
    metrics=VqaMetrics(),
    headline="accuracy",
    task_metrics=MeanCredit(),
    constants=("yes", "no"),
    shortcuts=(
        "Many questions are answered without looking. Complementary pairs ask the same question "
        "about two similar pictures with different answers: the metric `pairs` is low for an "
        "answer that does not depend on the picture.",
    ),
    faults=(
        "The official evaluation makes answers alike only where the ten answers differ; lmms-eval "
        "and other copies always do. Where all ten people said the same, 'Yes.' is wrong for one "
        "and right for the other.",
        "The answers of people hold typing errors, and 'none' counts as 0.",
    ),
    references=(
        Reference(
            "LLaVA-1.5-7B",
            "accuracy",
            78.5,
            "test-dev (answers not public), greedy, prompt style llava",
            "LLaVA model zoo",
        ),
    ),
    free=True,
)
