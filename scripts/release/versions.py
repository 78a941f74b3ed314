"""The version of vlmlens and of its adapters: one number, and which minor versions fit together."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
CORE = Path("core/vlmlens/_version.py")

_NUMBER = re.compile(r"(0|[1-9]\d*)\.(0|[1-9]\d*)\.(0|[1-9]\d*)((?:a|b|rc)\d+)?")
_IN_CORE = re.compile(r'^__version__ = "(.*)"$', re.MULTILINE)
_OWN = re.compile(r'^version = "(.*)"$', re.MULTILINE)
_NEEDS = re.compile(r'"vlmlens(\[[\w,-]*\])?(?:\s*[<>=!~][^"]*)?"(?=[],\s])')
_ADAPTER = re.compile(r'"(vlmlens-adapter-[\w-]+)(?:\s*[<>=!~][^"]*)?"')
_CITED = re.compile(r"^version: (.*)$", re.MULTILINE)


def projects(root: Path = ROOT) -> list[Path]:
    """The folders of all distributions: the root first, then the adapters by name."""
    return [root, *sorted(path.parent for path in root.glob("adapters/*/pyproject.toml"))]


def version(root: Path = ROOT) -> str:
    """The version, as core says it."""
    found = _IN_CORE.search((root / CORE).read_text(encoding="utf-8"))
    if found is None:
        raise SystemExit(f"{CORE} has no line __version__ = ...")
    return found[1]


def minor(number: str) -> str:
    """Which versions fit to one: those of the same minor version.

    >>> minor("0.3.1"), minor("1.2.0rc1")
    ('>=0.3,<0.4', '>=1.2.0rc1,<1.3')

    Raises:
        SystemExit: It is no version.
    """
    match = _NUMBER.fullmatch(number)
    if match is None:
        raise SystemExit(f"{number!r} is no version such as 0.2.0 or 0.2.0rc1.")
    major, small = int(match[1]), int(match[2])
    first = number if match[4] else f"{major}.{small}"
    return f">={first},<{major}.{small + 1}"


def written(path: Path, number: str) -> str:
    """A file as it is to be at a version.

    Args:
        path: `_version.py`, `CITATION.cff` or a `pyproject.toml`.
        number: The version.
    """
    text, fits = path.read_text(encoding="utf-8"), minor(number)
    if path.name == CORE.name:
        return _IN_CORE.sub(f'__version__ = "{number}"', text)
    if path.name == "CITATION.cff":
        return _CITED.sub(f"version: {number}", text)
    if _OWN.search(text) is None:  # the root: its version is core's
        return _ADAPTER.sub(rf'"\1{fits}"', text)
    text = _OWN.sub(f'version = "{number}"', text)
    return _NEEDS.sub(lambda found: f'"vlmlens{found[1] or ""}{fits}"', text)


def files(root: Path = ROOT) -> Iterator[Path]:
    """The files that say a version."""
    yield root / CORE
    yield root / "CITATION.cff"
    yield from (folder / "pyproject.toml" for folder in projects(root))


def out_of_step(root: Path = ROOT) -> list[str]:
    """What does not fit to core's version, a line for each file."""
    number = version(root)
    return [
        f"{path.relative_to(root)} does not say {number}: "
        f"python -m scripts.release version {number}"
        for path in files(root)
        if written(path, number) != path.read_text(encoding="utf-8")
    ]


def set_version(number: str, root: Path = ROOT) -> list[Path]:
    """Write a version into all files; those that changed."""
    changed = []
    for path in files(root):
        text = written(path, number)
        if text != path.read_text(encoding="utf-8"):
            path.write_text(text, encoding="utf-8")
            changed.append(path.relative_to(root))
    return changed
