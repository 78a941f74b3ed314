"""The entry point: SAEs of one column, measured beside what nobody trained."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
from scipy.sparse import csr_array

from vlmlens.errors import DataError, SpecError
from vlmlens_plugins.analysis._statistics import generator
from vlmlens_plugins.analysis.sae.held import Split, pictures_of
from vlmlens_plugins.analysis.sae.judging.comparing import compared
from vlmlens_plugins.analysis.sae.judging.concepts import Concept, concepts
from vlmlens_plugins.analysis.sae.judging.judged import Basis, Judged, Peers, Role, Stability
from vlmlens_plugins.analysis.sae.judging.material import MODALITIES, Material
from vlmlens_plugins.analysis.sae.judging.monosemanticity import (
    by_picture,
    embedded,
    level_of_chance,
    monosemanticity,
)
from vlmlens_plugins.analysis.sae.judging.peers import (
    baselines,
    moments,
    peers_of,
    projections,
)
from vlmlens_plugins.analysis.sae.judging.probing import Probed, dense_area, probed
from vlmlens_plugins.analysis.sae.judging.probing import averaged as mean_probed
from vlmlens_plugins.analysis.sae.judging.resampling import Resampling
from vlmlens_plugins.analysis.sae.judging.seen import KINDS, Passed, passed
from vlmlens_plugins.analysis.sae.judging.single import Singles, averaged, singles
from vlmlens_plugins.analysis.sae.judging.stability import EXACT, by_chance, matched_cosine
from vlmlens_plugins.analysis.sae.judging.variance import POOLED, explained, explained_interval
from vlmlens_plugins.sae import KeptRows, Sae

Floats = npt.NDArray[np.float64]
Progress = Callable[[int, int], None]
_FOR_L0 = 8192
_KEPT = 2**24
_STEPS = 6


def judge(
    saes: Mapping[str, Sae],
    material: Material,
    *,
    by: Sequence[str] = ("label",),
    judged: int = 100_000,
    controls: int = 3,
    draws: int = 1000,
    seed: int = 0,
    progress: Progress = lambda done, total: None,
) -> Judged:
    """Measure SAEs of one column beside what nobody trained.

    That is an untrained dictionary, random rows as directions, raw neurons and PCA directions.

    Features are chosen by samples to learn from; every number is measured on held-out samples.
    Baselines keep as many features per row as the SAEs do. Those of a transcoder have no rows to
    give back, so only their features are measured. It is computed where the SAEs are.

    Args:
        saes: By name; of any sizes and kinds. Those of equal size and like L0 share baselines.
        material: What they are judged on.
        by: What features may stand for: "label" (in each task), or names of attributes.
        judged: Rows of either part that are used, at most; whole samples, drawn at random.
        controls: How many untrained dictionaries are drawn; what is told is their mean.
        draws: Bootstrap resamples behind each interval.
        seed: Of everything random.
        progress: Called with (steps done, all).

    Raises:
        SpecError: There is no SAE.
        DataError: An SAE does not fit the rows, or samples have no rows.
    """
    _check(saes, material)
    kept = replace(material, rows=KeptRows(material.rows, _KEPT))
    learn, held = (
        [part[i] for i in generator(seed, "sae", name).permutation(len(part))]
        for name, part in (("learn", material.split.learn), ("held", material.split.held))
    )
    plain = replace(kept, layouts=None)
    progress(0, _STEPS)
    about = moments(plain, learn, judged)
    first = passed(saes, plain, held, most=min(judged, _FOR_L0), centre=about.wanted)
    found = peers_of(saes, {name: first.l0(name) for name in saes}, controls)
    others: dict[str, Sae] = {}
    for place, own in enumerate(found):
        made = baselines(own, about, seed + place)
        others |= {name: sae.to(saes[own.saes[0]].W_enc.device) for name, sae in made.items()}
    progress(1, _STEPS)
    bases = {**saes, **others}
    shown = [name for each in found for name in each.baselines.values()]
    free = {_free(name): projections(others[name]) for name in shown}
    lean = [name for each in found for name in each.draws[1:]]
    ahead = passed(bases, plain, learn, most=judged, centre=about.wanted, free=free, lean=lean)
    progress(2, _STEPS)
    blind = () if material.targets is None else tuple(others)
    after = passed(
        bases, kept, held, most=judged, centre=about.wanted, free=free, lean=lean, judged=True,
        blind=blind,
    )  # fmt: skip
    progress(3, _STEPS)
    variances = {each.draws[0]: _mean_error(after, each.draws) for each in found}
    return _Judging(kept, found, bases, ahead, after, variances, by, draws, seed, progress).done()


def _check(saes: Mapping[str, Sae], material: Material) -> None:
    if not saes:
        raise SpecError("There is no SAE to judge.", subject="saes", hint="Train or name one.")
    given = material.rows.width
    wanted = given if material.targets is None else material.targets.width
    for name, sae in saes.items():
        if (sae.inputs, sae.outputs) != (given, wanted):
            raise DataError(
                f"The SAE {name!r} reads rows of {sae.inputs} numbers and writes {sae.outputs}; "
                f"{material.rows.column or 'the rows'} and what is wanted of them have {given} and "
                f"{wanted}.",
                subject=name,
                hint="Judge an SAE on the column that it belongs to.",
            )


def _mean_error(found: Passed, draws: Sequence[str]) -> tuple[float, ...]:
    """Give the first of several dictionaries their mean error; what each of them explains."""
    each = tuple(explained(found, name)[POOLED] for name in draws)
    mean = np.mean([found.seen[name].error for name in draws], 0)
    found.seen[draws[0]].error = mean
    return each if len(each) > 1 else ()


def _free(name: str) -> str:
    """The name of a baseline all of whose features may fire."""
    return f"{name}, all firing"


@dataclass(frozen=True, slots=True)
class _Judging:
    """What both passes gave, to be put together."""

    material: Material
    peers: Sequence[Peers]
    bases: Mapping[str, Sae]
    learn: Passed
    held: Passed
    variances: Mapping[str, tuple[float, ...]]
    by: Sequence[str]
    draws: int
    seed: int
    progress: Progress

    def done(self) -> Judged:
        groups = [self.material.samples[number].split_group for number in self.held.samples]
        drawn = Resampling.of(groups, self.draws, self.seed)
        tested = concepts(self.material.samples, self._used(), self.by)
        dense = {
            each.name: dense_area(each, self.learn.pooled, self.held.pooled) for each in tested
        }
        self.progress(4, _STEPS)
        alike = embedded(self.material.embeddings, self.held.samples)
        shown = [name for name in self.bases if name not in self._more()]
        table = {name: self._basis(name, tested, dense, alike, drawn) for name in shown}
        self.progress(5, _STEPS)
        told = Judged(
            column=self.material.rows.column,
            peers=tuple(self.peers),
            bases=table,
            compared=compared(self.peers, table, self.held, drawn),
            stability=self._stability(table),
            concepts=tuple(tested),
            rows=int(self.held.rows.sum()),
            samples=len(self.held.samples),
            groups=drawn.groups,
            means=self._means(),
            chance=float("nan") if alike is None else self._chance(alike),
            embedded=self.material.embedded if alike is not None else "",
        )
        self.progress(6, _STEPS)
        return told

    def _alike(self, largest: csr_array, embeddings: npt.NDArray[np.float32]) -> Floats:
        """float64 `[features]`: the monosemanticity score, over pictures."""
        some = largest[: len(embeddings)]
        return monosemanticity(*by_picture(some, embeddings, self._pictures(len(embeddings))))

    def _chance(self, embeddings: npt.NDArray[np.float32]) -> float:
        none = csr_array((len(embeddings), 1), dtype=np.float32)
        return level_of_chance(by_picture(none, embeddings, self._pictures(len(embeddings)))[1])

    def _pictures(self, most: int) -> list[Hashable]:
        """What tells the picture of held-out samples; samples without one are apart."""
        samples = self.material.samples
        return [pictures_of(samples[i]) or i for i in self.held.samples[:most]]

    def _used(self) -> Split:
        """The split, less samples that were not read."""
        learn, held = self.learn.samples, self.held.samples
        alike = self.material.split.alike
        return Split(learn, held, {number: alike[number] for number in (*learn, *held)})

    def _means(self) -> dict[str, Floats]:
        found = {POOLED: self.held.spread.mean(range(KINDS))}
        counts = self.held.spread.count.sum(0)
        for kind, modality in enumerate(MODALITIES):
            if self.held.modalities and counts[kind]:
                found[modality] = self.held.spread.mean([kind])
        return found

    def _role(self, name: str) -> Role:
        roles = {each: role for one in self.peers for role, each in one.baselines.items()}
        return roles.get(name, Role.SAE)

    def _basis(
        self,
        name: str,
        tested: Sequence[Concept],
        dense: Mapping[str, float],
        alike: npt.NDArray[np.float32] | None,
        drawn: Resampling,
    ) -> Basis:
        seen, learn = self.held.seen[name], self.learn.seen[name].peaks
        rows = int(self.held.rows.sum())
        cosine, shrinkage = _likeness(seen.written)
        patches = seen.coherence if seen.coherence.views.any() else None
        found, sparse = self._told(name, tested, dense, drawn)
        return Basis(
            name=name,
            role=self._role(name),
            sae=self.bases[name],
            explained=explained_interval(self.held, name, drawn),
            each=self.variances.get(name, ()),
            by_modality=explained(self.held, name),
            l0=self.held.l0(name),
            density=seen.fired.sum(0) / max(1, rows),
            modality_density=self._densities(name),
            rows=rows,
            cosine=cosine,
            shrinkage=shrinkage,
            monosemanticity=None if alike is None else self._alike(seen.peaks.largest, alike),
            coherence=None if patches is None else patches.value,
            permuted=None if patches is None else patches.permuted,
            singles=found,
            probed=sparse,
            unlimited=self._unlimited(name, tested, drawn),
            learn=learn,
            held=seen.peaks,
        )

    def _told(
        self, name: str, tested: Sequence[Concept], dense: Mapping[str, float], drawn: Resampling
    ) -> tuple[dict[str, Singles], dict[str, Probed]]:
        """What features tell; of the untrained dictionary the mean over all that were drawn."""
        draws = next((each.draws for each in self.peers if each.draws[0] == name), (name,))
        peaks = [(self.learn.seen[each].peaks, self.held.seen[each].peaks) for each in draws]
        told = [singles(tested, learn, held, drawn) for learn, held in peaks]
        found, sparse = {}, {}
        for each in tested:
            own = [one[each.name] for one in told]
            found[each.name] = averaged(own, drawn) if len(own) > 1 else own[0]
            sparse[each.name] = mean_probed(
                [probed(each, learn, held, dense[each.name]) for learn, held in peaks]
            )
        return found, sparse

    def _more(self) -> set[str]:
        """The untrained dictionaries but for the first of those with like peers."""
        return {name for each in self.peers for name in each.draws[1:]}

    def _unlimited(
        self, name: str, tested: Sequence[Concept], drawn: Resampling
    ) -> dict[str, Singles]:
        if self._role(name) is Role.SAE:
            return {}
        learn, held = (part.seen[_free(name)].peaks for part in (self.learn, self.held))
        return singles(tested, learn, held, drawn)

    def _densities(self, name: str) -> dict[str, Floats]:
        counts = self.held.spread.count.sum(0)
        return {
            modality: self.held.seen[name].fired[kind] / counts[kind]
            for kind, modality in enumerate(MODALITIES)
            if self.held.modalities and counts[kind]
        }

    def _stability(self, table: Mapping[str, Basis]) -> tuple[Stability, ...]:
        pairs = [
            (one, other)
            for peers in self.peers
            for place, one in enumerate(peers.saes)
            for other in peers.saes[place + 1 :]
        ]
        return tuple(self._pair(table[one], table[other]) for one, other in pairs)

    def _pair(self, one: Basis, other: Basis) -> Stability:
        a, b = (each.sae.W_dec.cpu()[each.density > 0] for each in (one, other))
        chance = by_chance(len(a), len(b), a.shape[1], self.seed)
        exact = max(len(a), len(b)) <= EXACT
        return Stability(one.name, other.name, matched_cosine(a, b), chance, exact)


def _likeness(written: Floats) -> tuple[float, float]:
    """The cosine of rows and reconstructions, and the ratio of their lengths."""
    x, y, both = written
    cosine = float(both / np.sqrt(x * y)) if x * y > 0 else float("nan")
    return cosine, float(np.sqrt(y / x)) if x > 0 else float("nan")
