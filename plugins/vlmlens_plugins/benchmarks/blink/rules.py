"""The rules by which answers to BLINK are read."""

from __future__ import annotations

import re
from collections.abc import Iterator

from vlmlens.samples import Sample
from vlmlens_plugins.benchmarks.card import Rule
from vlmlens_plugins.benchmarks.kit_options import kit_option
from vlmlens_plugins.benchmarks.lettered import options_of
from vlmlens_plugins.benchmarks.reading import first_letter

_LEADING = re.compile(r"[(\s]*([A-Za-z])[).\s]*")
_DECLARED = re.compile(r"(?i)\b(?:answer|choice|option)\s*(?:is|:)?[\s*:]*\(?([A-Z])\b")
_NAMED = re.compile(r"\bis\W*(?:(?:[Pp]oint|[Bb]ox|[Pp]icture)\s+)?([A-Z])(?=\W*[.,*]|\s*$)")
_START = re.compile(r"\s*(?:<\w+>\s*)*")
_BRACKETED = re.compile(r"\(([A-Z])\)")


def stated(text: str, sample: Sample) -> str | None:
    """The option that a text states: alone at the start, after "answer is" or "is", in brackets.

    Of several that are declared or bracketed, the last one counts. If there are none, the option
    whose text alone occurs is taken. Marks such as <s> at the start are passed over.
    """
    text = _START.sub("", text, count=1)
    first = first_letter(text, sample)
    if first is not None:
        return first
    for pattern in (_DECLARED, _BRACKETED, _NAMED):
        found: list[str] = [letter.upper() for letter in pattern.findall(text)]
        known = [letter for letter in found if letter in sample.choices]
        if known:
            return known[-1]
    held = list(_held(text.lower(), sample))
    return held[0] if len(held) == 1 else None


def _held(text: str, sample: Sample) -> Iterator[str]:
    """The options whose texts occur as words of their own."""
    for letter, option in options_of(sample).items():
        words = re.escape(option.lower().strip())
        if words and re.search(rf"(?<!\w){words}(?!\w)", text):
            yield letter


def _leading(text: str, sample: Sample) -> str | None:
    """lmms-eval's: the letter at the start, whatever word it begins."""
    del sample
    found = _LEADING.match(text.strip())
    return found[1].upper() if found else None


def _kit(text: str, sample: Sample) -> str | None:
    return kit_option(text, options_of(sample))


RULES = {
    "strict": Rule(first_letter, about="a letter of an option at the start (B, (B), B.)"),
    "official": Rule(
        stated,
        about="the authors have GPT-3.5 name the option; here the option that stands alone at the "
        "start, is declared (the answer is B), is in brackets, or whose text alone occurs",
    ),
    "lmms-eval": Rule(
        _leading,
        about="takes the first letter of any word (Based on: B; The answer is B: T), as until "
        "August 2026 (lmms-eval#1434); later editions read declared answers too",
    ),
    "vlmevalkit": Rule(_kit, about="without a judge (unparsed is wrong)"),
}
