"""Extracting a plan's columns: runs units of samples through the model, and stores their rows."""

from __future__ import annotations

import os
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import torch

from vlmlens.abc.pending import arrived
from vlmlens.abc.storage import ColumnBlock, ColumnStore, Values
from vlmlens.compose.estimate import Estimate, Expectation
from vlmlens.compose.plan import Plan
from vlmlens.errors import OutOfMemory
from vlmlens.extraction.batching import Unit
from vlmlens.extraction.eta import Pace
from vlmlens.extraction.pipeline import prepared, sink
from vlmlens.extraction.planning import Planned, budget_on, planned
from vlmlens.extraction.write_buffer import BlockWriter
from vlmlens.passes.later import for_later
from vlmlens.passes.memory import free_memory, halved, is_out_of_memory, let_go

if TYPE_CHECKING:
    from vlmlens.abc.adapter import Generation, ModelAdapter, Sharing
    from vlmlens.abc.extractor import Extractor
    from vlmlens.passes.batch import Batch
    from vlmlens.samples import Sample

_AHEAD = 2
_WAITING = 4
_OPENERS = min(8, os.cpu_count() or 1)

Encoded = list[tuple[tuple[int, ...], "Batch"]]
"""Numbers of samples, and the batch that holds them."""

Part = tuple[tuple[int, ...], Mapping[str, Values]]
"""Numbers of samples, and their values by column, which may still be on their way."""

Ready = Iterator[tuple[tuple[Unit, dict[int, "Sample"]], Encoded]]
"""Units with their samples, and the batches of each."""

_NOTHING: Mapping[str, Values] = {}


