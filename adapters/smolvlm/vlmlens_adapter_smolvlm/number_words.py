"""SmolVLM2's processor without the package num2words.

transformers refuses to make the processor without it. It is used only to write how many frames a
video has ("sixteen frames"); images and text need it nowhere.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from vlmlens.errors import MissingDependency

_MODULE = "transformers.models.smolvlm.processing_smolvlm"


@contextmanager
def number_words_lent() -> Iterator[None]:
    """Let the processor be made where the package is missing; using it is an error."""
    module: Any = importlib.import_module(_MODULE)
    if module.num2words is not None:
        yield
        return
    module.num2words = _missing
    try:
        yield
    finally:
        module.num2words = None


def _missing(number: int) -> str:
    raise MissingDependency(
        f"SmolVLM's processor is to write {number} as a word, for a video.",
        subject="num2words",
        hint="pip install num2words",
    )
