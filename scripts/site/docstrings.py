"""How mkdocstrings reads docstrings: examples behind `>>>` or `::` become code blocks."""

from __future__ import annotations

import re
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
    fenced = re.sub(r"(?m)^>>> (?:.|\n(?!\n))*", r"```python\n\g<0>\n```", text)
    return re.sub(r"(?m)^::\n\n|:(?=:$)", "", fenced)
