"""Columns on their way to the host: the right bits, never early, never too many buffers."""

from __future__ import annotations

import gc
import threading
import weakref
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
import torch

from vlmlens.abc.pending import PendingColumns, Selected, columns_on_host
from vlmlens.errors import SiteShapeError
from vlmlens.passes import host_copy
from vlmlens.passes.host_copy import HostCopy, Sent

PATIENCE = 10.0


def rows(*shape: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    made = torch.randn(*shape, generator=torch.Generator().manual_seed(sum(shape)))
    return (made * 100).to(dtype)


def mixed() -> dict[str, Selected]:
    """Columns of every dtype, some ragged, some empty, some not in order in memory."""
    return {
        "a/last": rows(3, 5, dtype=torch.bfloat16),
        "b/last": rows(3, 7, dtype=torch.float64),
        "c/all": [rows(2, 4), rows(0, 4), rows(3, 4)],
        "d/last": rows(6, 3, dtype=torch.float16).T[:3],
        "e/all": [rows(0, 2, dtype=torch.int64)],
        "f/all": list(rows(5, 3, dtype=torch.bfloat16).split([1, 4])),
        "g/last": rows(1, 1),
    }


def recomputed(selected: Selected) -> Any:
    """The bits of a column, by another way: number by number."""
    whole = torch.cat(selected) if isinstance(selected, list) else selected
    if whole.dtype == torch.bfloat16:
        numbers = [[int(np.float32(float(v)).view(np.uint32)) >> 16 for v in r] for r in whole]
        return np.array(numbers, np.uint16).reshape(whole.shape)
    return np.array(whole.tolist(), str(whole.dtype).removeprefix("torch.")).reshape(whole.shape)


class Gate:
    """A copy that is made when somebody opens the gate: until then, the buffer holds zeros."""

    def __init__(self) -> None:
        self.open = threading.Event()
        self.copies = 0

    def sent(self, packed: torch.Tensor) -> Sent:
        self.copies += 1
        buffer = torch.zeros_like(packed)

        def copy() -> None:
            self.open.wait(PATIENCE)
            buffer.copy_(packed)

        thread = threading.Thread(target=copy)
        thread.start()
        return Sent(buffer, _Joined(thread))


class _Joined:
    def __init__(self, thread: threading.Thread) -> None:
        self.thread = thread

    def synchronize(self) -> None:
        self.thread.join()


@pytest.fixture
def gate(monkeypatch: pytest.MonkeyPatch) -> Gate:
    made = Gate()
    monkeypatch.setattr(host_copy, "sent", made.sent)
    return made


def pending(selected: Mapping[str, Selected]) -> PendingColumns:
    return PendingColumns(selected, {}, None)


def test_bits_lengths_and_dtypes_are_those_of_the_columns() -> None:
    selected = mixed()
    for found in (pending(selected), columns_on_host(selected)):
        assert list(found) == list(selected)
        for name, column in selected.items():
            values = found[name]
            assert np.array_equal(values.array, recomputed(column)), name
            ragged = isinstance(column, list)
            assert values.lengths == (tuple(map(len, column)) if ragged else None)
            first = column[0] if isinstance(column, list) else column
            assert f"torch.{values.dtype}" == str(first.dtype)
            assert values.array.flags.aligned


def test_rows_on_the_cpu_are_not_copied() -> None:
    column = rows(4, 3)
    found = columns_on_host({"a/last": column})
    column[0, 0] = 7
    assert found["a/last"].array[0, 0] == 7


def test_all_columns_of_a_batch_are_one_copy(gate: Gate) -> None:
    gate.open.set()
    many = {f"s{i}/last": rows(2, 3) for i in range(40)}
    assert len(dict(pending(many))) == 40
    assert gate.copies == 1


def test_nobody_sees_a_column_before_its_copy_has_ended(gate: Gate) -> None:
    selected = mixed()
    found, seen = pending(selected), []
    reader = threading.Thread(target=lambda: seen.append(found["b/last"].array.copy()))
    reader.start()
    assert list(found) == list(selected)  # names are known at once
    reader.join(0.2)
    assert reader.is_alive()
    assert not seen
    gate.open.set()
    reader.join(PATIENCE)
    assert np.array_equal(seen[0], recomputed(selected["b/last"]))


def test_a_reader_that_does_not_wait_would_see_other_bytes(
    gate: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(HostCopy, "wait", lambda self: None)
    found = pending(mixed())
    assert not found["b/last"].array.any()
    gate.open.set()


def test_buffers_do_not_pile_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host_copy, "_WAITING", host_copy._Waiting())
    monkeypatch.setattr(host_copy, "MOST_BYTES", 250)
    columns = [rows(5, 5) + number for number in range(6)]
    copies = [HostCopy([[column]]) for column in columns]
    assert [copy.bytes for copy in copies] == [0, 0, 0, 0, 100, 100]
    for copy, column in zip(copies, columns, strict=True):
        assert np.array_equal(copy.arrays()[0], column.numpy())
    assert not any(copy.bytes for copy in copies)


def test_a_buffer_is_gone_once_it_is_read_or_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    buffers: list[weakref.ref[torch.Tensor]] = []

    def sent(packed: torch.Tensor) -> Sent:
        buffers.append(weakref.ref(packed))
        return Sent(packed, None)

    monkeypatch.setattr(host_copy, "sent", sent)
    read, dropped = pending(mixed()), pending(mixed())
    assert all(buffer() is not None for buffer in buffers)
    _ = read["a/last"]
    del dropped
    gc.collect()
    assert [buffer() for buffer in buffers] == [None, None]


def test_large_columns_are_copied_in_several_pieces(
    gate: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate.open.set()
    monkeypatch.setattr("vlmlens.abc.pending._AT_ONCE", 100)
    selected: dict[str, Selected] = {f"s{i}/last": rows(3, 5) * i for i in range(4)}
    found = pending(selected)
    for name, column in selected.items():
        assert np.array_equal(found[name].array, recomputed(column))
    assert gate.copies == 4


def test_facts_are_checked_before_a_column_is_given_out(gate: Gate) -> None:
    def check(facts: Mapping[str, Any]) -> None:
        if facts["site"].max() > 1:
            raise SiteShapeError("Too far.")

    selected: dict[str, Selected] = {"a/last": rows(2, 2)}
    for far, fails in ((0.5, False), (2.0, True)):
        facts = {"site": torch.tensor([far])}
        found = PendingColumns(selected, facts, check)
        assert list(found) == ["a/last"]
        gate.open.set()
        if fails:
            for _ in range(2):
                with pytest.raises(SiteShapeError, match="Too far"):
                    found["a/last"]
            with pytest.raises(SiteShapeError, match="Too far"):
                columns_on_host(selected, facts, check)
        else:
            assert np.array_equal(found["a/last"].array, recomputed(selected["a/last"]))


def test_a_dtype_that_no_store_keeps() -> None:
    with pytest.raises(SiteShapeError, match="of the type int32, which no store keeps"):
        columns_on_host({"a/last": torch.zeros(2, 2, dtype=torch.int32)})


def test_an_unknown_column_is_a_key_error() -> None:
    with pytest.raises(KeyError):
        pending(mixed())["a/first"]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA here")
def test_copies_from_cuda_are_pinned_and_right() -> None:
    for _ in range(8):
        selected = mixed()
        there: dict[str, Selected] = {
            name: [one.cuda() for one in column] if isinstance(column, list) else column.cuda()
            for name, column in selected.items()
        }
        torch.cuda.synchronize()
        torch.cuda.set_sync_debug_mode("error")
        try:
            found = columns_on_host(there)
        finally:
            torch.cuda.set_sync_debug_mode("default")
        del there
        for name, column in selected.items():
            assert np.array_equal(found[name].array, recomputed(column)), name
