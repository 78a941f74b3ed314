"""EngineTests: the kit of engines, on a run of the tiny model."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from vlmlens.abc.engine import Engine, Work, Worker
from vlmlens.errors import VlmlensError
from vlmlens.testing import model as tiny
from vlmlens.testing._checks import expect, expect_error
from vlmlens.testing._plugin_checks import PluginChecks

if TYPE_CHECKING:
    from vlmlens.compose.plan import Plan
    from vlmlens.runs.run import Run

_SITES = ("llm.block.*/last", "vision.block.0/image")
_SAMPLES = 10


class OneByOne(Engine):
    """An engine that runs leases in this process, one by one: what others are compared with.

    Args:
        order: The order in which it runs the open leases.
    """

    def __init__(self, order: Callable[[list[str]], list[str]] = list) -> None:
        super().__init__(self.Options())
        self.order = order
        self.ran: list[str] = []

    def run(self, work: Work) -> None:
        """See `Engine.run`."""
        worker = work.begin()
        for name in self.order(work.open()):
            self.ran.append(name)
            self.run_one(work, name, worker)

    def run_one(self, work: Work, name: str, worker: Worker) -> None:
        """Run one lease; override it to make a mistake."""
        work.finish(name, worker(work.take(name), lambda done: work.advance(name, done)))


class EngineTests(PluginChecks):
    """The conformance kit of engines.

    Subclass it as `Test...`, and set `manifest`, and `options` if the engine needs some::

        class TestMyEngine(EngineTests):
            manifest = MY_MANIFEST
            options = {"workers": 2}

    Attributes:
        manifest: The engine's manifest.
        options: Values of its options.
    """

    @cached_property
    def engine(self) -> Engine:
        """A new instance."""
        made: Engine = self.plugin(self.chosen())
        made.check()
        return made

    def execute(self, folder: Path, engine: Engine, mode: Any = "new", **changes: Any) -> Run:
        """Run the tiny model in `folder/NAME` with an engine."""
        from dataclasses import replace

        from vlmlens.runner.execution import execute

        plan = _plan(folder)
        spec = plan.spec.model_copy(update=changes)
        return execute(replace(plan, spec=spec), mode=mode, extract_only=True, engine=engine)

    def check_gives_what_one_process_gives(self, folder: Path) -> None:
        """All leases are run, each counts once, and the columns are equal, bit for bit."""
        found = self.execute(folder / "a", self.engine)
        right = self.execute(folder / "b", OneByOne())
        expect(found.info["state"] == "finished", f"the run is {found.info['state']}")
        for name, values in right.activations.items():
            for mine, theirs in zip(found.activations[name], values, strict=True):
                expect(np.array_equal(mine, theirs), f"{name} differs")
        with found.store() as store:
            for info in store.columns():
                ids = store.ids(info.name)
                expect(sorted(ids) == sorted(set(ids)), f"{info.name} has a sample twice")
                expect(len(ids) == _SAMPLES, f"{info.name} has {len(ids)} of {_SAMPLES} samples")

    def check_goes_on_with_what_is_open(self, folder: Path) -> None:
        """Leases that are finished already are not run again."""
        from vlmlens.runs.leases import lease_plans

        self.execute(folder / "a", OneByOne(lambda names: names[::2]))
        before = dict(zip(_done(folder), lease_plans(folder / "a")[0].receipts(), strict=True))
        self.execute(folder / "a", self.engine, mode="resume")
        after = dict(zip(_done(folder), lease_plans(folder / "a")[0].receipts(), strict=True))
        expect(len(after) > len(before), "it ran nothing")
        for name, receipt in before.items():
            expect(after[name] == receipt, f"it ran the finished lease {name} again")

    def check_an_error_of_a_worker_is_told(self, folder: Path) -> None:
        """A checkpoint that is gone ends the run with an error that names it."""
        error = expect_error(
            VlmlensError,
            lambda: self.execute(folder / "a", self.engine, model=str(folder / "gone")),
            "A worker that cannot load its model",
        )
        expect("gone" in str(error), f"The error does not say why: {error}")


def _done(folder: Path) -> list[str]:
    from vlmlens.runs.leases import lease_plans

    plan = lease_plans(folder / "a")[0]
    done = plan.done()
    return [name for name in plan.names if name in done]


def _plan(out: Path) -> Plan:
    from PIL import Image

    from vlmlens.compose.plan import compose
    from vlmlens.registry import Registry
    from vlmlens.spec.model import make_spec

    pictures = out.parent / "pictures"
    pictures.mkdir(exist_ok=True)
    for number in range(_SAMPLES):
        color = (25 * number, 255 - 25 * number, 90)
        Image.new("RGB", (32, 32), color).save(pictures / f"{number}.png")
    spec = make_spec(
        {
            "adapter": f"{tiny.__file__}:TinyLlava",
            "model": str(tiny.tiny_checkpoint()),
            "device": "cpu",
            "dtype": "float32",
            "data": f"images:{pictures}",
            "prompt": ["What is it?"],
            "sites": list(_SITES),
            "batch_size": 2,
            "out": str(out),
        }
    )
    return compose(spec, Registry.default(), analyse=False)
