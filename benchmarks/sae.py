"""What training an SAE costs, beside a bare dense loop in torch and beside SAELens.

All train the same TopK SAE from the same start on the same rows, each in a process of its own, a
few steps at a time in turn, so that whatever else runs hits all of them. The dense loop has the
same mathematics as ours and keeps whole codes; SAELens (from another environment: `--saelens
PYTHON`) weighs codes by decoder norms instead of keeping these at 1, and clips gradients. How rows
from a store compare with rows in memory is in `_sae_feeding`.

    python -m benchmarks.sae --saelens ~/saelens/bin/python
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks._compare import Target, Times, ratios, table, verdicts
from benchmarks._sae_feeding import feeding, scale

_PARTS = ("throughput", "memory", "feeding", "scale")
_WORKER = Path(__file__).with_name("_sae_worker.py")


def main() -> None:
    """Print times, losses and memory."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", choices=_PARTS, nargs="+")
    parser.add_argument("--saelens", help="a python that can import sae_lens")
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--steps", type=int, default=1, help="in each round")
    parser.add_argument("--shape", default="1024,8192,32,4096", help="width,features,k,batch")
    parser.add_argument("--threads", type=int, default=2)
    chosen = parser.parse_args()
    asked = chosen.only or _PARTS
    size = [*chosen.shape.split(","), str(chosen.threads)]
    targets: list[Target] = []
    if {"throughput", "memory"} & set(asked):
        ways = run(size, chosen.saelens, chosen.rounds, chosen.steps)
        targets += report(ways, asked, chosen.rounds * chosen.steps, int(size[3]))
    if "feeding" in asked:
        targets += feeding(chosen.rounds, int(size[0]), int(size[1]))
    if "scale" in asked:
        targets += scale()
    print(verdicts(targets))


@dataclass
class Way:
    """One way of training, in its process.

    Args:
        process: It.
        times: Seconds per round.
        losses: Of every step, the ones that are not timed included.
        grown: MiB by which its memory has grown at most.
    """

    process: subprocess.Popen[str]
    times: Times = field(default_factory=Times)
    losses: list[float] = field(default_factory=list)
    grown: float = 0.0

    def step(self, count: int, *, timed: bool) -> None:
        """Some steps of training."""
        assert self.process.stdin is not None
        self.process.stdin.write(f"{count}\n")
        self.process.stdin.flush()
        found = json.loads(self.line())
        self.losses += found["losses"]
        self.grown = found["grown"]
        if timed:
            self.times.wall.append(found["wall"])
            self.times.cpu.append(found["cpu"])

    def line(self) -> str:
        """What it says next."""
        assert self.process.stdout is not None
        found = self.process.stdout.readline()
        if not found:
            sys.exit(f"A way of training ended with the code {self.process.wait()}.")
        return found


def run(size: list[str], saelens: str | None, rounds: int, steps: int) -> dict[str, Way]:
    """Train in turn; the first round is not timed."""
    pythons = {"ours": sys.executable, "dense": sys.executable}
    pythons |= {"saelens": saelens} if saelens else {}
    ways = {name: Way(_started(python, name, size)) for name, python in pythons.items()}
    for way in ways.values():
        while way.line().strip() != "ready":
            continue
    for number in range(rounds + 1):
        for way in ways.values():
            way.step(steps, timed=number > 0)
    for way in ways.values():
        way.process.communicate("\n")
    return ways


def _started(python: str, name: str, size: list[str]) -> subprocess.Popen[str]:
    command = [python, str(_WORKER), name, *size]
    pipe = subprocess.PIPE
    return subprocess.Popen(
        command, stdin=pipe, stdout=pipe, stderr=subprocess.DEVNULL, text=True, bufsize=1
    )


def report(ways: dict[str, Way], asked: tuple[str, ...], steps: int, batch: int) -> list[Target]:
    """Print what was measured; the targets that it is to meet."""
    targets: list[Target] = []
    steps_of_round = steps // len(ways["ours"].times.wall)
    if "throughput" in asked:
        print(table({n: w.times for n, w in ways.items()}, "ours", per=steps_of_round, unit="step"))
        for name, way in ways.items():
            each = [batch * steps_of_round / one for one in way.times.wall]
            print(f"{name}: {statistics.median(each):.0f} rows/s (best {max(each):.0f})")
        for name, limit in (("dense", 1.7), ("saelens", 2.0)):
            if name in ways:
                wall, cpu = (
                    statistics.median(ratios(ways[name].times, ways["ours"].times, kind))
                    for kind in ("wall", "cpu")
                )
                targets.append(Target(f"times as fast as {name}", wall, limit, True, cpu))
                last = ways["ours"].losses[-1] / ways[name].losses[-1]
                seen = batch * len(ways[name].losses)
                most = 1.001 if name == "dense" else 1.02
                targets.append(Target(f"loss after {seen} rows to {name}", last, most))
    if "memory" in asked:
        for name, way in ways.items():
            print(f"{name}: memory grew by {way.grown:.0f} MiB at most")
        if "saelens" in ways:
            share = ways["ours"].grown / ways["saelens"].grown
            targets.append(Target("memory of that of saelens", share, 0.6))
    return targets


if __name__ == "__main__":
    main()
