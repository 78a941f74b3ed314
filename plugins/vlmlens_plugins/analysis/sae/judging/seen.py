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
        mean = self.first[list(kinds)].sum(0)
        return float(self.square[:, kinds].sum() - (mean @ mean) / max(1, rows))


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
        seen: By name of the basis.
    """

    samples: tuple[int, ...]
    rows: Ints
    modalities: bool
    spread: Spread
    seen: Mapping[str, Seen]


def passed(
    bases: Mapping[str, Sae],
    material: Material,
    samples: Sequence[int],
    *,
    most: int,
    centre: Floats,
    judged: bool,
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
        judged: Whether errors and coherence are wanted; else only peaks are found.
        blind: Names of bases that give nothing back which could be held against the rows: their
            errors are NaN.
        progress: Called with (samples done, all).
    """
    widest = max(sae.features for sae in bases.values())
    parts = {name: _Part(sae, judged=judged, blind=name in blind) for name, sae in bases.items()}
    spread = _SpreadPart(centre)
    numbers: list[int] = []
    lengths: list[int] = []
    known = False
    for block in blocks(material, samples, most, max(1, _ELEMENTS // widest)):
        spread.add(block)
        for part in parts.values():
            part.add(block, centre)
        known = block.kinds is not None
        numbers += block.samples
        lengths += block.lengths
        progress(len(numbers), len(samples))
    ids, rows = tuple(numbers), np.array(lengths, np.int64)
    seen = {name: part.seen(ids, rows) for name, part in parts.items()}
    return Passed(ids, rows, known, spread.done(), seen)


def _kinds(block: Block) -> Ints:
    return np.zeros(len(block.rows), np.int64) if block.kinds is None else block.kinds


def _by_sample(block: Block, values: Floats | None = None) -> npt.NDArray[np.generic]:
    """`[samples, modalities]`: sums of a value per row, or numbers of rows."""
    place = block.owner * KINDS + _kinds(block)
    found = np.bincount(place, values, minlength=len(block.samples) * KINDS)
    return found.reshape(-1, KINDS)


@dataclass(slots=True)
class _SpreadPart:
    centre: Floats
    counts: list[Ints] = field(default_factory=list)
    squares: list[Floats] = field(default_factory=list)
    first: Floats = field(init=False)

    def __post_init__(self) -> None:
        self.first = np.zeros((KINDS, len(self.centre)))

    def add(self, block: Block) -> None:
        away = block.wanted.double().numpy() - self.centre
        self.counts.append(_by_sample(block).astype(np.int64))
        self.squares.append(_by_sample(block, np.einsum("nd,nd->n", away, away)))  # type: ignore[arg-type]
        for kind in range(KINDS):
            self.first[kind] += away[_kinds(block) == kind].sum(0)

    def done(self) -> Spread:
        count = np.concatenate([np.zeros((0, KINDS), np.int64), *self.counts])
        return Spread(
            self.centre, count, np.concatenate([np.zeros((0, KINDS)), *self.squares]), self.first
        )


class _Part:
    """What is gathered of one basis."""

    def __init__(self, sae: Sae, *, judged: bool, blind: bool) -> None:
        self.sae, self.judged, self.blind = sae, judged, blind
        self.largest: list[csr_array] = []
        self.means: list[csr_array] = []
        self.errors: list[Floats] = [np.zeros((0, KINDS))]
        self.fired = np.zeros((KINDS, sae.features), np.int64)
        self.total = np.zeros(sae.features)
        self.written = np.zeros(3)
        self.coherence = Coherence(sae.features)

    def add(self, block: Block, centre: Floats) -> None:
        code = self.sae.encode(block.rows)
        fires = code != 0
        for kind in np.unique(_kinds(block)) if len(block.rows) else ():
            own = torch.from_numpy(_kinds(block) == kind)
            self.fired[kind] += fires[own.to(fires.device)].sum(0).cpu().numpy()
        largest, sums = _pooled(code, block.lengths)
        self.total += sums.double().sum(0).cpu().numpy()
        each = torch.tensor(block.lengths, device=sums.device).clamp(min=1)[:, None]
        self.largest.append(csr_array(largest.cpu().numpy()))
        self.means.append(csr_array((sums / each).cpu().numpy()))
        if self.judged:
            self._judge(block, code, centre)

    def _judge(self, block: Block, code: torch.Tensor, centre: Floats) -> None:
        self.coherence.add(block, code)
        if self.blind:
            self.errors.append(np.full((len(block.samples), KINDS), np.nan))
            return
        made = self.sae.decode(code, block.rows).cpu().double()
        wanted = block.wanted.double()
        error = (made - wanted).square().sum(1).numpy()
        self.errors.append(_by_sample(block, error))  # type: ignore[arg-type]
        around = torch.from_numpy(centre)
        x, y = wanted - around, made - around
        self.written += [float((x * x).sum()), float((y * y).sum()), float((x * y).sum())]

    def seen(self, samples: tuple[int, ...], rows: Ints) -> Seen:
        none = csr_array((0, self.sae.features), dtype=np.float32)
        peaks = Peaks(
            samples, vstack([none, *self.largest], format="csr"),
            vstack([none, *self.means], format="csr"), rows, self.fired.sum(0), self.total,
        )  # fmt: skip
        error = np.concatenate(self.errors)
        return Seen(peaks, error, self.fired, self.coherence, self.written)


def _pooled(code: torch.Tensor, lengths: Sequence[int]) -> tuple[torch.Tensor, torch.Tensor]:
    """The largest and the sum of each sample's codes, `[samples, features]` both."""
    largest = code.new_zeros(len(lengths), code.shape[1])
    sums = torch.zeros_like(largest)
    for place, part in enumerate(code.split(list(lengths))):
        if len(part):
            largest[place] = part.amax(0)
            sums[place] = part.sum(0)
    return largest, sums
