"""CUDA does not survive a fork: nothing that is shipped forks a process."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SHIPPED = ("core", "plugins", "adapters")
FORKING = {"multiprocessing", "torch.multiprocessing", "torch.utils.data", "joblib", "pty"}
CALLS = {"fork", "forkpty", "ProcessPoolExecutor"}
HARMLESS = {"torch.multiprocessing.reductions"}
"""It is imported for a weak reference to a tensor's memory."""


def forks(source: str) -> Iterator[str]:
    """What in a module's source may fork."""
    for node in ast.walk(ast.parse(source)):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        for name in names:
            if name in HARMLESS or any(name.startswith(f"{one}.") for one in HARMLESS):
                continue
            if any(name == one or name.startswith(f"{one}.") for one in FORKING):
                yield name
        called = node.attr if isinstance(node, ast.Attribute) else getattr(node, "id", "")
        if called in CALLS:
            yield called


def test_nothing_that_is_shipped_forks() -> None:
    files = [path for part in SHIPPED for path in (ROOT / part).rglob("*.py")]
    assert len(files) > 500
    found = {
        str(path.relative_to(ROOT)): sorted(set(forks(path.read_text(encoding="utf-8"))))
        for path in files
        if "tests" not in path.relative_to(ROOT).parts
    }
    assert {path: names for path, names in found.items() if names} == {}


@pytest.mark.parametrize(
    "source",
    [
        "import multiprocessing as mp",
        "from torch.utils.data import DataLoader",
        "from concurrent.futures import ProcessPoolExecutor\nProcessPoolExecutor(2)",
        "import os\nos.fork()",
        "from torch import multiprocessing",
    ],
)
def test_a_fork_is_seen(source: str) -> None:
    assert list(forks(source))
