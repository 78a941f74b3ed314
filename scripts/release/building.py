"""Building all distributions, each as an sdist and a wheel, and checking them."""

from __future__ import annotations

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from scripts.release.versions import ROOT, out_of_step, projects, version


def build(out: Path, *, at_once: int = 2, root: Path = ROOT) -> list[Path]:
    """Build everything into an empty folder.

    Args:
        out: The folder; it is made.
        at_once: How many are built at the same time.
        root: The checkout.

    Returns:
        The files: two for each distribution.

    Raises:
        SystemExit: Versions are out of step, the folder is not empty, or a build fails.
    """
    if wrong := out_of_step(root):
        raise SystemExit("\n".join(wrong))
    out.mkdir(parents=True, exist_ok=True)
    if any(out.iterdir()):
        raise SystemExit(f"{out} is not empty: name a new folder.")
    with ThreadPoolExecutor(at_once) as pool:
        list(pool.map(lambda project: _build(project, out.resolve()), projects(root)))
    found, number = sorted(out.iterdir()), version(root)
    named = [path for path in found if f"-{number}" in path.name]
    if len(named) != 2 * len(projects(root)) or named != found:
        raise SystemExit(f"{out} does not hold an sdist and a wheel of each: {found}")
    return found


def check(files: list[Path]) -> None:
    """Have twine check what a package index would show.

    Raises:
        SystemExit: It finds a fault.
    """
    done = _run(sys.executable, "-m", "twine", "check", "--strict", *map(str, files))
    if done.returncode:
        raise SystemExit(done.stdout + done.stderr)


def _build(project: Path, out: Path) -> None:
    command = ("hatchling", "build", "-t", "sdist", "-t", "wheel", "-d", str(out))
    done = _run(sys.executable, "-m", *command, cwd=project)
    if done.returncode:
        raise SystemExit(f"{project.name}: {done.stdout}{done.stderr}")


def _run(*command: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, cwd=cwd, check=False, capture_output=True, text=True)
