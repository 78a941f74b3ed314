"""One run in several processes: each writes a shard of its own, which are read as one store.

A shard is a run by itself in `OUT/shards/K-of-N`, so that it is resumed like any other.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from vlmlens.errors import (
    RunError,
    SpecError,
)

if TYPE_CHECKING:
    pass

FOLDER = "shards"
_ENVIRONMENTS = (("RANK", "WORLD_SIZE"), ("SLURM_PROCID", "SLURM_NTASKS"))


@dataclass(frozen=True, slots=True)
class Shard:
    """One process's part of a run.

    Args:
        number: Which one, from 0.
        count: Of how many.
    """

    number: int
    count: int

    @classmethod
    def parse(cls, text: str) -> Shard:
        """Read `K/N`, or what torchrun or srun put into the environment for `env`.

        Raises:
            SpecError: It is neither, or the environment says nothing.
        """
        if text == "env":
            return cls._of_environment()
        number, slash, count = text.partition("/")
        if not (slash and number.isdecimal() and count.isdecimal() and int(number) < int(count)):
            raise SpecError(
                f"{text!r} is no shard.", subject=text, hint="Write --shard 0/4 to 3/4, or env."
            )
        return cls(int(number), int(count))

    @classmethod
    def _of_environment(cls) -> Shard:
        for number, count in _ENVIRONMENTS:
            if number in os.environ and count in os.environ:
                return cls.parse(f"{os.environ[number]}/{os.environ[count]}")
        names = ", ".join("/".join(pair) for pair in _ENVIRONMENTS)
        raise SpecError(
            f"The environment says of no shard: {names} are not set.",
            subject="env",
            hint="Start it by torchrun or srun, or write --shard 0/4.",
        )

    def path(self, run: Path) -> Path:
        """Where in a run's folder it is written."""
        return run / FOLDER / f"{self.number}-of-{self.count}"


def shard_folders(run: Path) -> list[Path]:
    """The shards in a run's folder, in order.

    Raises:
        RunError: They are parts of different divisions.
    """
    found = [path.parent for path in (run / FOLDER).glob("*-of-*/run.json")]
    counts = {path.name.rpartition("-")[2] for path in found}
    if len(counts) > 1:
        raise RunError(
            f"{str(run)!r} holds shards of {' and of '.join(sorted(counts))}.",
            subject=str(run),
            hint=f"Remove those in {FOLDER}/ that are not meant.",
        )
    return sorted(found, key=lambda path: int(path.name.partition("-")[0]))
