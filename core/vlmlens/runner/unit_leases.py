"""Leases of units: pieces of an analysis's model work that any process can run, in any order.

A lease holds whole batches, so results do not depend on who runs which lease.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vlmlens.abc.model_work import JSON, ModelWork, WorkUnit
from vlmlens.abc.unit_batches import run_batches
from vlmlens.errors import BrokenPlugin, DataError, PluginError
from vlmlens.manifest import PluginKind
from vlmlens.regions import ATTRIBUTE as REGIONS
from vlmlens.regions import masks_in, with_masks
from vlmlens.registry._target import import_file
from vlmlens.samples import Sample
from vlmlens.spec.model import validated

if TYPE_CHECKING:
    from vlmlens.abc.adapter import ModelAdapter


@dataclass(frozen=True, slots=True)
class UnitLease:
    """Some batches of units.

    Args:
        number: The lease's, from 0.
        batches: The units of each batch.
    """

    number: int
    batches: tuple[tuple[WorkUnit, ...], ...]

    def __len__(self) -> int:
        return sum(len(batch) for batch in self.batches)

    def to_dict(self) -> dict[str, JSON]:
        """The lease as JSON; a sample that several units share is in it once.

        Raises:
            DataError: A sample has an image in memory.
        """
        places: dict[int, int] = {}
        samples: list[JSON] = []
        batches = []
        for batch in self.batches:
            listed = []
            for unit in batch:
                if id(unit.sample) not in places:
                    places[id(unit.sample)] = len(samples)
                    samples.append(_sample(unit.sample))
                listed.append([places[id(unit.sample)], dict(unit.arguments)])
            batches.append(listed)
        return {"number": self.number, "samples": samples, "batches": batches}

    @classmethod
    def from_dict(cls, data: Mapping[str, JSON]) -> UnitLease:
        """The inverse of `to_dict`, up to what `ModelWork.run` does not see."""
        samples = [Sample.from_dict(each) for each in data["samples"]]
        return cls(
            data["number"],
            tuple(
                tuple(WorkUnit(samples[place], arguments) for place, arguments in batch)
                for batch in data["batches"]
            ),
        )


def leases_of(batches: Sequence[Sequence[WorkUnit]], units: int) -> list[UnitLease]:
    """Batches in leases, in order. The cut does not depend on the number of workers.

    Args:
        batches: The units of each batch, see `vlmlens.abc.unit_batches.cut`.
        units: About how many units a lease has. It has one batch at least.
    """
    leases: list[list[tuple[WorkUnit, ...]]] = []
    room = 0
    for batch in batches:
        if room <= 0:
            leases.append([])
            room = units
        leases[-1].append(tuple(batch))
        room -= len(batch)
    return [UnitLease(number, tuple(each)) for number, each in enumerate(leases)]


def run_lease(
    vlm: ModelAdapter, work: ModelWork, lease: UnitLease, warn: Callable[[str], None]
) -> Iterator[list[JSON]]:
    """The results of a lease, batch by batch.

    Args:
        vlm: The loaded model.
        work: What to run.
        lease: Its units.
        warn: Called once, if a batch does not fit in memory.

    Raises:
        OutOfMemory: A single unit does not fit.
        BrokenPlugin: The work gave no JSON, or not one result for each unit.
    """
    return run_batches(vlm, work, lease.batches, warn)


def made_work(record: Mapping[str, Any]) -> ModelWork:
    """The work that `ModelWork.to_dict` describes. It imports what the record names.

    Args:
        record: It must come from a process of this user, never from a run's folder.

    Raises:
        BrokenPlugin: There is no such class, or it is no work.
        SpecError: It has no such options.
    """
    target = str(record["target"])
    place, _, name = target.rpartition(":")
    try:
        found: Any = (
            import_file(PluginKind.ANALYSIS, Path(place), target)
            if place.endswith(".py")
            else import_module(place)
        )
        for part in name.split("."):
            found = getattr(found, part)
    except PluginError:
        raise
    except Exception as error:
        raise BrokenPlugin(
            f"The model work {target!r} cannot be imported: {error}.",
            subject=target,
            hint="Define the class at the top of a module that can be imported, or of a file.",
        ) from error
    if not (isinstance(found, type) and issubclass(found, ModelWork)):
        raise BrokenPlugin(
            f"{target!r} is no model work.",
            subject=target,
            hint="Expected: a subclass of vlmlens.abc.ModelWork.",
        )
    return found(validated(found.Options, dict(record["options"]), where=name))


def _sample(sample: Sample) -> dict[str, JSON]:
    if any(not isinstance(image, str) for image in sample.images):
        raise DataError(
            f"An image of sample {sample.id!r} is in memory, and cannot be sent to a process.",
            subject=sample.id,
            hint="Give units samples with paths, and make other images inside `run`.",
        )
    record = sample.as_seen().to_dict()
    if masks_in(record["attributes"].get(REGIONS)):
        record["attributes"][REGIONS] = with_masks(record["attributes"][REGIONS], _whole)
    return {**record, "images": [_whole(image) for image in record["images"]]}


def _whole(path: str) -> str:
    return str(Path(path).absolute())
