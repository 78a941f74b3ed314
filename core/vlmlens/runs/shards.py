"""Shards: the parts of a run that several processes write, read as one store.

A shard is a run of its own in `OUT/shards/K-of-N`, and is resumed like any other run.
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
WORKER = "_VLMLENS_WORKER"
"""The variable that tells a process to end when its standard input is closed."""
_ENVIRONMENTS = (("RANK", "WORLD_SIZE"), ("SLURM_PROCID", "SLURM_NTASKS"))


@dataclass(frozen=True, slots=True)
class Shard:
    """One process's part of a run.

    Args:
        number: The number of the part, from 0.
        count: The number of parts.
    """

    number: int
    count: int

    @classmethod
    def parse(cls, text: str) -> Shard:
        """Read `K/N`; or `env`, which takes the variables that torchrun or srun set.

        Raises:
            SpecError: It is neither, or the variables are not set.
        """
        if text == "env":
            return cls._of_environment()
        number, slash, count = text.partition("/")
        if not (slash and number.isdecimal() and count.isdecimal() and int(number) < int(count)):
            raise SpecError(
                f"{text!r} is not a shard.", subject=text, hint="Write --shard 0/4 to 3/4, or env."
            )
        return cls(int(number), int(count))

    @classmethod
    def _of_environment(cls) -> Shard:
        for number, count in _ENVIRONMENTS:
            if number in os.environ and count in os.environ:
                return cls.parse(f"{os.environ[number]}/{os.environ[count]}")
        names = ", ".join("/".join(pair) for pair in _ENVIRONMENTS)
        raise SpecError(
            f"--shard env found no shard: the variables {names} are not set.",
            subject="env",
            hint="Start the command with torchrun or srun, or write --shard 0/4.",
        )

    def path(self, run: Path) -> Path:
        """The shard's folder inside a run's folder."""
        return run / FOLDER / f"{self.number}-of-{self.count}"


def shard_folders(run: Path) -> list[Path]:
    """The shards in a run's folder, in order.

    Raises:
        RunError: They belong to different numbers of parts.
    """
    found = [path.parent for path in (run / FOLDER).glob("*-of-*/run.json")]
    counts = {path.name.rpartition("-")[2] for path in found}
    if len(counts) > 1:
        raise RunError(
            f"{str(run)!r} holds shards of {' and of '.join(sorted(counts))}.",
            subject=str(run),
            hint=f"Remove from {FOLDER}/ those that do not belong to this run.",
        )
    return sorted(found, key=lambda path: int(path.name.partition("-")[0]))
