"""How questions of Video-MME are put, with and without subtitles."""

from __future__ import annotations

import json

from vlmlens.samples import Sample
from vlmlens_plugins.benchmarks.card import Prompt

OPTIONS, SUBTITLE_TEXT, SUBTITLED = "options", "subtitle_text", "subtitles"
"""Attributes: options with their letters, a list in JSON; subtitles while prompts are written;
whether the video has some (absent where they are off)."""
_LISTED = "This video's subtitles are listed below:"
_BEST = (
    "Select the best answer to the following multiple-choice question based on the video{}. "
    "Respond with only the letter (A, B, C, or D) of the correct option."
)
_ANSWER_IS = "The best answer is:"
LETTER = "\nAnswer with the option's letter from the given choices directly."


def question_of(sample: Sample) -> str:
    """The question with its options, one per line."""
    return "\n".join([sample.prompt, *_options(sample)])


def _options(sample: Sample) -> list[str]:
    given = sample.attributes.get(OPTIONS)
    return list(json.loads(given)) if isinstance(given, str) else []


def _text(sample: Sample) -> str | None:
    """The subtitles, "" where the video has none; None where subtitles are off."""
    if SUBTITLED not in sample.attributes:
        return None
    return str(sample.attributes.get(SUBTITLE_TEXT) or "")


def _official(sample: Sample) -> str:
    said = _text(sample)
    before = f"{_LISTED}\n{said}\n" if said else ""
    return f"{before}{_BEST.format('')}\n{question_of(sample)}\n{_ANSWER_IS}"


def _lmms_eval(sample: Sample) -> str:
    return _of_lmms_eval(sample, LETTER)


def _lmms_eval_llava(sample: Sample) -> str:
    return _of_lmms_eval(sample, _ANSWER_IS)


def _of_lmms_eval(sample: Sample, end: str) -> str:
    said = _text(sample)
    best = _BEST.format(" and the subtitles")
    if said is None:
        return f"{best}\n{question_of(sample)}\n{end}"
    shown = said or "No subtitles available"
    return f"{_LISTED} \n{shown}\n{best}\n{question_of(sample)}\n{_ANSWER_IS}"


def _lmms_eval_qwen(sample: Sample) -> str:
    said = _text(sample)
    before = "" if said is None else f"{_LISTED} \n{said or 'No subtitles available'}\n"
    listed = "\n".join(_options(sample))
    end = "Answer with the option letter only."
    return f"{before}Question: {sample.prompt}\nOptions:\n{listed}\n{end}"


def _vlmevalkit(sample: Sample) -> str:
    said = _text(sample)
    before = "" if said is None else f"{_LISTED}\n{said}\n"
    best = f"\nThese are the frames of a video. {before}{_BEST.format('')}\n"
    return f"{best}Question: {question_of(sample)}\nAnswer: "


PROMPTS = {
    "official": Prompt(f"Select the best answer ... {_ANSWER_IS}", _official),
    "lmms-eval": Prompt(f"... based on the video and the subtitles. ... {LETTER}", _lmms_eval),
    "lmms-eval-llava": Prompt(
        f"... based on the video and the subtitles. ... {_ANSWER_IS}", _lmms_eval_llava
    ),
    "lmms-eval-qwen": Prompt("... Answer with the option letter only.", _lmms_eval_qwen),
    "vlmevalkit": Prompt("These are the frames of a video. ... Answer: ", _vlmevalkit),
}
