"""Planning: the units of a whole run, and the leases into which several processes share them.

Both depend on the samples, the model and the settings only, never on the number of processes. So
whoever computes a unit, its rows are the same.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from vlmlens.extraction.batching import Lengths, Unit, units, work_of

if TYPE_CHECKING:
    import torch

    from vlmlens.abc.adapter import ModelAdapter
    from vlmlens.abc.extractor import Extractor
    from vlmlens.samples import Sample

CPU_TOKENS = 1536
DEVICE_TOKENS = 16384
"""Tokens per unit if the user gave no batch size; on a CPU, larger batches leave the caches."""

SECONDS = 60.0
"""How long a lease should take."""

_LEAST_LEASES = 16
_SHORT = 4
_TAIL = 0.2
_SPEEDS = {"cpu": 1e11, "gpu": 3e14}
"""Rough numbers of operations per second; a lease may take a few times longer or shorter."""


@dataclass(frozen=True, slots=True)
class Planned:
    """The units of a run.

    Args:
        units: In the order of the samples.
        work: About how many tokens each unit computes.
    """

    units: Sequence[Unit]
    work: Mapping[Unit, float]


def planned(
    samples: Sequence[Sample],
    vlm: ModelAdapter,
    extractor: Extractor,
    *,
    batch_size: int | str,
    share: bool,
    generate: int | None,
    budget: int,
) -> Planned:
    """Divide the samples of a run into units.

    Args:
        samples: All samples of the run.
        vlm: The model, or its skeleton.
        extractor: Made for that model.
        batch_size: Samples per unit; "auto": by tokens.
        share: Whether samples with the same images share their beginning, if that is exact.
        generate: How many tokens the model may generate for each sample; None: none.
        budget: Tokens per unit if the batch size is "auto".
    """
    size = None if isinstance(batch_size, str) else batch_size
    lengths = Lengths.of(samples, lambda sample: vlm.encode([sample]))
    can = share and extractor.takes_passes and generate is None and not vlm.active_edits
    shared = vlm.shares if can else "nothing"
    found = units(samples, lengths, size=size, budget=budget, share=shared)
    if size is None:
        found = [*_first_alone(found[:1]), *found[1:]]
    return Planned(found, {unit: work_of(unit, lengths, shared) for unit in found})


def budget_on(device: torch.device | str) -> int:
    """Tokens per unit on a device."""
    return CPU_TOKENS if str(device).startswith("cpu") else DEVICE_TOKENS


def cut(plan: Planned, todo: Sequence[Unit], *, parameters: int, gpu: bool) -> list[list[Unit]]:
    """Cut units into leases of about a minute, the longest first.

    The last fifth of the work is cut finer, so that workers end at about the same time.

    Args:
        plan: The units of the run.
        todo: The units that are to be computed.
        parameters: The model's number of parameters.
        gpu: Whether workers compute on GPUs.
    """
    total = sum(plan.work[unit] for unit in todo)
    speed = _SPEEDS["gpu" if gpu else "cpu"] / (2.0 * max(parameters, 1))
    size = min(SECONDS * speed, total / _LEAST_LEASES)
    leases, done = [], 0.0
    pending: list[Unit] = []
    filled = 0.0
    for unit in todo:
        pending.append(unit)
        filled += plan.work[unit]
        limit = size if done < (1 - _TAIL) * total else size / _SHORT
        if filled >= limit:
            leases.append(pending)
            done += filled
            pending, filled = [], 0.0
    if pending:
        leases.append(pending)
    return sorted(leases, key=lambda lease: -sum(plan.work[unit] for unit in lease))


def _first_alone(units: Sequence[Unit]) -> Iterator[Unit]:
    """Split off the first sample: the first pass runs to its end, so it should be short."""
    for unit in units:
        if unit.shared or len(unit.groups) == 1:
            yield unit
        else:
            yield from (Unit(unit.groups[:1]), Unit(unit.groups[1:]))


def to_json(
    lease: Sequence[Unit], samples: Sequence[Sample], missing: Sequence[tuple[str, ...]]
) -> dict[str, Any]:
    """A lease as data: its samples, its units, and the columns that each sample lacks.

    Args:
        lease: Units whose numbers are those of `samples`.
        samples: All samples of the run, with images as paths.
        missing: Per sample of the run, the columns that are not stored yet.
    """
    numbers = [number for unit in lease for number in unit.samples]
    own = {number: place for place, number in enumerate(numbers)}
    lacking = sorted({missing[number] for number in numbers})
    which = {columns: place for place, columns in enumerate(lacking)}
    return {
        "samples": [samples[number].to_dict() for number in numbers],
        "units": [
            {
                "groups": [[own[number] for number in group] for group in unit.groups],
                "shared": unit.shared,
            }
            for unit in lease
        ],
        "lacking": [list(columns) for columns in lacking],
        "missing": [which[missing[number]] for number in numbers],
    }


def units_of(lease: Mapping[str, Any]) -> list[Unit]:
    """The units of a lease, with numbers of the lease's own samples."""
    return [
        Unit(tuple(tuple(group) for group in unit["groups"]), unit["shared"])
        for unit in lease["units"]
    ]


def missing_of(lease: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """Per sample of a lease, the columns that it lacks."""
    lacking = [tuple(columns) for columns in lease["lacking"]]
    return [lacking[place] for place in lease["missing"]]
