"""A full disk: one clear error with exit code 2, nothing lost, and the run goes on afterwards.

Makes small file systems in memory, which needs the right to mount; otherwise it says so and ends.

    sudo python -m benchmarks.attacks.disk_full
    sudo python -m benchmarks.attacks.disk_full --rounds 5 --seed 1
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.attacks._processes import columns, command, ended, forked, plan, table
from vlmlens import Run
from vlmlens.runner.execution import execute

SAMPLES = 300
SIZE = 24 << 20
EXPORTS = ("x.lmdb", "x.db", "x.zarr", "x.npz", "x.safetensors", "x.parquet")


def main() -> None:
    """Print how many commands met a full disk well."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=4, help="of each kind")
    parser.add_argument("--seed", type=int, default=0)
    chosen = parser.parse_args()
    dice = random.Random(chosen.seed)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if not _may_mount(folder):
            print("skipped: this user may not mount a file system")
            raise SystemExit(0)
        execute(plan(folder / "whole", SAMPLES, 8), extract_only=True)
        right = columns(folder / "whole")
        kinds: dict[str, Callable[[Path, int], str]] = {
            "extract": lambda disk, free: _extract(disk, free, right),
            "analyze": lambda disk, free: _analyze(disk, free, folder / "whole"),
            **{
                f"export {target}": lambda disk, free, target=target: _export(
                    disk, free, folder / "whole", target
                )
                for target in EXPORTS
            },
        }
        rows, wrong = [], 0
        for kind, attack in kinds.items():
            failures = 0
            for number in range(chosen.rounds):
                free = (0, 4096, 8192)[number] if number < 3 else dice.randrange(1 << 12, 1 << 20)
                with _disk(folder) as disk:
                    problem = attack(disk, free)
                if problem:
                    print(f"{kind}, {free} bytes free: {problem}")
                failures += bool(problem)
            rows.append((kind, chosen.rounds, failures))
            wrong += failures
    table(rows, wrong)


def _extract(disk: Path, free: int, right: object) -> str:
    """Begin a run on a full disk; make room, and go on with it."""
    out, said = disk / "run", disk.parent / "said"
    _fill(disk, free)
    code = ended(forked(lambda: execute(plan(out, SAMPLES, 8), extract_only=True), said))
    problem = _problem(code, said)
    if (out / "run.json").exists() and code and Run(out).info["state"] != "failed":
        problem = f"the state is {Run(out).info['state']}; {said.read_text()[-300:]}"
    (disk / "filling").unlink()
    execute(plan(out, SAMPLES, 8), mode="resume", extract_only=True)
    return problem or ("" if columns(out) == right else "samples are lost")


def _analyze(disk: Path, free: int, whole: Path) -> str:
    shutil.copytree(whole, disk / "run")
    _fill(disk, free)
    said = disk.parent / "said"
    code = ended(forked(lambda: command("analyze", disk / "run", "--analysis", "blind-test"), said))
    problem = _problem(code, said)
    return problem or ("" if columns(disk / "run") == columns(whole) else "samples are lost")


def _export(disk: Path, free: int, whole: Path, target: str) -> str:
    _fill(disk, free)
    said = disk.parent / "said"
    code = ended(forked(lambda: command("export", whole, disk / target), said))
    problem = _problem(code, said)
    return problem or ("" if code == 2 else "it was not refused")


def _problem(code: int, said: Path) -> str:
    text = said.read_text(errors="replace")
    if code not in (0, 2):
        return f"exit code {code}: {text[-300:]}"
    return "a traceback" if "Traceback" in text or "This is a bug" in text else ""


def _fill(disk: Path, free: int) -> None:
    found = os.statvfs(disk)
    size = max(0, found.f_bavail * found.f_frsize - free)
    with (disk / "filling").open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, max(1, size))


def _may_mount(folder: Path) -> bool:
    try:
        with _disk(folder):
            return True
    except (OSError, subprocess.CalledProcessError):
        return False


@contextmanager
def _disk(folder: Path) -> Iterator[Path]:
    place = folder / "disk"
    place.mkdir(exist_ok=True)
    mount = ["mount", "-t", "tmpfs", "-o", f"size={SIZE}", "tmpfs", str(place)]
    subprocess.run(mount, check=True, capture_output=True)
    try:
        yield place
    finally:
        subprocess.run(["umount", "-l", str(place)], check=True)


if __name__ == "__main__":
    main()
