"""check_work: what model work must keep to, so that results can be stored, and computed anywhere.

::

    from vlmlens.testing import check_work

    def test_my_work(vlm, samples):
        check_work(vlm, MyWork(), [WorkUnit(sample) for sample in samples])
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from vlmlens.abc.model_work import JSON, ModelWork, WorkUnit
from vlmlens.abc.unit_batches import run_batches
from vlmlens.errors import PluginError, VlmlensError
from vlmlens.runner.unit_leases import UnitLease, made_work, run_lease
from vlmlens.testing._checks import CheckFailed, expect
from vlmlens.testing._rounding import close

if TYPE_CHECKING:
    from vlmlens.abc.adapter import ModelAdapter

LARGEST = 32.0
"""About the largest number that results come from, where they do not show it: a logit."""


def check_work(
    vlm: ModelAdapter, work: ModelWork, units: Sequence[WorkUnit], *, largest: float = LARGEST
) -> None:
    """Check that the results of model work depend on nothing but the model and the unit.

    They are JSON, one for each unit, and the same up to rounding for each unit alone, in a batch,
    in another order, under another sample id, and from an object that another process would make.

    Args:
        vlm: A loaded model.
        work: The work.
        units: Different ones that may be run together: at least two.
        largest: The largest number that results are computed from. Rounding is measured by it.

    Raises:
        CheckFailed: The work does not keep to this. The message says in what.
    """
    expect(len(units) > 1, "two units at least are needed")
    together = _results(vlm, work, [units])
    cases = {
        "alone": _results(vlm, work, [[unit] for unit in units]),
        "in the opposite order": _results(vlm, work, [units[::-1]])[::-1],
        "under another sample id": _results(vlm, work, [[_renamed(unit) for unit in units]]),
        "made by another process": _remade(vlm, work, units),
    }
    for how, found in cases.items():
        for unit, one, other in zip(units, together, found, strict=True):
            _expect_same(unit, one, other, how, largest)


def _results(
    vlm: ModelAdapter, work: ModelWork, batches: Sequence[Sequence[WorkUnit]]
) -> list[JSON]:
    try:
        return [each for found in run_batches(vlm, work, batches, _unheard) for each in found]
    except PluginError as error:
        raise CheckFailed(str(error)) from error


def _remade(vlm: ModelAdapter, work: ModelWork, units: Sequence[WorkUnit]) -> list[JSON]:
    try:
        made = made_work(json.loads(json.dumps(work.to_dict())))
    except VlmlensError as error:
        raise CheckFailed(f"another process cannot make it: {error}") from error
    expect(made.identity() == work.identity(), "its options change when they are sent as JSON")
    lease = UnitLease(0, (tuple(units),))
    if all(isinstance(image, str) for unit in units for image in unit.sample.images):
        lease = UnitLease.from_dict(json.loads(json.dumps(lease.to_dict())))
    return [each for found in run_lease(vlm, made, lease, _unheard) for each in found]


def _renamed(unit: WorkUnit) -> WorkUnit:
    return replace(unit, sample=replace(unit.sample, id=f"{unit.sample.id} renamed"))


def _expect_same(unit: WorkUnit, one: JSON, other: JSON, how: str, largest: float) -> None:
    what = f"the result of sample {unit.sample.id!r} differs {how}"
    shapes = [json.dumps(_without_fractions(each), sort_keys=True) for each in (one, other)]
    expect(shapes[0] == shapes[1], f"{what}: {_short(one)} and {_short(other)}")
    first, second = list(_fractions(one)), list(_fractions(other))
    try:
        close(first, second, scale=max([largest, *map(abs, first)]))
    except AssertionError as error:
        raise CheckFailed(f"{what}: {error}") from error


def _without_fractions(value: JSON) -> JSON:
    """The value with its fractional numbers replaced by one word."""
    if isinstance(value, dict):
        return {name: _without_fractions(each) for name, each in value.items()}
    if isinstance(value, list):
        return [_without_fractions(each) for each in value]
    return "fraction" if isinstance(value, float) else value


def _fractions(value: JSON) -> Iterator[float]:
    """Its fractional numbers, in the order of names and places."""
    if isinstance(value, dict):
        for name in sorted(value):
            yield from _fractions(value[name])
    elif isinstance(value, list):
        for each in value:
            yield from _fractions(each)
    elif isinstance(value, float):
        yield value


def _short(value: JSON) -> str:
    return json.dumps(value)[:80]


def _unheard(message: str) -> None:
    raise CheckFailed(message)
