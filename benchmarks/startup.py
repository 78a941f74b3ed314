"""What do light commands cost beside importing the libraries that they print with?

The commands run in turn, each in a process of its own, with bytecode compiled beforehand as an
installer does; the table gives medians beside `python -c "import typer, rich"`.
"""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from importlib.metadata import distributions
from pathlib import Path
from statistics import median
from time import perf_counter

SCRIPT = str(Path(sys.executable).with_name("vlmlens"))
COMMANDS = {
    "import typer, rich": ([sys.executable, "-c", "import typer, rich"], None),
    "vlmlens --help": ([SCRIPT, "--help"], 1.5),
    "vlmlens plugins list": ([SCRIPT, "plugins", "list"], 2.0),
    "vlmlens plugins list --json": ([SCRIPT, "plugins", "list", "--json"], None),
    "vlmlens run --help": ([SCRIPT, "run", "--help"], None),
    "vlmlens version": ([SCRIPT, "version"], None),
}
"""By title: the command, and the most it may take as a multiple of the first."""


def measure(command: Sequence[str], environment: dict[str, str]) -> tuple[float, float]:
    """Wall time and processor time of one run, in seconds."""
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), perf_counter()
    subprocess.run(command, env=environment, check=True, stdout=subprocess.DEVNULL)
    wall, after = perf_counter() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
    return wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=10)
    runs = parser.parse_args().runs
    adapters = {
        distribution.name
        for distribution in distributions()
        if distribution.name.startswith("vlmlens-adapter-")
    }
    times: dict[str, list[tuple[float, float]]] = {title: [] for title in COMMANDS}
    with tempfile.TemporaryDirectory() as compiled:
        environment = {**os.environ, "PYTHONPYCACHEPREFIX": compiled}
        environment.pop("PYTHONDONTWRITEBYTECODE", None)
        for run in range(runs + 1):
            for title, (command, _) in COMMANDS.items():
                taken = measure(command, environment)
                if run:
                    times[title].append(taken)
    print(f"{len(adapters)} adapter distributions installed, median of {runs} runs in turn\n")
    print(f"{'':30}{'wall':>8}{'CPU':>8}{'at most':>9}")
    floor = [median(column) for column in zip(*times["import typer, rich"], strict=True)]
    for title, (_, bound) in COMMANDS.items():
        middle = [median(column) for column in zip(*times[title], strict=True)]
        ratios = [mine / least for mine, least in zip(middle, floor, strict=True)]
        most = f"{bound:.1f}" if bound else ""
        print(f"{title:30}{ratios[0]:>8.2f}{ratios[1]:>8.2f}{most:>9}")


if __name__ == "__main__":
    main()
