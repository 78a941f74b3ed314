"""One pass over samples for all bases at once: what each of them does with the rows."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import torch
from scipy.sparse import csr_array, vstack

from vlmlens_plugins.analysis.sae.judging.coherence import Coherence
from vlmlens_plugins.analysis.sae.judging.material import MODALITIES, Block, Material, blocks
from vlmlens_plugins.analysis.sae.judging.probing import Dense
from vlmlens_plugins.analysis.sae.judging.single import SAMPLES
from vlmlens_plugins.analysis.sae.peaks import Peaks
from vlmlens_plugins.sae import Sae

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
_ELEMENTS = 2**22
KINDS = len(MODALITIES)


@dataclass(slots=True)
class Spread:
    """How far rows lie from a fixed point, by sample and modality.

    Args:
        centre: float64 `[outputs]`: the point, near the mean.
        count: int64 `[samples, modalities]`: rows.
        square: float64 `[samples, modalities]`: the sum of squared distances to the point.
        first: float64 `[modalities, outputs]`: the sum of the differences to it.
    """

    centre: Floats
    count: Ints
    square: Floats
    first: Floats

    def total(self, kinds: Sequence[int]) -> float:
        """The sum of squared distances of all rows of some modalities to their own mean."""
        rows = int(self.count[:, kinds].sum())
        away = self.first[list(kinds)].sum(0)
        return float(self.square[:, kinds].sum() - (away @ away) / max(1, rows))

    def mean(self, kinds: Sequence[int]) -> Floats:
        """float64 `[outputs]`: the mean row of some modalities."""
        rows = int(self.count[:, kinds].sum())
        found: Floats = self.centre + self.first[list(kinds)].sum(0) / max(1, rows)
        return found


@dataclass(slots=True)
class Seen:
    """What a basis does in some samples.

    Args:
        peaks: How strongly its features fire, by sample.
        error: float64 `[samples, modalities]`: the sum of squared errors of the reconstruction.
        fired: int64 `[modalities, features]`: in how many rows each feature fires.
        coherence: How patches at which features fire lie together.
        written: float64 `[3]`: sums over rows of `|x|^2`, `|x^|^2` and `x x^`, both centred.
    """

    peaks: Peaks
    error: Floats
    fired: Ints
    coherence: Coherence
    written: Floats


@dataclass(frozen=True, slots=True)
class Passed:
    """A pass over samples.

    Args:
        samples: Numbers of the samples that were read.
        rows: int64 `[samples]`: how many rows each has.
        modalities: Whether the kinds of rows are known; if not, all count as the first.
        spread: Of the rows that are to be given back.
        pooled: Mean and largest rows of the first 4096 samples.
        seen: By name of the basis.
    """

    samples: tuple[int, ...]
    rows: Ints
    modalities: bool
    spread: Spread
    pooled: Dense
    seen: Mapping[str, Seen]

    def l0(self, name: str) -> float:
        """How many features of a basis fire per row."""
        return float(self.seen[name].fired.sum()) / max(1, int(self.rows.sum()))


def passed(
    bases: Mapping[str, Sae],
    material: Material,
    samples: Sequence[int],
    *,
    most: int,
    centre: Floats,
    free: Mapping[str, Sae] | None = None,
    lean: Collection[str] = (),
    judged: bool = False,
    blind: Collection[str] = (),
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Passed:
    """Read samples once, and let all bases encode and give back their rows.

    Args:
        bases: By name.
        material: Where rows come from.
        samples: Numbers of samples, in the order in which they are read.
        most: Rows, at most; whole samples.
        centre: float64 `[outputs]`: about the mean of the rows.
        free: More bases, of which only the largest codes in the first 4096 samples are kept.
        lean: Names of bases of which only the largest codes and errors are kept.
        judged: Whether errors and coherence are wanted; else only peaks are found.
        blind: Names of bases that give nothing back which could be held against the rows: their
            errors are NaN.
        progress: Called with (samples done, all).
    """
    more = {} if free is None else free
    parts = {
        name: _Part(sae, len(samples), judged=judged, blind=name in blind, lean=name in lean)
        for name, sae in bases.items()
    }
    parts |= {
        name: _Part(sae, SAMPLES, judged=False, blind=True, lean=True) for name, sae in more.items()
    }
    spread, pooled = _SpreadPart(centre), _PooledPart()
    widest = max(part.sae.features for part in parts.values())
    known = False
    for block in blocks(material, samples, most, max(1, _ELEMENTS // widest)):
        spread.add(block)
        pooled.add(block)
        for part in parts.values():
            part.add(block, centre)
        known = block.kinds is not None
        progress(len(spread.samples), len(samples))
    seen = {name: part.seen(spread.samples, spread.lengths) for name, part in parts.items()}
    rows = np.array(spread.lengths, np.int64)
    return Passed(tuple(spread.samples), rows, known, spread.done(), pooled.done(), seen)


def _kinds(block: Block) -> Ints:
    return np.zeros(len(block.rows), np.int64) if block.kinds is None else block.kinds


def _by_sample(block: Block, values: Floats | None = None) -> Floats:
    """float64 `[samples, modalities]`: sums of a value per row, or numbers of rows."""
    place = block.owner * KINDS + _kinds(block)
    found = np.bincount(place, values, minlength=len(block.samples) * KINDS)
    return found.astype(np.float64).reshape(-1, KINDS)


@dataclass(slots=True)
class _SpreadPart:
    """What is gathered of the rows themselves."""

    centre: Floats
    samples: list[int] = field(default_factory=list)
    lengths: list[int] = field(default_factory=list)
    counts: list[Floats] = field(default_factory=lambda: [np.zeros((0, KINDS))])
    squares: list[Floats] = field(default_factory=lambda: [np.zeros((0, KINDS))])
    first: Floats = field(init=False)

    def __post_init__(self) -> None:
        self.first = np.zeros((KINDS, len(self.centre)))

    def add(self, block: Block) -> None:
        away = block.wanted.double().cpu().numpy() - self.centre
        self.samples += block.samples
        self.lengths += block.lengths
        self.counts.append(_by_sample(block))
        self.squares.append(_by_sample(block, np.einsum("nd,nd->n", away, away)))
        for kind in range(KINDS):
            self.first[kind] += away[_kinds(block) == kind].sum(0)

    def done(self) -> Spread:
        counts = np.concatenate(self.counts).astype(np.int64)
        return Spread(self.centre, counts, np.concatenate(self.squares), self.first)


@dataclass(slots=True)
class _PooledPart:
    """Mean and largest rows of the first samples."""

    samples: list[int] = field(default_factory=list)
    rows: list[torch.Tensor] = field(default_factory=list)

    def add(self, block: Block) -> None:
        room = max(0, SAMPLES - len(self.samples))
        if not room and self.rows:
            return
        block = block.first(room)
        both = [pool(block.rows, block.lengths) for pool in (_means, _largest)]
        self.samples += block.samples
        self.rows.append(torch.cat(both, 1))

    def done(self) -> Dense:
        return Dense(tuple(self.samples), torch.cat(self.rows).numpy())


class _Part:
    """What is gathered of one basis, see `passed`; peaks of the first `most` samples."""

    def __init__(self, sae: Sae, most: int, *, judged: bool, blind: bool, lean: bool) -> None:
        self.sae, self.most = sae, most
        self.judged, self.blind, self.lean = judged, blind, lean
        none = csr_array((0, sae.features), dtype=np.float32)
        self.largest, self.means = [none], [none]
        self.errors: list[Floats] = [np.zeros((0, KINDS))]
        self.fired = np.zeros((KINDS, sae.features), np.int64)
        self.total = np.zeros(sae.features)
        self.written = np.zeros(3)
        self.coherence = Coherence(sae.features)
        self._samples = 0

    def add(self, block: Block, centre: Floats) -> None:
        room = max(0, self.most - self._samples)
        if not room:
            return
        block = block.first(room)
        self._samples += len(block.samples)
        code = self.sae.encode(block.rows)
        self.largest.append(csr_array(_largest(code, block.lengths).cpu().numpy()))
        if not self.lean:
            self._count(block, code)
        if self.judged:
            self._judge(block, code, centre)

    def _count(self, block: Block, code: torch.Tensor) -> None:
        self.fired += _fired(code, _kinds(block))
        means, lengths = _means(code, block.lengths), torch.tensor(block.lengths)
        self.total += (means.cpu().double() * lengths[:, None]).sum(0).numpy()
        self.means.append(csr_array(means.cpu().numpy()))

    def _judge(self, block: Block, code: torch.Tensor, centre: Floats) -> None:
        if not self.lean:
            self.coherence.add(block, code)
        if self.blind:
            self.errors.append(np.full((len(block.samples), KINDS), np.nan))
            return
        made = self.sae.decode(code, block.rows).cpu().double()
        wanted = block.wanted.cpu().double()
        self.errors.append(_by_sample(block, (made - wanted).square().sum(1).numpy()))
        around = torch.from_numpy(centre)
        x, y = wanted - around, made - around
        self.written += [float((x * x).sum()), float((y * y).sum()), float((x * y).sum())]

    def seen(self, samples: Sequence[int], lengths: Sequence[int]) -> Seen:
        largest = vstack(self.largest, format="csr")
        kept = largest.shape[0]
        means = vstack(self.means, format="csr")
        means = csr_array(largest.shape, dtype=np.float32) if self.lean else means
        peaks = Peaks(
            tuple(samples[:kept]), largest, means, np.array(lengths[:kept], np.int64),
            self.fired.sum(0), self.total,
        )  # fmt: skip
        return Seen(peaks, np.concatenate(self.errors), self.fired, self.coherence, self.written)


def _fired(code: torch.Tensor, kinds: Ints) -> Ints:
    """int64 `[modalities, features]`: in how many rows each feature fires."""
    each = torch.arange(KINDS, device=code.device)[:, None]
    own = (torch.from_numpy(kinds).to(code.device) == each).to(code.dtype)
    count = own @ (code != 0).to(code.dtype)  # exact: a block has few rows
    found: Ints = count.round().long().cpu().numpy()
    return found


def _largest(code: torch.Tensor, lengths: Sequence[int]) -> torch.Tensor:
    """`[samples, width]`: the largest of each sample's rows; zeros without rows."""
    none = code.new_zeros(code.shape[1])
    parts = code.split(list(lengths))
    return torch.stack([part.amax(0) if len(part) else none for part in parts])


def _means(code: torch.Tensor, lengths: Sequence[int]) -> torch.Tensor:
    """`[samples, width]`: the mean of each sample's rows; zeros without rows."""
    none = code.new_zeros(code.shape[1])
    parts = code.split(list(lengths))
    return torch.stack([part.mean(0) if len(part) else none for part in parts])
