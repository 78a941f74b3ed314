"""How mkdocstrings reads docstrings: examples behind `>>>` or `::` become code blocks."""

from __future__ import annotations

import re
from textwrap import dedent
from typing import Any

import griffe


class ShownExamples(griffe.Extension):
    """Puts fences around examples that stand in the text, where Markdown would see a quotation."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        """Change the docstring of a module, class, function or attribute."""
        if obj.docstring is not None:
            obj.docstring.value = shown(obj.docstring.value)


def shown(text: str) -> str:
    r"""The text with its examples as Markdown shows them.

    >>> shown("Twice.\n\n>>> 2 * 3\n6")
    'Twice.\n\n```python\n>>> 2 * 3\n6\n```'
    """
    flat = re.sub(r"(?m)^Examples?:\n((?: {4}.*(?:\n|\Z)|\n)+)", _flat, text)
    fenced = re.sub(r"(?m)^>>> (?:.|\n(?!\n))*", r"```python\n\g<0>\n```", flat)
    return re.sub(r"(?m)^::\n\n|:(?=:$)", "", fenced)


def _flat(section: re.Match[str]) -> str:
    return "\n" + dedent(section[1])
