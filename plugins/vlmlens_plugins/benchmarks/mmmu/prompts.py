"""How questions of MMMU are put."""

from __future__ import annotations

from vlmlens.samples import Sample
from vlmlens_plugins.benchmarks.card import Prompt
from vlmlens_plugins.benchmarks.lettered import options_of

LETTER = "Answer with the option's letter from the given choices directly."
SHORT = "Answer the question using a single word or phrase."


def _official(sample: Sample) -> str:
    if not sample.choices:
        return f"{sample.prompt}\n{SHORT}"
    options = "".join(f"({letter}) {text}\n" for letter, text in options_of(sample).items())
    return f"{sample.prompt}\n{options}\n{LETTER}"


def _lmms_eval(sample: Sample) -> str:
    if not sample.choices:
        return f"{sample.prompt}\n\n{SHORT}"
    return f"{sample.prompt}\n{_lines(sample)}\n\n{LETTER}"


def _lmms_eval_qwen(sample: Sample) -> str:
    ask = "Answer with the option letter only."
    ask = ask if sample.choices else "Please answer the question directly."
    return f"Question: {sample.prompt}\nOptions:\n{_lines(sample)}\n{ask}"


def _vlmevalkit(sample: Sample) -> str:
    hint = sample.attributes.get("hint")
    begin = f"Hint: {hint}\n" if hint else ""
    if not sample.choices:
        return f"{begin}Question: {sample.prompt}\n"
    ask = "Please select the correct answer from the options above. \n"
    return f"{begin}Question: {sample.prompt}\nOptions:\n{_lines(sample)}\n{ask}"


def _lines(sample: Sample) -> str:
    return "\n".join(f"{letter}. {text}" for letter, text in options_of(sample).items())


PROMPTS = {
    "official": Prompt(f"(A) ... {LETTER} / {SHORT}", _official),
    "lmms-eval": Prompt(f"A. ... {LETTER} / {SHORT}", _lmms_eval),
    "lmms-eval-qwen": Prompt(
        "Options: A. ... Answer with the option letter only.", _lmms_eval_qwen
    ),
    "vlmevalkit": Prompt(
        "Options: A. ... Please select the correct answer from the options above.", _vlmevalkit
    ),
}
