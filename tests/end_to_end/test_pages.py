"""The pages "Write a ...": they are linked, and their examples compile.

Their commands lead from nothing to green in `.ci/templates`, where they install with pip.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = (
    "write-an-adapter", "write-an-analysis", "write-a-storage-backend", "write-a-dataset-reader",
    "write-an-intervention", "write-an-engine",
)  # fmt: skip


def blocks(page: str, language: str) -> list[str]:
    text = (ROOT / "docs" / f"{page}.md").read_text(encoding="utf-8")
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.DOTALL | re.MULTILINE)


@pytest.mark.parametrize("page", PAGES)
def test_pages_are_linked_and_their_examples_compile(page: str) -> None:
    for where in ("docs/plugins.md", "README.md"):
        assert f"{page}.md" in (ROOT / where).read_text(encoding="utf-8"), where
    for block in blocks(page, "python"):
        compile(block, page, "exec")
