"""POPE's card: prompts, rules, metrics, published figures, shortcuts and faults."""

from __future__ import annotations

from typing import Final

from vlmlens.samples import Sample
from vlmlens_plugins.benchmarks.card import Card, Prompt, Reference, Rule
from vlmlens_plugins.benchmarks.counting import YesNo
from vlmlens_plugins.benchmarks.pope import parsing
from vlmlens_plugins.benchmarks.pope.metrics import LmmsEvalYesNo, MeanOfParts, VlmEvalKitYesNo
from vlmlens_plugins.benchmarks.reading import first_yes_no
from vlmlens_plugins.benchmarks.toolkits import vlmevalkit_yes_no

SPLITS: Final = ("random", "popular", "adversarial")
SOURCES: Final = ("coco", "aokvqa", "gqa", "")
"""Where the images are from; "" where the files do not say it."""

YES_NO_RULES: Final = {
    "strict": Rule(first_yes_no, about="The first word is yes or no; nothing is guessed."),
    "official": Rule(
        parsing.official,
        about="POPE's and LLaVA's: up to the first dot, no if No, no or not is a word; all else, "
        "also NO, There isn't and an empty answer, is yes.",
    ),
    "opera": Rule(
        parsing.opera, about="OPERA's: as the official one on the whole text; also NO and n't."
    ),
    "vcd": Rule(
        parsing.vcd,
        about="VCD's: the label decides which word is looked for, as a part of any word: "
        "'I don't know' is a right no.",
    ),
    "lmms-eval": Rule(
        parsing.lmms_eval,
        metrics=LmmsEvalYesNo(),
        task_metrics=LmmsEvalYesNo(),
        about="lmms-eval's: the whole text is yes or no ('Yes.' is wrong). All splits are pooled; "
        "recall leaves other answers out; yes_ratio is that of the labels.",
    ),
    "vlmevalkit": Rule(
        vlmevalkit_yes_no,
        metrics=VlmEvalKitYesNo(),
        task_metrics=VlmEvalKitYesNo(),
        about="VLMEvalKit's without a judge: exactly one of the words yes and no. All splits are "
        "pooled; its Overall is f1.",
    ),
}
"""The rules of sets that ask like POPE."""

PROMPTS: Final = {
    "official": Prompt(),
    "opera": Prompt(),
    "llava": Prompt("\nAnswer the question using a single word or phrase."),
    "lmms-eval": Prompt("\nAnswer the question using a single word or phrase."),
    "vcd": Prompt(" Please answer this question with one word."),
    "vlmevalkit": Prompt(),
    "qwen2-vl": Prompt(" Please answer yes or no."),
    "plm": Prompt("\nYour response must be concise."),
}
"""The styles of prompts of sets that ask like POPE."""


def part_of(sample: Sample) -> str:
    """Where the image is from, and the split: "coco/popular"."""
    known = sample.attributes
    return f"{known.get('source') or ''}/{known.get('split') or ''}"


_OLD = "edition of May 2023 (2,910 random questions), LLaVA's prompt, greedy"
_LLAVA = "LLaVA, model zoo"
_COUNTED = "LLaVA, issue 626"
_OPERA = "OPERA, README"
_BEAMS = "edition of May 2023, bare question, OPERA with 5 beams"


def _references() -> tuple[Reference, ...]:
    seven, either, corrected = "LLaVA-1.5-7B", "LLaVA-1.5 (size not said)", "LLaVA-1.5-7B + OPERA"
    counted = {
        "random: accuracy": 88.04,
        "random: precision": 97.45,
        "random: recall": 78.87,
        "random: f1": 87.18,
        "popular: f1": 86.29,
        "adversarial: f1": 84.50,
        "mean_f1": 85.99,
    }
    beams = {"random": (89.4, 89.6), "popular": (86.0, 86.4), "adversarial": (79.1, 81.0)}
    return (
        Reference(seven, "mean_f1", 85.9, _OLD, _LLAVA),
        *(Reference(either, name, value, _OLD, _COUNTED) for name, value in counted.items()),
        *(
            Reference(corrected, f"{split}: {name}", value, _BEAMS, _OPERA)
            for split, values in beams.items()
            for name, value in zip(("accuracy", "f1"), values, strict=True)
        ),
    )


CARD: Final = Card(
    name="pope",
    title="POPE",
    paper="arXiv 2305.10355",
    licence="questions MIT; images under the terms of COCO (Flickr) and of GQA",
    prompts=PROMPTS,
    rules=YES_NO_RULES,
    metrics=MeanOfParts(
        tuple(f"{source}/{split}" for source in SOURCES for split in SPLITS), part_of
    ),
    headline="mean_f1",
    task_metrics=YesNo(),
    max_new_tokens=128,
    references=_references(),
    shortcuts=(
        "A constant yes has F1 66.67 and accuracy 50 in every split.",
        "Guessing from the object's name alone (the majority of other images) is right in 67.5 % "
        "(random), 86.9 % (popular) and 69.2 % (adversarial) of coco: hold objects out.",
        "In the coco files odd numbers are yes and even numbers are no: never give ids or "
        "positions to a probe, and let --limit take whole images (6 questions).",
        "The positives are the same in all three splits: what learns from one split has seen the "
        "positives of the others, and pooled figures count them three times.",
    ),
    faults=(
        "Some labels are wrong: objects that are there and not annotated (POPE, issue 8).",
        "Two editions: the first has 2,910 random questions and 'imange?' for 'image?'. Answers "
        "joined by line between them are shifted; join them by id, or by image and question.",
        "The official rule takes NO, There isn't and an empty answer for yes.",
        "lmms-eval's yes-ratio counts labels and is always 50; its recall leaves answers out that "
        "are neither yes nor no; its task pope pools all 9,000 questions.",
        "VLMEvalKit compares Yes and No in their case: lower-case labels count as negative there.",
        "The official script cannot read the files of aokvqa and gqa (SEEM), which are arrays.",
        "Published baselines of one model differ by up to 4 points (edition, prompt, decoding).",
    ),
)
