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
from vlmlens_plugins.analysis.sae.peaks import Peaks
from vlmlens_plugins.sae import Sae

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
_ELEMENTS = 2**22
_SAMPLES = 4096
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
        free: More bases, of which only peaks in the first 4096 samples are kept.
        judged: Whether errors and coherence are wanted; else only peaks are found.
        blind: Names of bases that give nothing back which could be held against the rows: their
            errors are NaN.
        progress: Called with (samples done, all).
    """
    more = {} if free is None else free
    parts = {name: _Part(sae, judged, name in blind, len(samples)) for name, sae in bases.items()}
    parts |= {name: _Part(sae, False, True, _SAMPLES) for name, sae in more.items()}
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
        room = max(0, _SAMPLES - len(self.samples))
        largest, sums = _pooled(block.rows, block.lengths)
        lengths = torch.tensor(block.lengths).clamp(min=1)[:, None]
        self.samples += block.samples[:room]
        self.rows.append(torch.cat([sums / lengths, largest], 1)[:room])

    def done(self) -> Dense:
        return Dense(tuple(self.samples), torch.cat(self.rows).numpy())


class _Part:
    """What is gathered of one basis; peaks of the first `most` samples."""

    def __init__(self, sae: Sae, judged: bool, blind: bool, most: int) -> None:
        self.sae, self.judged, self.blind, self.most = sae, judged, blind, most
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
        self._samples += len(block.samples)
        code = self.sae.encode(block.rows)
        fires, kinds = code != 0, torch.from_numpy(_kinds(block)).to(code.device)
        for kind in range(KINDS):
            if len(own := fires[kinds == kind]):
                self.fired[kind] += own.sum(0).cpu().numpy()
        largest, sums = _pooled(code, block.lengths)
        self.total += sums.double().sum(0).cpu().numpy()
        lengths = torch.tensor(block.lengths, device=sums.device).clamp(min=1)[:, None]
        self.largest.append(csr_array(largest[:room].cpu().numpy()))
        self.means.append(csr_array((sums / lengths)[:room].cpu().numpy()))
        if self.judged:
            self._judge(block, code, centre)

    def _judge(self, block: Block, code: torch.Tensor, centre: Floats) -> None:
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
        largest, means = (vstack(each, format="csr") for each in (self.largest, self.means))
        kept = largest.shape[0]
        peaks = Peaks(
            tuple(samples[:kept]), largest, means, np.array(lengths[:kept], np.int64),
            self.fired.sum(0), self.total,
        )  # fmt: skip
        return Seen(peaks, np.concatenate(self.errors), self.fired, self.coherence, self.written)


def _pooled(code: torch.Tensor, lengths: Sequence[int]) -> tuple[torch.Tensor, torch.Tensor]:
    """The largest and the sum of each sample's rows, `[samples, width]` both; zeros without."""
    largest = code.new_zeros(len(lengths), code.shape[1])
    sums = torch.zeros_like(largest)
    for place, part in enumerate(code.split(list(lengths))):
        if len(part):
            largest[place] = part.amax(0)
            sums[place] = part.sum(0)
    return largest, sums