@dataclass
class Extraction:
    """One run's samples on their way through the model.

    Args:
        vlm: The loaded model.
        extractor: Turns batches into columns.
        samples: All samples of the run.
        batch_size: Samples per unit; "auto": by tokens.
        share: Whether samples with the same images share their beginning, if that is exact.
        warn: Called once for each thing that the user should know.
        generate: How many tokens the model may generate for each sample; columns can then hold
            their rows. None: generate nothing.
        texts: Called with the ids of samples and the texts generated for them.
        expect: Called once, after the first batches, with the time that the others will take.
    """

    vlm: ModelAdapter
    extractor: Extractor
    samples: Sequence[Sample]
    batch_size: int | str
    share: bool
    warn: Callable[[str], None]
    generate: int | None = None
    texts: Callable[[Sequence[str], Sequence[Generation]], None] | None = None
    expect: Callable[[Expectation], None] | None = None
    shared: Counter[Sharing] = field(default_factory=Counter, init=False)
    """How many samples shared the computation of their images or beginning with another one."""
    fits: float = field(default=float("inf"), init=False)
    """Batches of more tokens did not fit in memory."""
    _halvings: int = field(default=0, init=False)
    _encoding: threading.Lock = field(default_factory=threading.Lock, init=False)

    def run(
        self,
        store: ColumnStore,
        missing: Sequence[tuple[str, ...]],
        advance: Callable[[int], None],
        units: Sequence[Unit] | None = None,
    ) -> None:
        """Compute and store what is missing.

        Args:
            store: The store, open for writing.
            missing: Per sample, the columns that are not stored yet.
            advance: Called with the number of samples that are computed so far.
            units: The units, if they were planned elsewhere.
        """
        plan = self._planned() if units is None else Planned(units, dict.fromkeys(units, 1.0))
        every, work = plan.units, plan.work
        todo = [unit for unit in every if any(missing[number] for number in unit.samples)]
        done = sum(len(unit.samples) for unit in every) - sum(len(unit.samples) for unit in todo)
        pace = Pace([work[unit] for unit in todo])
        writer, before = BlockWriter(store), _NOTHING

        def write(part: Part) -> None:
            for block in _blocks(self.samples, *part, missing):
                writer.add(block)

        with self._ready(todo) as ready, sink(write, writer.flush, waiting=_WAITING) as out:
            for (unit, samples), encoded in ready:
                for part in self._computed(unit, samples, encoded):
                    out.put(part)
                    arrived(before)  # a device is given one batch ahead, and no more
                    _, before = part
                done += len(unit.samples)
                advance(done)
                self._tell(pace)

    def columns(self, units: Iterable[Unit]) -> Iterator[Part]:
        """The columns of units, computed one after the other and not stored.

        Args:
            units: Units of the numbers of `samples`.

        Yields:
            Numbers of samples, and their values by column. A unit that does not fit in memory
            comes in several parts.
        """
        with self._ready(units) as ready:
            for (unit, samples), encoded in ready:
                yield from self._computed(unit, samples, encoded)

    def measure(self, *, batches: int = 8, seconds: float = 30.0) -> Expectation | None:
        """Estimate the time of the whole extraction from some batches. Stores nothing.

        Args:
            batches: The largest number of batches to run, spread evenly over the run. One more
                batch is run first, and not counted.
            seconds: Start no batch after this time.

        Returns:
            The estimate; None if there are too few batches.
        """
        plan = self._planned()
        every, work = plan.units, plan.work
        step = max(1, len(every) // (batches + 1))
        some = every[::step][: batches + 1]
        pace, end = Pace([work[unit] for unit in some]), time.perf_counter() + seconds
        with self._ready(some) as ready:
            for (unit, samples), encoded in ready:
                for _, values in self._computed(unit, samples, encoded):
                    arrived(values)
                pace.batch_done()
                if time.perf_counter() > end:
                    break
        return pace.expected(sum(work.values()))

    def units(self) -> list[Unit]:
        """The run's samples, divided into units."""
        return list(self._planned().units)

    def _tell(self, pace: Pace) -> None:
        """Report once how long the rest will take."""
        was_known = pace.known
        pace.batch_done()
        expected = pace.remaining() if pace.known and not was_known else None
        if self.expect is not None and expected is not None:
            self.expect(expected)

    def _planned(self) -> Planned:
        return planned(
            self.samples,
            self.vlm,
            self.extractor,
            batch_size=self.batch_size,
            share=self.share,
            generate=self.generate,
            budget=self.budget,
        )

    @property
    def budget(self) -> int:
        """Tokens per unit if the user gave no batch size."""
        return budget_on(next(self.vlm.module.parameters()).device)

    @contextmanager
    def _ready(self, todo: Iterable[Unit]) -> Iterator[Ready]:
        """Units with their samples and batches; no thread goes on behind the block."""
        with (
            ThreadPoolExecutor(_OPENERS, "vlmlens-open") as pool,
            closing(prepared(self._opened(todo, pool), self._prepare, ahead=_AHEAD)) as ready,
        ):
            yield ready

    def _opened(
        self, todo: Iterable[Unit], pool: ThreadPoolExecutor
    ) -> Iterator[tuple[Unit, dict[int, Sample]]]:
        """Units with their samples. Images are read while earlier units are computed."""
        waiting: deque[tuple[Unit, dict[int, Future[Sample]]]] = deque()
        for unit in todo:
            waiting.append((unit, self._opening(unit, pool)))
            if len(waiting) > _AHEAD:
                yield _done(waiting.popleft())
        while waiting:
            yield _done(waiting.popleft())

    def _opening(self, unit: Unit, pool: ThreadPoolExecutor) -> dict[int, Future[Sample]]:
        """Open the unit's images; for samples with the same images, only once."""
        found = {}
        for group in unit.groups:
            for place, number in enumerate(group):
                opens = not (unit.shared and place)
                found[number] = pool.submit(_with_images if opens else _as_is, self.samples[number])
        return found

    def _prepare(self, item: tuple[Unit, Mapping[int, Sample]]) -> Encoded:
        unit, samples = item
        with self._encoding, for_later():
            return list(self._encoded(unit, samples))

    def _encoded(self, unit: Unit, samples: Mapping[int, Sample]) -> Iterator[Any]:
        groups = [[samples[number] for number in group] for group in unit.groups]
        if not unit.shared:
            yield unit.samples, self.vlm.encode([sample for group in groups for sample in group])
            return
        together = self._encode_shared(groups)
        if together is not None:
            yield unit.samples, together
            return
        for numbers, group in zip(unit.groups, groups, strict=True):
            alone = self._encode_shared([group]) if len(groups) > 1 else None
            yield numbers, self.vlm.encode(group) if alone is None else alone

    def _encode_shared(self, groups: Sequence[Sequence[Sample]]) -> Batch | None:
        budget = self.budget if self.batch_size == "auto" else None
        return self.vlm.encode_shared(groups, budget=budget)

    def _computed(
        self, unit: Unit, samples: Mapping[int, Sample], encoded: Encoded
    ) -> Iterator[Part]:
        """The unit's columns; computed in halves if the unit does not fit in memory.

        Args:
            unit: The unit.
            samples: Its samples, by number.
            encoded: Its batches. They are taken out, so that they live no longer than their passes.
        """
        tokens = max((_size(batch) for _, batch in encoded), default=0)
        if tokens <= self.fits or len(unit.samples) == 1:
            found = self._together(unit, encoded, tokens)
            if found is not None:
                yield from found
                return
            free_memory()
            self._halvings += 1
            self.fits = tokens / 2
            self.warn(halved(len(unit.samples), self._halvings))
        encoded.clear()
        for half in unit.halves():
            yield from self._computed(half, samples, self._prepare((half, samples)))

    def _together(self, unit: Unit, encoded: Encoded, tokens: int) -> list[Part] | None:
        """The columns of all batches; None if they do not fit in memory. Then nothing holds them.

        Raises:
            OutOfMemory: They do not fit, and must not be halved.
        """
        found: list[Part] = []
        shared: Counter[Sharing] = Counter()
        try:
            while encoded:
                shared.update(_shared(encoded[0][1]))
                found.append(self._next(encoded))
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
            encoded.clear()
            found.clear()
            let_go(error)
            self._check_can_halve(unit, tokens, error)
            return None
        self.shared.update(shared)
        return found

    def _next(self, encoded: Encoded) -> Part:
        numbers, batch = encoded.pop(0)
        return numbers, self._columns(self.vlm.place(batch))

    def _columns(self, batch: Batch) -> Mapping[str, Values]:
        """The batch's columns, including the generated tokens if the model is to generate.

        One pass over all generated tokens gives what each step gave, up to rounding.
        """
        if self.generate is not None:
            made = self.vlm.generate(batch, max_new_tokens=self.generate)
            with self._encoding:
                batch = self.vlm.encode(batch.samples, answers=[one.token_ids for one in made])
            if self.texts is not None:
                self.texts([sample.id for sample in batch.samples], made)
        return self.extractor.extract(batch)

    def _check_can_halve(self, unit: Unit, tokens: int, error: Exception) -> None:
        count = len(unit.samples)
        if count == 1 or self.batch_size != "auto":
            what = "The tokens of one sample" if count == 1 else f"{count} samples at once"
            raise OutOfMemory(
                f"{what} ({tokens} tokens) do not fit in memory.",
                subject=self.samples[unit.samples[0]].id,
                hint="Use --batch-size auto, a smaller --batch-size, --dtype bfloat16, "
                "--quantization 4bit or --device-map auto.",
            ) from error


def _done(waiting: tuple[Unit, dict[int, Future[Sample]]]) -> tuple[Unit, dict[int, Sample]]:
    unit, futures = waiting
    return unit, {number: future.result() for number, future in futures.items()}


def _with_images(sample: Sample) -> Sample:
    return replace(sample, images=tuple(sample.open_images()))


def _as_is(sample: Sample) -> Sample:
    return sample


def _shared(batch: Batch) -> dict[Sharing, int]:
    """How many samples of a batch share something, and what."""
    if not batch.passes:
        return {}
    only_images = any(each.whole for each in batch.passes)
    return {"images" if only_images else "beginnings": len(batch)}


def _size(batch: Batch) -> int:
    """The number of positions that the batch's passes compute, padding included."""
    ids = batch.inputs.get("input_ids")
    return int(ids.numel()) if isinstance(ids, torch.Tensor) else len(batch)


def _blocks(
    samples: Sequence[Sample],
    numbers: Sequence[int],
    values: Mapping[str, Values],
    missing: Sequence[tuple[str, ...]],
) -> Iterator[ColumnBlock]:
    """The part of a unit's columns to store: one block per set of missing columns."""
    lacking = [missing[number] for number in numbers]
    for columns in sorted(set(lacking) - {()}):
        rows = [i for i, names in enumerate(lacking) if names == columns]
        chosen = {
            name: values[name] if len(rows) == len(numbers) else values[name].take(rows)
            for name in columns
        }
        yield ColumnBlock(tuple(samples[numbers[i]].id for i in rows), chosen)


def timed(plan: Plan, warn: Callable[[str], None]) -> Estimate:
    """The estimate of a plan with the expected time. Loads the model and runs some batches.

    Args:
        plan: From `vlmlens.compose.plan.compose`.
        warn: Called with the warnings that the run itself would give.
    """
    vlm, spec = plan.load(), plan.spec
    work = Extraction(
        vlm,
        plan.extractor(vlm),
        plan.samples,
        spec.batch_size,
        spec.share_prefix,
        warn,
        generate=spec.generate,
    )
    return replace(plan.estimate, time=work.measure())
