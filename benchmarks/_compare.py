"""Variants timed in turn, round after round, so that whatever else runs hits all of them."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field


@dataclass
class Times:
    """Seconds of one variant, one entry per round.

    Args:
        wall: On the clock.
        cpu: Of all of the process's threads; other programs hardly touch it.
    """

    wall: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)


@dataclass(frozen=True)
class Target:
    """A measured number with what it is to be.

    Args:
        name: What was measured.
        value: On the clock.
        limit: What it may be at most.
        least: The limit is what it must be at least.
        cpu: The same in the processor's time, where that was measured: on a busy machine the
            steadier figure.
        unit: Of the value.
    """

    name: str
    value: float
    limit: float
    least: bool = False
    cpu: float | None = None
    unit: str = ""

    @property
    def met(self) -> bool:
        """Whether the value keeps to the limit."""
        return self.value >= self.limit if self.least else self.value <= self.limit


def in_turn(variants: Mapping[str, Callable[[], object]], rounds: int) -> dict[str, Times]:
    """Times of each variant, after one round that is not counted."""
    times = {name: Times() for name in variants}
    for number in range(rounds + 1):
        for name, run in variants.items():
            wall, cpu = time.perf_counter(), time.process_time()
            run()
            if number:
                times[name].wall.append(time.perf_counter() - wall)
                times[name].cpu.append(time.process_time() - cpu)
    return times


def ratios(mine: Times, base: Times, kind: str) -> list[float]:
    """Round by round, one variant's seconds over another's."""
    pairs = zip(getattr(mine, kind), getattr(base, kind), strict=True)
    return [one / other for one, other in pairs]


def table(times: Mapping[str, Times], base: str, *, per: int, unit: str) -> str:
    """Medians, and the medians over rounds of each variant's ratio to the base.

    Args:
        times: Per variant.
        base: The variant that is 1.00.
        per: What the seconds are divided by.
        unit: Its name.
    """
    width = max(map(len, times))
    lines = [f"{'':{width}}  ms/{unit}  wall ratio (lowest to highest)  cpu ratio"]
    for name, found in times.items():
        wall = ratios(found, times[base], "wall")
        cpu = statistics.median(ratios(found, times[base], "cpu"))
        each = 1000 * statistics.median(found.wall) / per
        lines.append(
            f"{name:{width}}  {each:{3 + len(unit)}.2f}  {statistics.median(wall):6.3f} "
            f"({min(wall):.3f} to {max(wall):.3f})  {cpu:20.3f}"
        )
    return "\n".join(lines)


def verdicts(targets: Sequence[Target]) -> str:
    """Every number with its target, for people."""
    width = max((len(target.name) for target in targets), default=0)
    lines = [f"{'':{width}}  {'measured':>9}  {'in cpu':>7}   target"]
    for target in targets:
        cpu = f"{target.cpu:7.3f}" if target.cpu is not None else f"{'':7}"
        sign = ">=" if target.least else "<="
        verdict = "met" if target.met else "MISSED"
        lines.append(
            f"{target.name:{width}}  {target.value:9.3f}  {cpu}   {sign} {target.limit:g}"
            f"{target.unit}  {verdict}"
        )
    return "\n".join(lines)
