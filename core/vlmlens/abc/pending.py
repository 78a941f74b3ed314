"""Columns of a batch that may still be on their way from the device to the host."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TypeAlias

import torch

from vlmlens._display import brief
from vlmlens.abc.storage import DTYPES, Array, Values
from vlmlens.errors import SiteShapeError
from vlmlens.passes.host_copy import HostCopy, bits_of

Selected: TypeAlias = torch.Tensor | list[torch.Tensor]
"""`[samples, width]`; or for a ragged column, `[k_i, width]` of each sample."""

_AT_ONCE = 256 * 2**20
"""Columns of about this many bytes are copied in one piece."""


Facts: TypeAlias = Mapping[str, torch.Tensor]
"""Small tensors `[n]` that say whether columns may be used, by a name that no column has."""

Check: TypeAlias = Callable[[Mapping[str, Array]], None]
"""Raises an error if the facts are not as they should be."""


def columns_on_host(
    selected: Mapping[str, Selected], facts: Facts | None = None, check: Check | None = None
) -> Mapping[str, Values]:
    """What an extractor returns of the rows that it selected on the device.

    All columns of a batch are copied together, and this returns at once: whoever asks for a column
    of the result waits for the copy. Rows on the CPU are not copied at all.

    Args:
        selected: The columns, in the order of `Extractor.columns`.
        facts: What is to be checked of them. It is copied along, so that nobody waits for it.
        check: Called with the facts before the first column is given out.

    Raises:
        SiteShapeError: A column has a dtype that no store keeps.
    """
    for name, rows in selected.items():
        _check_dtype(name, _pieces(rows)[0].dtype)
    whole: dict[str, Selected] = {**selected, **(facts or {})}
    if any(piece.device.type != "cpu" for rows in whole.values() for piece in _pieces(rows)):
        return PendingColumns(selected, facts or {}, check)
    if check is not None:
        check({name: bits_of(fact) for name, fact in (facts or {}).items()})
    return {name: _here(rows) for name, rows in selected.items()}


class PendingColumns(Mapping[str, Values]):
    """Columns by name. Asking for one waits until it is there. Threads may share it.

    Args:
        selected: See `columns_on_host`.
        facts: See `columns_on_host`.
        check: See `columns_on_host`.
    """

    def __init__(self, selected: Mapping[str, Selected], facts: Facts, check: Check | None) -> None:
        whole = {**selected, **facts}
        self._forms = {name: _form(rows) for name, rows in selected.items()}
        self._copies = [
            (names, HostCopy([_pieces(whole[name]) for name in names]))
            for names in _together(whole)
        ]
        self._check = check
        self._lock = threading.Lock()
        self._values: dict[str, Values] | None = None

    def wait(self) -> None:
        """Wait until the device has sent everything; nothing is read yet."""
        for _, copy in self._copies:
            copy.wait()

    def __getitem__(self, name: str) -> Values:
        if name not in self._forms:
            raise KeyError(name)
        with self._lock:
            if self._values is None:
                self._values = self._read()
                self._copies = []
            return self._values[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._forms)

    def __len__(self) -> int:
        return len(self._forms)

    def __repr__(self) -> str:
        return brief(self, "", *self._forms)

    def _read(self) -> dict[str, Values]:
        found = {
            name: array
            for names, copy in self._copies
            for name, array in zip(names, copy.arrays(), strict=True)
        }
        if self._check is not None:
            self._check({name: found[name] for name in found if name not in self._forms})
        return {name: Values(found[name], *form) for name, form in self._forms.items()}


def arrived(columns: Mapping[str, Values]) -> None:
    """Wait until the device has computed a batch's columns and sent them."""
    if isinstance(columns, PendingColumns):
        columns.wait()


def _together(selected: Mapping[str, Selected]) -> list[list[str]]:
    """The names of the columns that are copied in one piece: of one device, and not too large."""
    found: list[list[str]] = []
    last: dict[torch.device, tuple[list[str], int]] = {}
    for name, rows in selected.items():
        device = _pieces(rows)[0].device
        size = sum(piece.nbytes for piece in _pieces(rows))
        names, filled = last.get(device, ([], 0))
        if not names or filled + size > _AT_ONCE:
            names, filled = [], 0
            found.append(names)
        names.append(name)
        last[device] = names, filled + size
    return found


def _here(rows: Selected) -> Values:
    dtype, lengths = _form(rows)
    return Values(bits_of(torch.cat(rows) if isinstance(rows, list) else rows), dtype, lengths)


def _pieces(rows: Selected) -> Sequence[torch.Tensor]:
    return rows if isinstance(rows, list) else [rows]


def _form(rows: Selected) -> tuple[str, tuple[int, ...] | None]:
    """The dtype, and the number of rows of each sample of a ragged column."""
    lengths = tuple(len(piece) for piece in rows) if isinstance(rows, list) else None
    return str(_pieces(rows)[0].dtype).removeprefix("torch."), lengths


def _check_dtype(name: str, dtype: torch.dtype) -> None:
    known = str(dtype).removeprefix("torch.")
    if known not in DTYPES:
        raise SiteShapeError(
            f"The column {name!r} has values of the type {known}, which no store keeps.",
            subject=name,
            hint=f"Choose another site. Stores keep: {', '.join(DTYPES)}.",
        )
