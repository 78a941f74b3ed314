"""How POPE's authors, OPERA, VCD and lmms-eval read an answer.

None of the rules sees the image. They differ on answers as simple as `NO` and `Yes.`: see the table
in `docs/benchmarks/pope.md`.
"""

from __future__ import annotations

from vlmlens.samples import Sample

_NEGATIVE = frozenset({"No", "no", "not"})


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
