"""Units in batches: which units the model runs together, and running them.

The cut depends on the list of units alone, not on what is already known. So a resumed analysis, and
one in several processes, has the same batches as one that runs through.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

from vlmlens.abc.model_work import JSON, ModelWork, WorkUnit, keys_of
from vlmlens.errors import BrokenPlugin, OutOfMemory

if TYPE_CHECKING:
    from vlmlens.abc.adapter import ModelAdapter

Batch = Sequence[WorkUnit]
Warn = Callable[[str], None]

_WARNINGS = 2


def cut(units: Sequence[WorkUnit], keys: Sequence[bytes], size: int) -> list[list[int]]:
    """The numbers of the units of each batch.

    Equal units are run once. Units keep their order, so a batch is padded to the longest of units
    that were given together: give similar ones one after the other.

    Args:
        units: All units.
        keys: Their keys, see `keys_of`.
        size: The most units of a batch.
    """
    first: dict[bytes, int] = {}
    for number, key in enumerate(keys):
        first.setdefault(key, number)
    groups: dict[str, list[int]] = {}
    for number in first.values():
        groups.setdefault(units[number].batch, []).append(number)
    return [
        group[start : start + size]
        for group in groups.values()
        for start in range(0, len(group), size)
    ]


def left_over(
    batches: Iterable[Sequence[int]], keys: Sequence[bytes], known: Collection[bytes]
) -> list[list[int]]:
    """What of the batches is to be run, when the results of some units are known."""
    rest = ([number for number in batch if keys[number] not in known] for batch in batches)
    return [batch for batch in rest if batch]


def run_batches(
    vlm: ModelAdapter, work: ModelWork, batches: Iterable[Batch], warn: Warn
) -> Iterator[list[JSON]]:
    """The results of each batch, in order. A batch that does not fit in memory is halved.

    Args:
        vlm: The loaded model.
        work: What to run.
        batches: Units that are run together.
        warn: Called the first two times that batches are halved.

    Raises:
        OutOfMemory: A single unit does not fit.
        BrokenPlugin: The work gave no JSON, or not one result for each unit.
    """
    from vlmlens.passes.memory import free_memory, halved

    most: float = float("inf")
    halvings = 0
    for batch in batches:
        results: list[JSON] = []
        waiting = [[unit.as_run() for unit in batch]]
        while waiting:
            part = waiting.pop()
            if len(part) <= most or len(part) == 1:
                found = _run(vlm, work, part)
                if found is not None:
                    results += found
                    continue
                free_memory()
                halvings += 1
                if halvings <= _WARNINGS:
                    warn(halved(len(part), halvings))
                most = max(1, len(part) // 2)
            middle = (len(part) + 1) // 2
            waiting += [part[middle:], part[:middle]]
        yield results


def run_here(
    vlm: ModelAdapter,
    work: ModelWork,
    units: Sequence[WorkUnit],
    size: int,
    *,
    warn: Warn,
    progress: Callable[[int, int], None],
    known: dict[bytes, JSON] | None = None,
) -> list[JSON]:
    """The results of units, computed in this process and not stored.

    Args:
        vlm: The loaded model.
        work: What to run.
        units: Its units.
        size: The most units of a batch.
        warn: Called the first two times that batches are halved.
        progress: Called with (units done, all units).
        known: What this model gave before, by key of the unit. New results are added.
    """
    known = {} if known is None else known
    keys = keys_of(work, units, {})
    batches = left_over(cut(units, keys, size), keys, known)
    results = run_batches(vlm, work, ([units[i] for i in batch] for batch in batches), warn)
    gathered = Gathered(keys, known, keep=lambda new: None, progress=progress)
    for numbers, found in zip(batches, results, strict=True):
        gathered.take(numbers, found)
    return gathered.all()


class Gathered:
    """The results of units, while they come in.

    Args:
        keys: The keys of all units.
        known: Results that are known, by key. New ones are added.
        keep: Called with the results of each batch, by key.
        progress: Called with (units done, all units).
    """

    def __init__(
        self,
        keys: Sequence[bytes],
        known: dict[bytes, JSON],
        *,
        keep: Callable[[dict[bytes, JSON]], None],
        progress: Callable[[int, int], None],
    ) -> None:
        self._keys = keys
        self._known = known
        self._keep = keep
        self._progress = progress
        self._times = Counter(keys)
        self._done = sum(self._times[key] for key in known)
        progress(self._done, len(keys))

    def take(self, numbers: Sequence[int], results: Sequence[JSON]) -> None:
        """Keep the results of a batch.

        Args:
            numbers: The numbers of its units.
            results: One for each.
        """
        new = {self._keys[i]: found for i, found in zip(numbers, results, strict=True)}
        self._keep(new)
        self._known |= new
        self._done += sum(self._times[key] for key in new)
        self._progress(self._done, len(self._keys))

    def all(self) -> list[JSON]:
        """The results of all units, in order."""
        return [self._known[key] for key in self._keys]


def _run(vlm: ModelAdapter, work: ModelWork, part: list[WorkUnit]) -> list[JSON] | None:
    """The results as JSON gives them back; None if the units do not fit in memory together."""
    from vlmlens.passes.memory import is_out_of_memory, let_go

    try:
        found = work.run(vlm, part)
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
        let_go(error)
        if len(part) == 1:
            raise OutOfMemory(
                f"One unit (sample {part[0].sample.id!r}) does not fit in memory.",
                subject=part[0].sample.id,
                hint="Use --dtype bfloat16, --quantization 4bit or --device-map auto.",
            ) from error
        return None
    return _checked(work, found, len(part))


def _checked(work: ModelWork, found: Sequence[JSON], count: int) -> list[JSON]:
    try:
        results: list[JSON] = json.loads(json.dumps(list(found)))
    except (TypeError, ValueError) as error:
        raise BrokenPlugin(
            f"{work.target} gave results that are no JSON: {error}.",
            subject=work.target,
            hint="Give Python numbers, text, lists and mappings, for example with `.tolist()`.",
        ) from error
    if len(results) != count:
        raise BrokenPlugin(
            f"{work.target} gave {len(results)} results for {count} units.",
            subject=work.target,
            hint="`run` gives one result for each unit, in order.",
        )
    return results
