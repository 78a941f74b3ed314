"""A process that writes to a store or reads it, for the storage kit.

`python -m vlmlens.testing._store_process write TARGET LOCATION OPTIONS [FIRST]` writes numbered
blocks without end, and prints each number once the block is written. With `read` it prints the
count of complete blocks whenever that changes, until its input is closed.
"""

from __future__ import annotations

import itertools
import json
import sys
import threading

from vlmlens.testing._checks import expect
from vlmlens.testing._stores import expect_same, numbered, open_target

_PAUSE = 0.002
"""Seconds between two reads, so that the writer gets the core."""


def write_for_ever(target: str, location: str, options: str, first: str = "0") -> None:
    """Write numbered blocks and acknowledge each."""
    with open_target(target, location, "a", json.loads(options)) as store:
        for number in itertools.count(int(first)):
            store.write(numbered(number))
            _say(number)


def read_till_told(target: str, location: str, options: str) -> None:
    """Check all blocks again and again, at least once after the input was closed."""
    told = threading.Event()
    threading.Thread(target=_wait_for_end, args=(told,), daemon=True).start()
    said = -1
    with open_target(target, location, "r", json.loads(options)) as store:
        while True:
            last = told.is_set()
            ids = [column.samples for column in store.columns()]
            complete = max(ids, default=0) // len(numbered(0).ids)
            for number in {0, complete // 2, complete - 1} if complete else ():
                wanted = numbered(number)
                for name, values in wanted.columns.items():
                    expect_same(store.read(name, wanted.ids), values, f"{name} of {number}")
            expect(len(set(ids)) <= 1, f"a block is incomplete: {ids}")
            if complete != said:
                _say(complete)
            said = complete
            if last:
                return
            told.wait(_PAUSE)


def _wait_for_end(told: threading.Event) -> None:
    sys.stdin.read()
    told.set()


def _say(number: int) -> None:
    sys.stdout.write(f"{number}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    {"write": write_for_ever, "read": read_till_told}[sys.argv[1]](*sys.argv[2:])
