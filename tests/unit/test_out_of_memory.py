"""When memory is full: nothing holds what a failed batch held, whoever runs it."""

from __future__ import annotations

import gc
import threading
import weakref
from collections.abc import Iterator, Sequence
from typing import Any

import pytest
import torch

from vlmlens.abc import ModelAdapter, WorkUnit
from vlmlens.abc.unit_batches import run_batches
from vlmlens.errors import OutOfMemory
from vlmlens.extraction import extraction as extracting
from vlmlens.extraction.batching import Unit
from vlmlens.extraction.extraction import Extraction
from vlmlens.passes import memory
from vlmlens.passes.memory import halved, in_pieces, is_out_of_memory, let_go
from vlmlens.samples import Sample
from vlmlens.testing.model import tiny_model
from vlmlens.testing.tiny import picture
from vlmlens_plugins.extract.activations import ActivationExtractor
from vlmlens_plugins.sae import Recipe, TensorFeed
from vlmlens_plugins.sae.training import loop

COLUMN = "llm.block.0/last"


def too_much() -> torch.Tensor:
    """A real failure of torch: no machine has so many bytes."""
    return torch.empty(2**55, dtype=torch.uint8)


@pytest.fixture(scope="module")
def vlm() -> ModelAdapter:
    return tiny_model()


def samples(count: int) -> list[Sample]:
    return [Sample(f"s{i}", "Hm? " * (i + 1), (picture(64, 64, seed=i),)) for i in range(count)]


class Held:
    """Weak references to tensors, by name."""

    def __init__(self) -> None:
        self.refs: list[tuple[str, weakref.ref[torch.Tensor]]] = []

    def watch(self, name: str, tensor: torch.Tensor) -> None:
        self.refs.append((name, weakref.ref(tensor)))

    @property
    def alive(self) -> list[str]:
        return [name for name, ref in self.refs if ref() is not None]


class Greedy(ActivationExtractor):
    """Has no memory for batches of more than two samples, in the middle of a pass."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.held = Held()
        self.sizes: list[int] = []

    def extract(self, batch: Any) -> Any:
        self.sizes.append(len(batch))
        if len(batch) <= 2:
            return super().extract(batch)
        for name, value in batch.inputs.items():
            self.held.watch(name, value)
        path = self.vlm.sites.canonical["llm.block.1"].path

        def full(module: Any, args: Any, output: Any) -> None:
            self.held.watch("activation", args[0])
            too_much()

        handle = self.vlm.module.get_submodule(path).register_forward_hook(full)
        try:
            return super().extract(batch)
        finally:
            handle.remove()


@pytest.fixture
def freed(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[list[str]]]:
    """What is still held when memory is given back, each time that it is."""
    seen: list[list[str]] = []
    monkeypatch.setattr(extracting, "free_memory", lambda: seen.append(CURRENT[0].alive))
    yield seen
    CURRENT.clear()


CURRENT: list[Held] = []


def test_the_failure_is_a_real_one() -> None:
    with pytest.raises(RuntimeError) as caught:
        too_much()
    assert is_out_of_memory(caught.value)


@pytest.mark.parametrize("share", [False, True])
def test_nothing_holds_a_batch_that_did_not_fit(
    vlm: ModelAdapter, freed: list[list[str]], share: bool
) -> None:
    asked = samples(5)
    asked = [Sample(one.id, one.prompt, asked[0].images) for one in asked] if share else asked
    extractor = Greedy(vlm, [COLUMN], Greedy.Options())
    CURRENT.append(extractor.held)
    warned: list[str] = []
    work = Extraction(vlm, extractor, asked, "auto", share, warned.append)
    groups = [tuple(range(5))] if share else [(i,) for i in range(5)]
    found = list(work.columns([Unit(tuple(groups), shared=share)]))
    assert extractor.sizes[0] == 5
    assert sorted(n for numbers, _ in found for n in numbers) == list(range(5))
    assert len(extractor.held.refs) >= 3
    assert freed
    assert not any(freed)
    assert "5 samples at once did not fit" in warned[0]
    assert sum(work.shared.values()) == (5 if share else 0)  # each once, though it is encoded twice


def test_a_batch_that_is_kept_would_be_seen(
    vlm: ModelAdapter, freed: list[list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The control: without letting go of the traceback and the caller's batch, it is alive."""
    kept: list[BaseException] = []
    monkeypatch.setattr(extracting, "let_go", kept.append)
    extractor = Greedy(vlm, [COLUMN], Greedy.Options())
    CURRENT.append(extractor.held)
    work = Extraction(vlm, extractor, samples(4), "auto", False, print)
    list(work.columns([Unit(((0,), (1,), (2,), (3,)))]))
    assert freed[0]


def test_an_error_about_one_sample_holds_nothing(vlm: ModelAdapter) -> None:
    extractor = Greedy(vlm, [COLUMN], Greedy.Options())
    work = Extraction(vlm, extractor, samples(3), 3, False, print)
    with pytest.raises(OutOfMemory, match="3 samples at once") as caught:
        list(work.columns([Unit(((0,), (1,), (2,)))]))
    assert extractor.held.refs
    gc.collect()
    assert not extractor.held.alive
    assert is_out_of_memory(caught.value.__cause__)  # type: ignore[arg-type]


