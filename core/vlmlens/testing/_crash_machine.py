"""A random walk of writers that are killed, and readers that must not notice."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import hypothesis.strategies as st
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from vlmlens.testing._checks import expect
from vlmlens.testing._stores import expect_same, numbered

if TYPE_CHECKING:
    from vlmlens.testing._store_kit import StoreKit

WALKS = 3
STEPS = 4


def run_machine(kit: StoreKit, folder: Path) -> None:
    """Run the walks: whole numbered blocks, however each of them came to be there.

    Args:
        kit: Opens the stores, and starts the processes.
        folder: An empty folder; each walk has a store of its own in it.
    """

    class Machine(RuleBasedStateMachine):
        @initialize(acknowledged=st.integers(0, 6))
        def begin(self, acknowledged: int) -> None:
            """Every walk has a reader, and begins with a crash."""
            self.folder = Path(tempfile.mkdtemp(dir=folder))
            self.store = kit.open(self.folder)
            self.blocks = 0
            self.start_reader()
            self.crash_after(acknowledged)

        @rule(count=st.integers(1, 3))
        def write(self, count: int) -> None:
            for _ in range(count):
                self.store.write(numbered(self.blocks))
                self.blocks += 1

        @rule()
        def reopen(self) -> None:
            self.store.close()
            self.store = kit.open(self.folder)

        @rule(acknowledged=st.integers(0, 6))
        def crash(self, acknowledged: int) -> None:
            self.crash_after(acknowledged)

        @precondition(lambda self: self.blocks > self.found)
        @rule()
        def another_reader(self) -> None:
            """It reads the store as it is found; the one before saw all that there was."""
            self.end_reader()
            self.start_reader()

        def crash_after(self, acknowledged: int) -> None:
            """Another process goes on writing and is killed; then this one goes on."""
            self.store.close()
            writer = kit.start("write", self.folder, str(self.blocks))
            try:
                writer.wait_for(self.blocks + acknowledged)
                writer.kill()
                said = [self.blocks + acknowledged, *map(int, writer.rest())]
            finally:
                writer.end()
            self.store = kit.open(self.folder)
            samples = {column.samples for column in self.store.columns()}
            whole, left = divmod(max(samples), len(numbered(0).ids))
            expect(len(samples) == 1 and not left, f"A half block: {samples} samples.")
            least = said[-1] + 1
            expect(whole in (least, least + 1), f"{least} blocks were written, {whole} are there.")
            self.blocks = whole

        @invariant()
        def everything_is_there(self) -> None:
            for number in {0, self.blocks // 2, self.blocks - 1} if self.blocks else ():
                wanted = numbered(number)
                for name, values in wanted.columns.items():
                    expect_same(self.store.read(name, wanted.ids), values, f"{name} of {number}")

        def start_reader(self) -> None:
            self.found = self.blocks
            self.reader = kit.start("read", self.folder)
            self.reader.wait_for(self.found)

        def end_reader(self) -> None:
            try:
                seen = self.reader.rest()
                expect(self.reader.returncode == 0, "A reader failed; see its traceback.")
                last = [str(self.blocks)]
                expect(not seen or seen[-1:] == last, f"A reader saw {seen[-1:]}, not {last}.")
            finally:
                self.reader.end()

        def teardown(self) -> None:
            if hasattr(self, "reader"):
                self.store.close()
                self.end_reader()

    run_state_machine_as_test(
        Machine,
        settings=settings(
            max_examples=WALKS,
            stateful_step_count=STEPS,
            deadline=None,
            derandomize=True,
            database=None,
            phases=(Phase.generate,),  # to search for a shorter walk would take many processes
            suppress_health_check=list(HealthCheck),
        ),
    )
