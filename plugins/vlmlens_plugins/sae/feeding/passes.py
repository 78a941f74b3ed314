"""Rows that passes of the model give, of samples as they are asked for; nothing is stored."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from weakref import WeakKeyDictionary

import numpy as np
import torch

from vlmlens.abc import ModelAdapter
from vlmlens.abc.storage import Values
from vlmlens.errors import MissingAnnotation, SelectorError, SpecError
from vlmlens.extraction.batching import Lengths, Unit, units
from vlmlens.extraction.extraction import Extraction
from vlmlens.manifest import PluginKind
from vlmlens.registry import Registry
from vlmlens.samples import Sample
from vlmlens.sites import Axis
from vlmlens.stores.writing import joined_values, row_lengths
from vlmlens.tokens import Column, TokenKind
from vlmlens_plugins.sae.feeding.numbers import rows_of

_ONE_AT_A_TIME: WeakKeyDictionary[ModelAdapter, threading.RLock] = WeakKeyDictionary()
"""Passes of two threads through one model would be taken for each other."""

_PICTURED = (Axis.VISION, Axis.PROJECTOR)


def _warn(message: str) -> None:
    warnings.warn(message, stacklevel=2)


class Passes:
    """Passes of the model over some samples, which give the rows of one or several columns.

    Passes are those of an extraction: cut by tokens, with images read ahead; what samples with the
    same images share is computed once where that is exact; a batch cut by tokens that does not fit
    in memory is halved. Edits that the model is under hold.

    Args:
        vlm: The loaded model.
        columns: Names of columns, `SITE/SELECTOR`, each of a single site.
        samples: The samples, by number.
        batch_size: Samples per pass; "auto": by tokens.
        share: Whether samples with the same images share their beginning.
        warn: Called once if batches are halved.
        keep: How many numbers stay in memory at most, of all columns together. They are given again
            when the same samples are asked for together again, so that what is read does not depend
            on what was read before. 0: none.

    Raises:
        SiteNotFound: The model has no such site.
        SelectorError: A selector does not parse, or keeps rows of generated tokens.
        SpecError: A column names several sites.
        MissingAnnotation: Rows of images are asked for, and no sample has an image.
    """

    def __init__(
        self,
        vlm: ModelAdapter,
        columns: Sequence[str],
        samples: Sequence[Sample],
        batch_size: int | str = "auto",
        *,
        share: bool = True,
        warn: Callable[[str], None] = _warn,
        keep: int = 0,
    ) -> None:
        self.columns = [_full_name(vlm, column) for column in columns]
        self.samples = samples
        self._vlm, self._size, self._share, self._warn = vlm, batch_size, share, warn
        self._of_text = [name for name in self.columns if not _of_images(vlm, name)]
        self._extractions: dict[bool, Extraction] = {}
        self._shown = next((i for i, sample in enumerate(samples) if sample.images), None)
        if self._shown is None and len(self._of_text) < len(self.columns):
            (first, *_) = [name for name in self.columns if name not in self._of_text]
            raise MissingAnnotation(
                f"{first!r} has rows of images, and none of {len(samples)} samples has an image.",
                subject=first,
                hint="Give samples with images, or choose rows of the prompt.",
            )
        self._last: tuple[tuple[int, ...], dict[str, Values]] = (), {}
        self._kept: dict[tuple[int, ...], dict[str, Values]] = {}
        self._left = keep

    def rows(self) -> list[PassedRows]:
        """The rows of each column. Asking all of them for the same samples takes one pass."""
        return [PassedRows(self, column) for column in self.columns]

    def take(self, column: str, samples: Sequence[int]) -> Values:
        """The values of a column for some samples.

        Those of the other columns stay until they are taken, or other samples are asked for.
        """
        wanted = tuple(samples)
        if wanted in self._kept:
            return self._kept[wanted][column]
        if self._last[0] != wanted or column not in self._last[1]:
            self._last = wanted, self._run(wanted)
        if self._keeps(*self._last):
            return self._kept[wanted][column]
        return self._last[1].pop(column)

    def _keeps(self, samples: tuple[int, ...], found: dict[str, Values]) -> bool:
        """Keep what was found, if there is room for it."""
        size = sum(values.array.size for values in found.values())
        if size > self._left or len(found) < len(self.columns):
            return False
        self._kept[samples], self._left = found, self._left - size
        self._last = (), {}
        return True

    @cached_property
    def widths(self) -> dict[str, int]:
        """The width of each column, seen in a pass of one sample."""
        found = self._passed([self._shown or 0], self._shown is not None)
        return {name: values.width for _, each in found for name, values in each.items()}

    def _run(self, samples: Sequence[int]) -> dict[str, Values]:
        """Values in the order asked; those without an image have no rows of images."""
        parts: list[tuple[tuple[int, ...], Mapping[str, Values]]] = []
        for shown in (True, False):
            some = [i for i in dict.fromkeys(samples) if bool(self.samples[i].images) == shown]
            parts += self._passed(some, shown)
        return {
            name: _in_order([(n, each[name]) for n, each in parts if name in each], samples)
            if any(name in each for _, each in parts)
            else Values(np.zeros((0, self.widths[name]), "<f4"), "float32", (0,) * len(samples))
            for name in self.columns
        }

    def _passed(
        self, samples: Sequence[int], shown: bool
    ) -> list[tuple[tuple[int, ...], Mapping[str, Values]]]:
        """Numbers of samples and their values by column, of samples all with or without images."""
        columns = self.columns if shown else self._of_text
        if not samples or not columns:
            return []
        if shown not in self._extractions:
            self._extractions[shown] = _extraction(
                self._vlm, columns, self.samples, self._size, self._share, self._warn
            )
        extraction = self._extractions[shown]
        with _ONE_AT_A_TIME.setdefault(self._vlm, threading.RLock()):
            return list(extraction.columns(self._units(samples, extraction.budget)))

    def _units(self, samples: Sequence[int], budget: int) -> list[Unit]:
        """The samples in batches; the cut does not depend on their order."""
        numbers = sorted(samples)
        shares = self._share and not self._vlm.active_edits
        cut = units(
            [self.samples[i] for i in numbers],
            Lengths(self._lengths.whole[numbers], self._lengths.text[numbers]),
            size=None if isinstance(self._size, str) else self._size,
            budget=budget,
            share=self._vlm.shares if shares else "nothing",
        )
        return [
            Unit(tuple(tuple(numbers[i] for i in group) for group in unit.groups), unit.shared)
            for unit in cut
        ]

    @cached_property
    def _lengths(self) -> Lengths:
        return Lengths.of(self.samples, lambda sample: self._vlm.encode([sample]))


class PassedRows:
    """The rows of one column of some passes; see `ModelRows` for what holds."""

    def __init__(self, passes: Passes, column: str) -> None:
        self._passes, self.column = passes, column

    @property
    def width(self) -> int:
        """See `Rows.width`; the first time, it takes a pass of one sample."""
        return self._passes.widths[self.column]

    def __len__(self) -> int:
        return len(self._passes.samples)

    def id_of(self, number: int) -> str:
        """The id of a sample."""
        return self._passes.samples[number].id

    def read(self, samples: Sequence[int]) -> list[torch.Tensor]:
        """See `Rows.read`, and `ModelRows` for what holds.

        Raises:
            DataError: A row holds NaN or infinity. The error names the sample.
            OutOfMemory: A single sample does not fit, or a batch of the size that was given.
        """
        values = self._passes.take(self.column, samples)
        return rows_of(values, self.column, lambda i: self.id_of(samples[i]))


class ModelRows(PassedRows):
    """The rows of a column, computed by passes of the model when they are asked for.

    The same samples asked for together, in whatever order, give the same rows bit for bit on the
    CPU. In other company a sample's rows differ by rounding, since passes are padded and shared
    differently; with `batch_size=1` and `share=False` they do not. If memory runs out, batches are
    halved from then on, which is other company, too. A sample without an image has no rows where
    rows of images are asked for.

    Args:
        vlm: The loaded model.
        column: `SITE/SELECTOR` of a single site; the attribute `column` is its full name.
        samples: The samples, by number.
        batch_size: Samples per pass; "auto": by tokens.
        share: Whether samples with the same images share their beginning.
        warn: Called once if batches are halved.

    Raises:
        SiteNotFound: The model has no such site.
        SelectorError: The selector does not parse, or keeps rows of generated tokens.
        SpecError: The column names several sites.
    """

    def __init__(
        self,
        vlm: ModelAdapter,
        column: str,
        samples: Sequence[Sample],
        batch_size: int | str = "auto",
        *,
        share: bool = True,
        warn: Callable[[str], None] = _warn,
    ) -> None:
        passes = Passes(vlm, [column], samples, batch_size, share=share, warn=warn)
        super().__init__(passes, passes.columns[0])


def _full_name(vlm: ModelAdapter, column: str) -> str:
    parsed = Column.parse(column)
    selector = parsed.selector
    if selector.steps or selector.kind == TokenKind.ANSWER:
        raise SelectorError(
            f"{column!r} is about generated tokens, which passes over prompts do not have.",
            subject=column,
            hint="Store them first: vlmlens extract --generate N.",
        )
    sites = vlm.sites.resolve(parsed.site)
    if len(sites) > 1:
        raise SpecError(
            f"{column!r} names {len(sites)} sites, and rows come from one.",
            subject=column,
            hint=f"Name one of them, for example {sites[-1].name}/{selector}.",
        )
    return str(Column(sites[0].name, selector))


def _of_images(vlm: ModelAdapter, column: str) -> bool:
    """Whether a column has rows of images alone."""
    parsed = Column.parse(column)
    (site,) = vlm.sites.resolve(parsed.site)
    return site.axis in _PICTURED or parsed.selector.kind == TokenKind.IMAGE


def _extraction(
    vlm: ModelAdapter,
    columns: Sequence[str],
    samples: Sequence[Sample],
    batch_size: int | str,
    share: bool,
    warn: Callable[[str], None],
) -> Extraction:
    registry = Registry.default()
    manifest = registry.find(PluginKind.EXTRACTOR, "activations")
    extractor = registry.load(manifest)(vlm, columns, registry.options(manifest, {}))
    return Extraction(vlm, extractor, samples, batch_size, share, warn)


def _in_order(parts: Sequence[tuple[tuple[int, ...], Values]], samples: Sequence[int]) -> Values:
    """The values of samples in order; those that are in no part have no rows."""
    place: dict[int, int] = {}
    for numbers, _ in parts:
        place |= {number: len(place) + i for i, number in enumerate(numbers)}
    values = joined_values([each for _, each in parts])
    with_empty = Values(values.array, values.dtype, (*row_lengths(values), 0))
    return with_empty.take([place.get(number, len(place)) for number in samples])
