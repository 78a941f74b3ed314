"""The four pages "Write a ...": their commands lead from nothing to green.

Every bash block of a page is run, in order, in one shell. Only `pip install -e '.[test]'` is
replaced, for there is no package index: the distribution's wheel is built and unpacked where Python
finds it, which gives the same entry points.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from tests._distributions import environment

ROOT = Path(__file__).parents[2]
PAGES = (
    "write-an-adapter", "write-an-analysis", "write-a-storage-backend", "write-a-dataset-reader",
)  # fmt: skip
PIP = """
set -euo pipefail
pip() {{
    [ "$*" = "install -e .[test]" ] || {{ echo "unexpected: pip $*"; exit 1; }}
    "{python}" -m tests._distributions "$PWD" "{site}"
}}
python() {{ "{python}" "$@"; }}
vlmlens() {{ "{python}" -W error -m vlmlens "$@"; }}
pytest() {{ "{python}" -m pytest -q -p no:cacheprovider "$@"; }}
"""


def blocks(page: str, language: str) -> list[str]:
    text = (ROOT / "docs" / f"{page}.md").read_text(encoding="utf-8")
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.DOTALL | re.MULTILINE)


@pytest.mark.slow
@pytest.mark.parametrize("page", PAGES)
def test_the_commands_of_a_page_run(page: str, tmp_path: Path) -> None:
    site = tmp_path / "site"
    site.mkdir()
    (tmp_path / "work").mkdir()
    known = environment(site)
    known["PYTHONPATH"] = f"{site}:{ROOT}"
    script = PIP.format(python=sys.executable, site=site) + "\n".join(blocks(page, "bash"))
    assert script.count("pip install -e '.[test]'\npytest") == 1
    done = subprocess.run(
        ["bash", "-c", script],
        cwd=tmp_path / "work",
        env=known,
        capture_output=True,
        text=True,
        check=False,
        timeout=1500,
    )
    assert done.returncode == 0, f"{done.stdout[-4000:]}\n{done.stderr[-4000:]}"
    assert re.search(r"\d+ passed in", done.stdout), "pytest did not run"
    assert re.search(r"\d+ passed, \d+ skipped, 0 failed", done.stdout), "no check ran"


@pytest.mark.parametrize("page", PAGES)
def test_pages_are_linked_and_their_examples_compile(page: str) -> None:
    for where in ("docs/plugins.md", "README.md"):
        assert f"{page}.md" in (ROOT / where).read_text(encoding="utf-8"), where
    for block in blocks(page, "python"):
        compile(block, page, "exec")