def test_a_failed_extraction_leaves_no_thread(vlm: ModelAdapter) -> None:
    class Wrong(ActivationExtractor):
        def extract(self, batch: Any) -> Any:
            raise ValueError(f"{len(batch)} samples")

    work = Extraction(vlm, Wrong(vlm, [COLUMN], Wrong.Options()), samples(8), 1, False, print)
    with pytest.raises(ValueError, match="1 samples"):
        work.run(None, [(COLUMN,)] * 8, print)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="1 samples") as caught:
        work.measure()
    assert caught.value.__traceback__ is not None  # which holds the frames that were left
    assert not [each.name for each in threading.enumerate() if each.name == "vlmlens-prepare"]


@pytest.mark.parametrize(
    ("said", "full"),
    [
        ("MPS backend out of memory (MPS allocated: 8 GB, other allocations: 1 GB)", True),
        ("CUDA error: out of memory", True),
        ("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`", True),
        ("cuDNN error: CUDNN_STATUS_ALLOC_FAILED", True),
        ("CUDA error: an illegal memory access was encountered", False),
        ("The size of tensor a (3) must match the size of tensor b (4)", False),
    ],
)
def test_what_devices_say_when_memory_is_full(said: str, full: bool) -> None:
    assert is_out_of_memory(RuntimeError(said)) is full
    assert not is_out_of_memory(ValueError(said))


def test_letting_go_of_errors_in_a_ring_ends() -> None:
    first, second = RuntimeError("first"), RuntimeError("second")
    first.__cause__, second.__context__ = second, first
    let_go(first)


def test_letting_go_leaves_what_a_caller_handles() -> None:
    held = Held()

    def fail() -> None:
        tensor = torch.zeros(3)
        held.watch("inner", tensor)
        too_much()

    def wrong() -> None:
        other = torch.zeros(4)
        held.watch("outer", other)
        raise ValueError("outer")

    try:
        wrong()
    except ValueError as outer:
        try:
            fail()
        except RuntimeError as error:
            chained = error.__context__ is outer
            let_go(error)
        kept, alive = outer.__traceback__ is not None, held.alive
    assert chained
    assert kept
    assert alive == ["outer"]


def test_letting_go_follows_causes() -> None:
    held = Held()

    def fail() -> None:
        tensor = torch.zeros(3)
        held.watch("first", tensor)
        too_much()

    def translate() -> None:
        other = torch.zeros(4)
        held.watch("second", other)
        try:
            fail()
        except RuntimeError as error:
            raise ValueError("translated") from error

    with pytest.raises(ValueError, match="translated") as caught:
        translate()
    assert sorted(held.alive) == ["first", "second"]
    let_go(caught.value)
    assert held.alive == []
    assert "in too_much" in str(caught.value.__cause__.__notes__)  # type: ignore[union-attr]


# ---------------------------------------------------------------------- model work


class Work:
    """Units whose batches fit if they have at most two."""

    target = "a:b"

    def __init__(self) -> None:
        self.held = Held()

    def run(self, vlm: ModelAdapter, units: Sequence[WorkUnit]) -> list[Any]:
        batch = vlm.encode([unit.sample for unit in units])
        logits = vlm.forward(batch, logits="last").logits
        assert logits is not None
        if len(units) > 2:
            self.held.watch("logits", logits)
            self.held.watch("ids", batch.inputs["input_ids"])
            too_much()
        return [0] * len(units)


def test_model_work_lets_go_too(vlm: ModelAdapter, monkeypatch: pytest.MonkeyPatch) -> None:
    work, seen = Work(), []
    monkeypatch.setattr(memory, "free_memory", lambda: seen.append(work.held.alive))
    warned: list[str] = []
    units = [WorkUnit(sample) for sample in samples(7)]
    found = list(run_batches(vlm, work, [units], warned.append))  # type: ignore[arg-type]
    assert found == [[0] * 7]
    assert len(work.held.refs) == 4
    assert seen == [[], []]
    assert warned == [halved(7), halved(3)]


def test_training_saes_holds_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[weakref.ref[Any]] = []
    step = loop._Training._step

    def full(training: Any, batch: Any) -> None:
        step(training, batch)
        seen.append(weakref.ref(training))
        too_much()

    monkeypatch.setattr(loop._Training, "_step", full)
    feed = TensorFeed(torch.randn(64, 4), batch=8)
    recipe = Recipe(8, "topk", k=2)
    with pytest.raises(OutOfMemory, match="did not fit in memory while they were") as caught:
        loop.train([recipe], feed, rows=16, device="cpu")
    gc.collect()
    assert [ref() for ref in seen] == [None]
    assert is_out_of_memory(caught.value.__cause__)  # type: ignore[arg-type]


# ---------------------------------------------------------------------- what is said


def test_memory_in_pieces_is_said_from_the_second_time_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "_reserved", lambda: (10 * 2**30, 6 * 2**30))
    assert halved(8) == "8 samples at once did not fit in memory: batches are halved."
    assert "Of 10.0 GiB that are reserved on GPUs, 4.0 GiB lie in pieces" in halved(4, 2)
    assert "expandable_segments" in halved(4, 2)


def test_little_memory_in_pieces_is_not_said() -> None:
    assert in_pieces(2**30, 2**30 - 2**20) == ""
    assert in_pieces(0, 0) == ""
