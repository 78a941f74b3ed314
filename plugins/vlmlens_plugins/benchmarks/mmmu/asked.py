"""What a sample of MMMU carries beside its question: the texts of options, the right answers."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import lru_cache

from vlmlens.samples import Attribute, Sample

OPTIONS, ANSWERS, NUMBERS = "options", "answers", "image_numbers"
"""Attributes: texts of options, several right answers, numbers of images; lists in JSON."""
DISCIPLINE = "discipline"


def listed(texts: Sequence[object]) -> str:
    """A list as the text of an attribute."""
    return json.dumps(list(texts), ensure_ascii=False)


@lru_cache(4096)
def _unlisted(text: str) -> tuple[str, ...]:
    return tuple(str(item) for item in json.loads(text))


def options_of(sample: Sample) -> dict[str, str]:
    """The texts of a sample's options by letter; {} of an open question."""
    return dict(zip(sample.choices, _texts(sample.attributes, OPTIONS), strict=False))


def answers_of(sample: Sample) -> tuple[str, ...]:
    """The right answers of an open question; () where none is known."""
    several = _texts(sample.attributes, ANSWERS)
    return several or (() if sample.label is None else (sample.label,))


def _texts(attributes: Mapping[str, Attribute], name: str) -> tuple[str, ...]:
    text = attributes.get(name)
    return _unlisted(text) if isinstance(text, str) else ()
