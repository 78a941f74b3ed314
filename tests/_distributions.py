"""Distributions that are used as if they were installed, without pip and without a network."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

_BUILD = "import sys; from hatchling.build import build_wheel; build_wheel(sys.argv[1])"


def install(distribution: Path, site: Path) -> None:
    """Build a distribution's wheel and unpack it, as pip does, into a folder for PYTHONPATH."""
    wheels = site / "wheels"
    wheels.mkdir(parents=True, exist_ok=True)
    subprocess.run([sys.executable, "-c", _BUILD, str(wheels)], cwd=distribution, check=True)
    for wheel in wheels.glob("*.whl"):
        zipfile.ZipFile(wheel).extractall(site)
        wheel.unlink()


def environment(site: Path) -> dict[str, str]:
    """The environment of a process that finds what is installed in `site`."""
    return {
        **os.environ,
        "PYTHONPATH": str(site),
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "COLUMNS": "160",
    }


if __name__ == "__main__":
    install(Path(sys.argv[1]), Path(sys.argv[2]))
