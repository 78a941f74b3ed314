"""Running from a checkout: its folders on the path, its plugins found as if it were installed.

Plugins are found by entry points, which pip writes when it installs. Where vlmlens is not installed
(no network, no build tools), the same lines are written from `pyproject.toml` to a temporary
folder.
"""

from __future__ import annotations

import os
import tomllib
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
_SOURCES = ("core", "plugins", "adapters/llava")
_PROJECTS = (".", "adapters/llava")


def python_path(folder: Path) -> str:
    """`PYTHONPATH` for processes that use vlmlens from this checkout.

    Args:
        folder: Where metadata is written for what is not installed.
    """
    made = [str(folder)] if _written(folder) else []
    own = [str(ROOT / source) for source in _SOURCES]
    before = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    paths = [*own, str(ROOT), *made, *before]
    return os.pathsep.join(dict.fromkeys(filter(None, paths)))


def installed_by_hand(folder: Path) -> list[str]:
    """The distributions whose metadata was written to a folder."""
    return sorted(path.name.partition("-")[0] for path in folder.glob("*.dist-info"))


def _written(folder: Path) -> bool:
    """Whether something was not installed, and its metadata was written."""
    for project in _PROJECTS:
        text = (ROOT / project / "pyproject.toml").read_text(encoding="utf-8")
        said = tomllib.loads(text)["project"]
        if not _installed(said["name"]):
            write_metadata(folder, said)
    return bool(installed_by_hand(folder))


def _installed(name: str) -> bool:
    try:
        distribution(name)
    except PackageNotFoundError:
        return False
    return True


def write_metadata(folder: Path, project: dict[str, Any]) -> Path:
    """Write what pip would say of a project: its name and its entry points.

    Args:
        folder: A folder that will be on the path.
        project: The table `project` of its `pyproject.toml`.
    """
    version = project.get("version", "0+checkout")
    name = project["name"].replace("-", "_")
    place = folder / f"{name}-{version}.dist-info"
    place.mkdir(parents=True, exist_ok=True)
    head = f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {version}\n"
    (place / "METADATA").write_text(head, encoding="utf-8")
    lines = []
    for group, points in project.get("entry-points", {}).items():
        lines += [f"[{group}]", *(f"{key} = {value}" for key, value in points.items()), ""]
    (place / "entry_points.txt").write_text("\n".join(lines), encoding="utf-8")
    return place
