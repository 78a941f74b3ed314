"""Small runs in several processes, and an observer that keeps what it is told."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from vlmlens import Run
from vlmlens.abc.engine import Engine
from vlmlens.compose.plan import Plan, compose
from vlmlens.registry import Registry
from vlmlens.runner.execution import engine_of, execute
from vlmlens.runner.joining import is_first, join
from vlmlens.spec.model import make_spec


class Silent:
    """An observer that keeps what it is told."""

    def __init__(self) -> None:
        self.said: list[str] = []
        self.done = 0

    def stage(self, name: str, total: int | None) -> None:
        del name, total

    def advance(self, done: int) -> None:
        self.done = done

    def note(self, message: str) -> None:
        self.said.append(message)

    warn = note

    def result(self, result: Any) -> None:
        del result


SITES = ["llm.block.1/last", "llm.block.2/all", "vision.block.1/image.mean"]


def spec(out: Path | None, **values: Any) -> Any:
    chosen = {"limit": 60, "batch_size": 3, "sites": SITES, "out": str(out) if out else None}
    return make_spec({**chosen, **values})


def plan(out: Path | None, **values: Any) -> Plan:
    """A plan; where there is no run yet, the same settings are composed once."""
    asked = spec(out, **values)
    if out is not None and out.exists():  # it takes what the run knows
        return compose(asked, Registry.default(), analyse=False)
    made, place = _composed(json.dumps(values, sort_keys=True)), {"out": asked.out}
    return replace(made, spec=made.spec.model_copy(update=place), asked=asked)


@cache
def _composed(values: str) -> Plan:
    return compose(spec(None, **json.loads(values)), Registry.default(), analyse=False)


def engine(name: str = "processes", **options: Any) -> Engine:
    found = engine_of(
        make_spec({"engine": name, "options": {"engine": options}}), Registry.default()
    )
    assert found is not None
    return found


def part(number: int, count: int) -> Engine:
    return engine("environment", shard=f"{number}/{count}")


def same(one: Run, other: Run) -> None:
    assert [s.id for s in one.samples] == [s.id for s in other.samples]
    for name in SITES:
        mine, theirs = one.activations[name], other.activations[name]
        for row, reference in zip(mine, theirs, strict=True):
            assert np.array_equal(row, reference)
    with one.store() as store:
        for name in SITES:
            assert sorted(store.ids(name)) == sorted(s.id for s in one.samples), "each id once"


def in_parts(out: Path, count: int = 3, **values: Any) -> Run:
    for number in range(count):
        execute_or_join(out, part(number, count), **values)
    return Run(out)


def execute_or_join(out: Path, own: Engine, **values: Any) -> Run:
    """What the command line does."""
    asked, place = spec(out, **values), own.part()
    if place is not None and not is_first(asked, place, "resume"):
        return join(asked, own, Registry.default(), Silent())
    return execute(plan(out, **values), mode="resume", extract_only=True, engine=own)
