"""The entry point: SAEs of one column, measured beside what nobody trained."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from vlmlens.errors import SpecError
from vlmlens_plugins.analysis._statistics import generator
from vlmlens_plugins.analysis.sae.held import Split
from vlmlens_plugins.analysis.sae.judging.comparing import compared
from vlmlens_plugins.analysis.sae.judging.concepts import Concept, concepts
from vlmlens_plugins.analysis.sae.judging.judged import Basis, Judged, Role, Setting, Stability
from vlmlens_plugins.analysis.sae.judging.material import MODALITIES, KeptRows, Material
from vlmlens_plugins.analysis.sae.judging.monosemanticity import level_of_chance, monosemanticity
from vlmlens_plugins.analysis.sae.judging.pooled import embedded, pooled_rows
from vlmlens_plugins.analysis.sae.judging.probing import dense_area, probed
from vlmlens_plugins.analysis.sae.judging.seen import Passed, passed
from vlmlens_plugins.analysis.sae.judging.settings import baselines, moments, settings
from vlmlens_plugins.analysis.sae.judging.single import Singles, singles
from vlmlens_plugins.analysis.sae.judging.stability import EXACT, by_chance, matched_cosine
from vlmlens_plugins.analysis.sae.judging.variance import Resampling, explained, explained_interval
from vlmlens_plugins.sae import Relu, Sae

Floats = npt.NDArray[np.float64]
Progress = Callable[[int, int], None]
_FOR_L0 = 8192
_STEPS = 8


def judge(
    saes: Mapping[str, Sae],
    material: Material,
    *,
    by: Sequence[str] = ("label",),
    judged: int = 100_000,
    draws: int = 1000,
    seed: int = 0,
    progress: Progress = lambda done, total: None,
) -> Judged:
    """Measure SAEs of one column beside an untrained dictionary, raw neurons and PCA directions.

    Features are chosen by samples to learn from; every number is measured on held-out samples.

    Args:
        saes: By name; of any sizes and kinds. Those of equal size and like L0 share baselines.
        material: What they are judged on.
        by: What features may stand for: "label" (in each task), or names of attributes.
        judged: Rows of either part that are used, at most; whole samples, drawn at random.
        draws: Bootstrap resamples behind each interval.
        seed: Of everything random.
        progress: Called with (steps done, all).

    Raises:
        SpecError: There is no SAE.
        DataError: An SAE does not fit the rows, or samples have no rows.
    """
    if not saes:
        raise SpecError("There is no SAE to judge.", subject="saes", hint="Train or name one.")
    given = replace(material, rows=KeptRows(material.rows))
    steps = iter(range(1, _STEPS + 1))

    def tell() -> None:
        progress(next(steps), _STEPS)

    learn, held = (
        [part[i] for i in generator(seed, "sae", name).permutation(len(part))]
        for name, part in (("learn", given.split.learn), ("held", given.split.held))
    )
    about = moments(given, learn, judged)
    tell()
    first = passed(
        saes, replace(given, layouts=None), held,
        most=min(judged, _FOR_L0), centre=about.wanted, judged=False,
    )  # fmt: skip
    tell()
    found = settings(saes, {name: _l0(first, name) for name in saes})
    bases = dict(saes)
    for place, setting in enumerate(found):
        bases |= baselines(setting, about, seed + place)
    roles = dict.fromkeys(saes, Role.SAE)
    roles |= {name: role for each in found for role, name in each.baselines.items()}
    tell()
    free = {_free(name): replace(bases[name], activation=Relu()) for name in set(bases) - set(saes)}
    blind = {*free, *(set(bases) - set(saes) if given.targets is not None else ())}
    ahead = passed(
        bases | free, replace(given, layouts=None), learn,
        most=judged, centre=about.wanted, judged=False,
    )  # fmt: skip
    tell()
    after = passed(
        bases | free, given, held, most=judged, centre=about.wanted, judged=True, blind=blind
    )
    tell()
    return _Judging(given, found, bases, roles, ahead, after, by, draws, seed).done(tell)


def _free(name: str) -> str:
    """The name of a baseline all of whose features may fire."""
    return f"{name}, not limited"


def _l0(found: Passed, name: str) -> float:
    return float(found.seen[name].fired.sum()) / max(1, int(found.rows.sum()))


@dataclass(frozen=True, slots=True)
class _Judging:
    """What both passes gave, to be put together."""

    material: Material
    settings: Sequence[Setting]
    bases: Mapping[str, Sae]
    roles: Mapping[str, Role]
    learn: Passed
    held: Passed
    by: Sequence[str]
    draws: int
    seed: int

    def done(self, tell: Callable[[], None]) -> Judged:
        samples = self.material.samples
        groups = [samples[number].split_group for number in self.held.samples]
        drawn = Resampling.of(groups, self.draws, self.seed)
        tested = concepts(samples, self._used(), self.by)
        dense = self._dense(tested)
        tell()
        alike = embedded(self.material.embeddings, self.held.samples)
        table = {name: self._basis(name, tested, dense, alike, drawn) for name in self.bases}
        tell()
        told = Judged(
            column=self.material.rows.column,
            settings=tuple(self.settings),
            bases=table,
            compared=compared(self.settings, table, self.held, drawn),
            stability=self._stability(table),
            concepts=tuple(tested),
            rows=int(self.held.rows.sum()),
            samples=len(self.held.samples),
            groups=drawn.groups,
            chance=float("nan") if alike is None else level_of_chance(alike),
            embedded=self.material.embedded if alike is not None else "",
        )
        tell()
        return told

    def _used(self) -> Split:
        """The split, less samples that were not read."""
        return replace(
            self.material.split, learn=self.learn.samples, held=self.held.samples,
            alike={
                number: self.material.split.alike[number]
                for number in (*self.learn.samples, *self.held.samples)
            },
        )  # fmt: skip

    def _dense(self, tested: Sequence[Concept]) -> dict[str, float]:
        if not tested:
            return {}
        learn = pooled_rows(self.material.rows, self.learn.samples)
        held = pooled_rows(self.material.rows, self.held.samples)
        return {each.name: dense_area(each, learn, held) for each in tested}

    def _basis(
        self, name: str, tested: Sequence[Concept], dense: Mapping[str, float],
        alike: npt.NDArray[np.float32] | None, drawn: Resampling,
    ) -> Basis:  # fmt: skip
        seen, learn = self.held.seen[name], self.learn.seen[name].peaks
        rows = int(self.held.rows.sum())
        counts = self.held.spread.count.sum(0)
        x, y, both = seen.written
        return Basis(
            name=name,
            role=self.roles[name],
            sae=self.bases[name],
            explained=explained_interval(self.held, name, drawn),
            by_modality=explained(self.held, name),
            l0=_l0(self.held, name),
            density=seen.fired.sum(0) / max(1, rows),
            modality_density={
                modality: seen.fired[kind] / counts[kind]
                for kind, modality in enumerate(MODALITIES)
                if self.held.modalities and counts[kind]
            },
            rows=rows,
            cosine=float(both / np.sqrt(x * y)) if x * y > 0 else float("nan"),
            shrinkage=float(np.sqrt(y / x)) if x > 0 else float("nan"),
            monosemanticity=None if alike is None else monosemanticity(seen.peaks.largest, alike),
            coherence=seen.coherence.value if seen.coherence.views.any() else None,
            permuted=seen.coherence.permuted if seen.coherence.views.any() else None,
            singles={each.name: singles(each, learn, seen.peaks, drawn) for each in tested},
            probed={
                each.name: probed(each, learn, seen.peaks, dense[each.name]) for each in tested
            },
            unlimited=self._unlimited(name, tested, drawn),
            learn=learn,
            held=seen.peaks,
        )

    def _unlimited(
        self, name: str, tested: Sequence[Concept], drawn: Resampling
    ) -> dict[str, Singles]:
        if self.roles[name] == Role.SAE:
            return {}
        learn, held = (part.seen[_free(name)].peaks for part in (self.learn, self.held))
        return {each.name: singles(each, learn, held, drawn) for each in tested}

    def _stability(self, table: Mapping[str, Basis]) -> tuple[Stability, ...]:
        found = []
        for setting in self.settings:
            for i, one in enumerate(setting.saes):
                for other in setting.saes[i + 1 :]:
                    a, b = (table[n].sae.W_dec[table[n].density > 0] for n in (one, other))
                    chance = by_chance(len(a), len(b), a.shape[1], self.seed)
                    exact = max(len(a), len(b)) <= EXACT
                    found.append(Stability(one, other, matched_cosine(a, b), chance, exact))
        return tuple(found)
