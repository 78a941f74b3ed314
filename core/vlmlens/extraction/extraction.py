"""Extracting a plan's columns: runs units of samples through the model, and stores their rows."""

from __future__ import annotations

import gc
import os
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import torch

from vlmlens.abc.storage import ColumnBlock, ColumnStore, Values
from vlmlens.compose.estimate import Estimate, Expectation
from vlmlens.compose.plan import Plan
from vlmlens.errors import OutOfMemory
from vlmlens.extraction.batching import Lengths, Unit, units, work_of
from vlmlens.extraction.eta import Pace
from vlmlens.extraction.pipeline import prepared, sink
from vlmlens.extraction.write_buffer import BlockWriter

if TYPE_CHECKING:
    from vlmlens.abc.adapter import ModelAdapter, Sharing
    from vlmlens.abc.extractor import Extractor
    from vlmlens.passes.batch import Batch
    from vlmlens.runs.generated_texts import GeneratedTexts
    from vlmlens.runs.shards import Shard
    from vlmlens.samples import Sample

_CPU_TOKENS = 1536
_DEVICE_TOKENS = 16384
_AHEAD = 2
_WAITING = 4
_OPENERS = min(8, os.cpu_count() or 1)

Encoded = list[tuple[tuple[int, ...], "Batch"]]
"""Numbers of samples, and the batch that holds them."""


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
        texts: Where to store the generated texts; None: nowhere.
        shard: Which units this process runs; None: all.
        expect: Called once, after the first batches, with the time that the others will take.
    """

    vlm: ModelAdapter
    extractor: Extractor
    samples: Sequence[Sample]
    batch_size: int | str
    share: bool
    warn: Callable[[str], None]
    generate: int | None = None
    texts: GeneratedTexts | None = None
    shard: Shard | None = None
    expect: Callable[[Expectation], None] | None = None
    shared: Counter[Sharing] = field(default_factory=Counter, init=False)
    """How many samples shared the computation of their images or beginning with another one."""
    _fits: float = field(default=float("inf"), init=False)
    _encoding: threading.Lock = field(default_factory=threading.Lock, init=False)

    def run(
        self,
        store: ColumnStore,
        missing: Sequence[tuple[str, ...]],
        advance: Callable[[int], None],
    ) -> None:
        """Compute and store what is missing.

        Args:
            store: The store, open for writing.
            missing: Per sample, the columns that are not stored yet.
            advance: Called with the number of samples that are computed so far.
        """
        every, work = self._planned()
        todo = [unit for unit in every if any(missing[number] for number in unit.samples)]
        done = sum(len(unit.samples) for unit in every) - sum(len(unit.samples) for unit in todo)
        pace = Pace([work[unit] for unit in todo])
        writer = BlockWriter(store)
        with (
            ThreadPoolExecutor(_OPENERS, "vlmlens-open") as pool,
            sink(writer.add, writer.flush, waiting=_WAITING) as out,
        ):
            items = self._opened(todo, pool)
            for (unit, samples), encoded in prepared(items, self._prepare, ahead=_AHEAD):
                for numbers, values in self._computed(unit, samples, encoded):
                    for block in _blocks(self.samples, numbers, values, missing):
                        out.put(block)
                done += len(unit.samples)
                advance(done)
                self._tell(pace)

    def measure(self, *, batches: int = 8, seconds: float = 30.0) -> Expectation | None:
        """Estimate the time of the whole extraction from some batches. Stores nothing.

        Args:
            batches: The largest number of batches to run, spread evenly over the run. One more
                batch is run first, and not counted.
            seconds: Start no batch after this time.

        Returns:
            The estimate; None if there are too few batches.
        """
        every, work = self._planned()
        step = max(1, len(every) // (batches + 1))
        some = every[::step][: batches + 1]
        pace, end = Pace([work[unit] for unit in some]), time.perf_counter() + seconds
        with ThreadPoolExecutor(_OPENERS, "vlmlens-open") as pool:
            items = self._opened(some, pool)
            for (unit, samples), encoded in prepared(items, self._prepare, ahead=_AHEAD):
                for _ in self._computed(unit, samples, encoded):
                    pass
                pace.batch_done()
                if time.perf_counter() > end:
                    break
        return pace.expected(sum(work.values()))

    def units(self) -> list[Unit]:
        """The run's samples, divided into units."""
        return self._planned()[0]

    def _tell(self, pace: Pace) -> None:
        """Report once how long the rest will take."""
        was_known = pace.known
        pace.batch_done()
        expected = pace.remaining() if pace.known and not was_known else None
        if self.expect is not None and expected is not None:
            self.expect(expected)

    def _planned(self) -> tuple[list[Unit], dict[Unit, float]]:
        """The run's units, each with about how many tokens it computes."""
        size = None if isinstance(self.batch_size, str) else self.batch_size
        lengths = Lengths.of(self.samples, lambda sample: self.vlm.encode([sample]))
        can = self.share and self.extractor.takes_passes and self.generate is None
        share = self.vlm.shares if can and not self.vlm.active_edits else "nothing"
        found = units(self.samples, lengths, size=size, budget=self.budget, share=share)
        found = found if self.shard is None else found[self.shard.number :: self.shard.count]
        if size is None:
            found = [*_first_alone(found[:1]), *found[1:]]
        return found, {unit: work_of(unit, lengths, share) for unit in found}

    @property
    def budget(self) -> int:
        """Tokens per unit if the user gave no batch size.

        On a CPU larger batches are slower, because they do not fit in the caches.
        """
        parameter = next(self.vlm.module.parameters())
        return _CPU_TOKENS if parameter.device.type == "cpu" else _DEVICE_TOKENS

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
        with self._encoding:
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
        batch = self.vlm.encode_shared(groups, budget=budget)
        if batch is not None:
            only_images = any(each.whole for each in batch.passes)
            self.shared["images" if only_images else "beginnings"] += len(batch)
        return batch

    def _computed(
        self, unit: Unit, samples: Mapping[int, Sample], encoded: Encoded | None
    ) -> Iterator[tuple[tuple[int, ...], Mapping[str, Values]]]:
        """The unit's columns; computed in halves if the unit does not fit in memory."""
        tokens = max((_size(batch) for _, batch in encoded or ()), default=0)
        if tokens <= self._fits or len(unit.samples) == 1:
            try:
                yield from [(n, self._columns(batch)) for n, batch in encoded or ()]
                return
            except RuntimeError as error:
                if not _out_of_memory(error):
                    raise
                self._note_size(unit, tokens, error)
        encoded = None
        _free()
        for half in unit.halves():
            yield from self._computed(half, samples, self._prepare((half, samples)))

    def _columns(self, batch: Batch) -> Mapping[str, Values]:
        """The batch's columns, including the generated tokens if the model is to generate.

        One pass over all generated tokens gives what each step gave, up to rounding.
        """
        if self.generate is not None:
            made = self.vlm.generate(batch, max_new_tokens=self.generate)
            with self._encoding:
                batch = self.vlm.encode(batch.samples, answers=[one.token_ids for one in made])
            if self.texts is not None:
                self.texts.append([sample.id for sample in batch.samples], made)
        return self.extractor.extract(batch)

    def _note_size(self, unit: Unit, tokens: int, error: Exception) -> None:
        count = len(unit.samples)
        if count == 1 or self.batch_size != "auto":
            what = "The tokens of one sample" if count == 1 else f"{count} samples at once"
            raise OutOfMemory(
                f"{what} ({tokens} tokens) do not fit in memory.",
                subject=self.samples[unit.samples[0]].id,
                hint="Use --batch-size auto, a smaller --batch-size, --dtype bfloat16, "
                "--quantization 4bit or --device-map auto.",
            ) from error
        self._fits = tokens / 2
        self.warn(f"{count} samples at once did not fit in memory: batches are halved.")


def _first_alone(units: Sequence[Unit]) -> Iterator[Unit]:
    """Split off the first sample: the first pass runs to its end, so it should be short."""
    for unit in units:
        if unit.shared or len(unit.groups) == 1:
            yield unit
        else:
            yield from (Unit(unit.groups[:1]), Unit(unit.groups[1:]))


def _done(waiting: tuple[Unit, dict[int, Future[Sample]]]) -> tuple[Unit, dict[int, Sample]]:
    unit, futures = waiting
    return unit, {number: future.result() for number, future in futures.items()}


def _with_images(sample: Sample) -> Sample:
    return replace(sample, images=tuple(sample.open_images()))


def _as_is(sample: Sample) -> Sample:
    return sample


def _size(batch: Batch) -> int:
    """The number of positions that the batch's passes compute, padding included."""
    ids = batch.inputs.get("input_ids")
    return int(ids.numel()) if isinstance(ids, torch.Tensor) else len(batch)


def _out_of_memory(error: Exception) -> bool:
    return isinstance(error, torch.OutOfMemoryError) or "DefaultCPUAllocator" in str(error)


def _free() -> None:
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


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
