"""Variants timed in turn, round after round, so that whatever else runs hits all of them."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
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
        wall = _ratios(found.wall, times[base].wall)
        cpu = statistics.median(_ratios(found.cpu, times[base].cpu))
        each = 1000 * statistics.median(found.wall) / per
        lines.append(
            f"{name:{width}}  {each:{3 + len(unit)}.2f}  {statistics.median(wall):6.3f} "
            f"({min(wall):.3f} to {max(wall):.3f})  {cpu:20.3f}"
        )
    return "\n".join(lines)


def _ratios(mine: list[float], base: list[float]) -> list[float]:
    return [one / other for one, other in zip(mine, base, strict=True)]
