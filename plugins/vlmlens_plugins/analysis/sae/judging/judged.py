"""What was found of SAEs and of what they are held against, as data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
import numpy.typing as npt

from vlmlens._display import brief, count
from vlmlens_plugins.analysis.sae.judging.concepts import Concept
from vlmlens_plugins.analysis.sae.judging.probing import Probed
from vlmlens_plugins.analysis.sae.judging.resampling import Interval
from vlmlens_plugins.analysis.sae.judging.single import Singles
from vlmlens_plugins.analysis.sae.peaks import Peaks
from vlmlens_plugins.sae import Sae

Floats = npt.NDArray[np.float64]
EXPLAINED = "explained variance"
ALPHA = 0.05


class Role(StrEnum):
    """What a basis is."""

    SAE = "SAE"
    UNTRAINED = "untrained"
    NEURONS = "neurons"
    PRINCIPAL = "PCA"
    EXAMPLES = "random rows"


class Kind(StrEnum):
    """What an SAE is compared by."""

    VARIANCE = "variance"
    CONCEPT = "concept"
    LOSS = "loss"


class Word(StrEnum):
    """What an SAE is beside a baseline."""

    BETTER = "better"
    NO_BETTER = "no better"
    WORSE = "worse"
    UNKNOWN = "not known"


@dataclass(frozen=True, slots=True)
class Peers:
    """SAEs that differ in little but their seed, and what they are held against.

    Args:
        features: How many features they have.
        l0: Their mean L0 in held-out rows, which the baselines have too, rounded.
        saes: Their names.
        baselines: By role, the name of the baseline.
        draws: Names of all untrained dictionaries: what is told of the baseline is their mean.
    """

    features: int
    l0: float
    saes: tuple[str, ...]
    baselines: Mapping[Role, str]
    draws: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Basis:
    """One row of the table: an SAE or a baseline, measured on held-out rows.

    Args:
        name: Its name.
        role: What it is.
        sae: The SAE.
        explained: Explained variance of all rows, with its interval over groups of samples.
        each: Explained variance of each untrained dictionary, where `explained` is the mean of
            several.
        by_modality: Explained variance of "all" rows and by modality.
        l0: How many features fire per row, in the mean.
        density: float64 `[features]`: the share of rows in which each fires.
        modality_density: By modality, float64 `[features]`: the share of its rows.
        rows: How many rows were seen.
        cosine: Between rows and reconstructions, both less the mean of rows to learn from.
        shrinkage: Length of reconstructions over that of rows, both less the same mean.
        monosemanticity: float64 `[features]`; None if it was not measured.
        coherence: float64 `[features]`: Moran's I; `permuted` the same with permuted patches; None
            where there is no grid.
        singles: By concept, its best single features.
        probed: By concept, k-sparse probes.
        unlimited: Of baselines, the best single features where all features may fire; else empty.
        learn: What its features do in the samples to learn from.
        held: The same of the held-out samples.
    """

    name: str
    role: Role
    sae: Sae
    explained: Interval
    each: tuple[float, ...]
    by_modality: Mapping[str, float]
    l0: float
    density: Floats
    modality_density: Mapping[str, Floats]
    rows: int
    cosine: float
    shrinkage: float
    monosemanticity: Floats | None
    coherence: Floats | None
    permuted: Floats | None
    singles: Mapping[str, Singles]
    probed: Mapping[str, Probed]
    unlimited: Mapping[str, Singles]
    learn: Peaks
    held: Peaks

    def __repr__(self) -> str:
        return brief(self, self.name, f"EV {self.explained.value:.3f}", f"L0 {self.l0:.1f}")

    @property
    def dead(self) -> float:
        """The share of features that fire in none of the `rows`."""
        return float((self.density == 0).mean())

    @property
    def image_share(self) -> Floats | None:
        """float64 `[features]`: density in image rows over that in image and text rows together.

        1 is a feature of images only, 0 one of text only; NaN of a feature that fires in neither.
        None where the column has only one of them.
        """
        if not {"image", "text"} <= set(self.modality_density):
            return None
        image, text = (self.modality_density[name] for name in ("image", "text"))
        with np.errstate(divide="ignore", invalid="ignore"):
            found: Floats = image / (image + text)
        return found


@dataclass(frozen=True, slots=True)
class Compared:
    """An SAE beside one baseline.

    Args:
        sae: The SAE.
        baseline: The baseline.
        kind: What is measured.
        measure: `EXPLAINED`; the name of a concept; or which rows were replaced.
        difference: How much better the SAE is: in explained variance, in the mean AUC of the best
            features, or in nats of loss. Its 95 % interval is over groups of samples, and, where
            several untrained dictionaries were drawn, over their draws.
        p: Two-sided, of no difference, corrected by Holm (1979) for all SAEs and measures of
            its kind; NaN
            where nothing can be resampled.
        limited: Whether the baseline's L0 is that of the SAE; if not, all its features may fire.
    """

    sae: str
    baseline: str
    kind: Kind
    measure: str
    difference: Interval
    p: float
    limited: bool = True

    @property
    def word(self) -> Word:
        """Whether the SAE is better: significantly, and with an interval that excludes 0."""
        if not np.isfinite(self.p):
            return Word.UNKNOWN
        if self.p >= ALPHA or self.difference.low <= 0 <= self.difference.high:
            return Word.NO_BETTER
        return Word.BETTER if self.difference.value > 0 else Word.WORSE


@dataclass(frozen=True, slots=True)
class Stability:
    """Two SAEs that are peers, or two dictionaries of random directions of their size.

    Args:
        one: The name of the first.
        other: The name of the second.
        value: The mean matched cosine of the features that fire in held-out rows.
        untrained: The same of random directions of equal number.
        exact: Whether features were matched one to one.
    """

    one: str
    other: str
    value: float
    untrained: float
    exact: bool


@dataclass(frozen=True, slots=True)
class Recovered:
    """How much of the answers' loss a basis keeps when it stands for rows.

    Args:
        basis: Its name.
        rows: Which rows were replaced: a selector.
        clean: float64 `[samples]`: cross-entropy of the right answer's tokens, in nats per token,
            with nothing replaced.
        replaced: The same with rows replaced by their reconstructions.
        zero: The same with rows replaced by zeros; `mean` by the mean row.
        of_zero: `(zero - replaced) / (zero - clean)` of the means, with its interval; NaN where
            zeros do not clearly cost at least 0.05 nats: then there is nothing to recover.
        of_mean: The same of the mean row.
    """

    basis: str
    rows: str
    clean: Floats
    replaced: Floats
    zero: Floats
    mean: Floats
    of_zero: Interval
    of_mean: Interval


@dataclass(frozen=True, slots=True)
class Judged:
    """SAEs of one column with what they are held against.

    Args:
        column: The column.
        peers: The SAEs, and which baselines belong to them.
        bases: By name: SAEs first, then the baselines.
        compared: Every SAE beside each of its baselines, by measure.
        stability: Pairs of SAEs that are peers.
        concepts: What was tested.
        rows: Held-out rows that were judged, of `samples` samples in `groups` groups.
        means: The mean of the judged rows: of "all", and by modality.
        chance: The monosemanticity score of a feature that fires at random; NaN if not measured.
        embedded: Where the embeddings are from; "" without.
        loss: What the answers lose when rows are replaced; empty if it was not measured.
    """

    column: str
    peers: tuple[Peers, ...]
    bases: Mapping[str, Basis]
    compared: tuple[Compared, ...]
    stability: tuple[Stability, ...]
    concepts: tuple[Concept, ...]
    rows: int
    samples: int
    groups: int
    means: Mapping[str, Floats]
    chance: float = float("nan")
    embedded: str = ""
    loss: tuple[Recovered, ...] = ()

    def __repr__(self) -> str:
        return brief(self, self.column, count(len(self.saes), "SAE"), count(self.rows, "row"))

    @property
    def saes(self) -> tuple[str, ...]:
        """The names of the SAEs."""
        return tuple(name for name, basis in self.bases.items() if basis.role == Role.SAE)

    def beside(self, sae: str, role: Role = Role.UNTRAINED) -> Basis:
        """The baseline of an SAE."""
        (peers,) = [each for each in self.peers if sae in each.saes]
        return self.bases[peers.baselines[role]]

    def against(
        self, sae: str, kind: Kind, role: Role = Role.UNTRAINED, *, limited: bool = True
    ) -> dict[str, Compared]:
        """An SAE beside a baseline, by measure of one kind."""
        wanted = (sae, self.beside(sae, role).name, kind, limited)
        return {
            each.measure: each
            for each in self.compared
            if (each.sae, each.baseline, each.kind, each.limited) == wanted
        }

    def variance(self, sae: str, role: Role = Role.UNTRAINED) -> Compared:
        """The explained variance of an SAE beside that of a baseline."""
        return self.against(sae, Kind.VARIANCE, role)[EXPLAINED]
