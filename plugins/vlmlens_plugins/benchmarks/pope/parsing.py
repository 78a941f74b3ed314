"""How POPE's authors, OPERA, VCD, lmms-eval and VLMEvalKit read an answer.

None of the rules sees the image. They differ on answers as simple as `NO` and `Yes.`: see the table
in `docs/benchmarks/pope.md`.
"""

from __future__ import annotations

import re

from vlmlens.samples import Sample

_SIGNS = ';/[]"{}()=+\\_-><@`,?!'
_NEGATIVE = frozenset({"No", "no", "not"})
_MOST_DOTS = 32
"""VLMEvalKit hands over a flag where the number of replacements belongs, and its value is 32."""


def official(text: str, sample: Sample) -> str:
    """POPE's own rule, which LLaVA uses too: yes, unless the first sentence has No, no or not.

    >>> sample = Sample("1", "")
    >>> official("No, there is not.", sample), official("NO", sample), official("", sample)
    ('no', 'yes', 'yes')
    """
    del sample
    sentence = text.partition(".")[0].replace(",", "")
    return "no" if _NEGATIVE & set(sentence.split(" ")) else "yes"


def opera(text: str, sample: Sample) -> str:
    """OPERA's rule: as the official one, over the whole text, also with NO and words in n't."""
    del sample
    words = text.replace(".", "").replace(",", "").split(" ")
    negative = any(word in _NEGATIVE or word == "NO" or word.endswith("n't") for word in words)
    return "no" if negative else "yes"


def vcd(text: str, sample: Sample) -> str:
    """VCD's rule: is the right answer a part of the text? The label decides what is looked for.

    >>> vcd("I don't know.", Sample("1", "", label="no"))
    'no'
    """
    right, wrong = ("yes", "no") if sample.label == "yes" else ("no", "yes")
    return right if right in text.lower() else wrong


def lmms_eval(text: str, sample: Sample) -> str | None:
    """lmms-eval's rule: the whole text, in whatever case, is yes or no."""
    del sample
    said = text.strip().lower()
    return said if said in ("yes", "no") else None


def vlmevalkit(text: str, sample: Sample) -> str | None:
    """VLMEvalKit's rule without a judge: one of the words yes and no occurs, the other does not."""
    del sample
    said = {"yes", "no"} & set(_words(text.lower()))
    return said.pop() if len(said) == 1 else None


def _words(text: str) -> list[str]:
    """The words that VLMEvalKit sees.

    A sign goes if a blank stands beside one of its kind, or if the text has a number with a comma;
    else it parts words.
    """
    number = re.search(r"\d,\d", text) is not None
    beside = {sign: f" {sign}" in text or f"{sign} " in text for sign in _SIGNS}
    table = {ord(sign): "" if number or beside[sign] else " " for sign in _SIGNS}
    return re.sub(r"\.(?!\d)", "", text.translate(table), count=_MOST_DOTS).split()
