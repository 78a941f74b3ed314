"""How MME's authors and lmms-eval read an answer; VLMEvalKit's rule is in `toolkits`."""

from __future__ import annotations

from vlmlens.samples import Sample

_LOOKED_AT = 4
_LETTERS = {"y": "yes", "n": "no"}


def official(text: str, sample: Sample) -> str | None:
    """The authors' rule: in the first four characters, yes, else no; what else there is is other.

    Nothing is stripped: a blank or a quote in front moves the word out of sight.

    >>> asked = Sample("1", "")
    >>> [official(text, asked) for text in ("Yes.", "Not sure", "y", "  Yes", "I do not know")]
    ['yes', 'no', None, None, None]
    """
    del sample
    return _in_front(text.lower())


def lmms_eval(text: str, sample: Sample) -> str | None:
    """lmms-eval's rule: blanks around and all dots go; then a letter y or n, or as the authors'.

    >>> asked = Sample("1", "")
    >>> [lmms_eval(text, asked) for text in ("  Yes", "n.", "...no", "Not sure", "A no")]
    ['yes', 'no', 'no', 'no', 'no']
    """
    del sample
    said = text.lower().strip().replace(".", "")
    return _LETTERS.get(said) if len(said) == 1 else _in_front(said)


def _in_front(text: str) -> str | None:
    front = text[:_LOOKED_AT]
    return "yes" if "yes" in front else "no" if "no" in front else None
