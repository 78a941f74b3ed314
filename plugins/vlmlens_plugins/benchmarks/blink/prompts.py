"""How questions of BLINK are put."""

from __future__ import annotations

from vlmlens.samples import Sample
from vlmlens_plugins.benchmarks.blink.forms import PROMPT
from vlmlens_plugins.benchmarks.card import Prompt
from vlmlens_plugins.benchmarks.lettered import options_of

_SELECT = "Select from the following choices."
_LETTER = "Answer with the option's letter from the given choices directly."


def _official(sample: Sample) -> str:
    """The set's own prompt; of a table without it, one of the same form."""
    given = sample.attributes.get(PROMPT)
    if isinstance(given, str) and given:
        return given
    options = "\n".join(f"({letter}) {text}" for letter, text in options_of(sample).items())
    return f"{sample.prompt}\n{_SELECT}\n{options}"


def _lmms_eval(sample: Sample) -> str:
    letters = ", ".join(sample.choices)
    note = f"Note: You only need to respond with {letters} without providing any additional"
    return f"{note} information.\n{_official(sample)}"


def _lmms_eval_letter(sample: Sample) -> str:
    return f"{_official(sample)}\n{_LETTER}"


def _vlmevalkit(sample: Sample) -> str:
    hint = sample.attributes.get("hint")
    begin = f"Hint: {hint}\n" if hint else ""
    options = "\n".join(f"{letter}. {text}" for letter, text in options_of(sample).items())
    ask = "Please select the correct answer from the options above. \n"
    return f"{begin}Question: {sample.prompt}\nOptions:\n{options}\n{ask}"


PROMPTS = {
    "official": Prompt(f"{_SELECT} (A) ...", _official),
    "lmms-eval": Prompt("Note: You only need to respond with A, B ... (before it)", _lmms_eval),
    "lmms-eval-letter": Prompt(_LETTER, _lmms_eval_letter),
    "vlmevalkit": Prompt(
        "Options: A. ... Please select the correct answer from the options above.", _vlmevalkit
    ),
}
