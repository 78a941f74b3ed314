"""Removal from captions: objects that a text names and that are not there are taken out."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import numpy.typing as npt

from vlmlens.abc import AnalysisContext, WorkUnit
from vlmlens.abc.model_work import JSON
from vlmlens.results import Verdict
from vlmlens.samples import Sample
from vlmlens_plugins.analysis._statistics import generator
from vlmlens_plugins.analysis._sweeps.effects import sign_flip_p, too_few
from vlmlens_plugins.analysis._sweeps.sweeping import check_cost
from vlmlens_plugins.analysis.captions.said import Caption
from vlmlens_plugins.analysis.captions.scores import Scores, scores
from vlmlens_plugins.analysis.removal.directions import (
    Directions,
    Pictures,
    directions,
    of,
    random,
)
from vlmlens_plugins.analysis.removal.measured import KINDS, Place
from vlmlens_plugins.analysis.removal.options import RemovalOptions
from vlmlens_plugins.analysis.removal.writing import EditedOptions, EditedTexts
from vlmlens_plugins.object_names import ObjectNames

Floats = npt.NDArray[np.float64]
_FEWEST = 5
_SPARE = 16
"""So many objects of the table are there to be taken out as controls, whatever texts name."""


@dataclass(frozen=True)
class Rewritten:
    """Captions before and after an edit, of samples with at least one hallucinated object.

    Args:
        before: The captions as they were.
        after: Those under the edit.
    """

    before: Sequence[Caption]
    after: Sequence[Caption]

    @cached_property
    def counts(self) -> Floats:
        """`[samples, 5]`: hallucinated, those gone, new ones; true ones named, those lost."""
        rows = []
        for one, other in zip(self.before, self.after, strict=True):
            wrong, now = _wrong(one), _wrong(other)
            lost = one.named - other.named
            rows.append([len(wrong), len(wrong - now), len(now - wrong), len(one.named), len(lost)])
        return np.array(rows, np.float64).reshape(-1, 5)

    @property
    def gains(self) -> Floats:
        """`[samples]`: hallucinated objects that went, less new ones and true ones that went."""
        found: Floats = self.counts @ np.array([0, 1, -1, 0, -1])
        return found

    def share(self, top: int, bottom: int) -> float | None:
        """One of the counts as a share of another; None where there is nothing to divide by."""
        total = self.counts.sum(0)
        return float(total[top] / total[bottom]) if total[bottom] else None


@dataclass(frozen=True)
class Cleaned:
    """What removal did to captions.

    Args:
        options: The options.
        tried: By place, what it did on the first half.
        best: The chosen place; None: there was nothing to choose by.
        own: What it did on the second half.
        controls: By kind, what each control did there.
        before: The scores of all captions of the second half.
        after: The same, with those that the edit rewrote.
        groups: Of the rewritten captions of the second half.
        seed: Of everything random.
    """

    options: RemovalOptions
    tried: Mapping[Place, Rewritten]
    best: Place | None
    own: Rewritten
    controls: Mapping[str, Sequence[Rewritten]]
    before: Scores
    after: Scores
    groups: Sequence[str]
    seed: int

    @property
    def gain(self) -> float:
        """Objects per caption: hallucinated ones gone, less new ones and true ones lost."""
        return float(self.own.gains.mean())

    @cached_property
    def p(self) -> float:
        """Of no difference to the controls of both kinds; the larger one."""
        numbers = {name: i for i, name in enumerate(dict.fromkeys(self.groups))}
        member = np.zeros((len(self.groups), len(numbers)))
        member[np.arange(len(self.groups)), [numbers[name] for name in self.groups]] = 1
        beside = [np.mean([each.gains for each in draws], 0) for draws in self.controls.values()]
        found = sign_flip_p((self.own.gains - np.stack(beside)) @ member, generator(self.seed, "s"))
        return float(found.max())

    @property
    def verdict(self) -> Verdict:
        """Whether hallucinated objects go, and true ones not as much, beyond every control."""
        few = too_few("captions", len(set(self.groups)), 1)
        if self.best is None or few or self.own.counts[:, 0].sum() < _FEWEST:
            return Verdict.INCONCLUSIVE
        most = max(float(e.gains.mean()) for draws in self.controls.values() for e in draws)
        gone, lost = self.own.share(1, 0) or 0.0, self.own.share(4, 3) or 0.0
        works = self.p < self.options.alpha and self.gain > max(0.0, most) and gone > lost
        return Verdict.DIFFERS if works else Verdict.NO_DIFFERENCE


def cleaned(
    context: AnalysisContext,
    samples: Sequence[Sample],
    there: Mapping[str, frozenset[str]],
    names: ObjectNames,
    options: RemovalOptions,
    tried: Sequence[Place],
) -> Cleaned:
    """Write captions, choose an edit on half of the groups, and rewrite those of the other half.

    Args:
        context: The context of the analysis.
        samples: Samples whose true objects are known.
        there: Their objects, by sample id.
        names: The table of names.
        options: The options.
        tried: All places.
    """
    writer = EditedOptions(max_new_tokens=options.max_new_tokens)
    none: dict[str, JSON] = {"edit": None, "directions": []}
    texts = context.run_units(EditedTexts(writer), [WorkUnit(each, none) for each in samples])
    every = [
        Caption(sample, text, there[sample.id], names)
        for sample, text in zip(samples, texts, strict=True)
    ]
    groups = sorted({sample.split_group for sample in samples})
    order = generator(context.seed, "removal", "halves").permutation(len(groups))
    first = {groups[i] for i in order[: (len(groups) + 1) // 2]}
    in_first = [one for one in every if one.sample.split_group in first]
    halves = [in_first, [one for one in every if one.sample.split_group not in first]]
    wrong = [[c for c in half if _wrong(c)][: options.samples] for half in halves]
    before = scores("captions", halves[1], seed=context.seed, draws=options.draws)
    nothing = Rewritten((), ())
    empty = Cleaned(options, {}, None, nothing, {}, before, before, (), context.seed)
    if not all(wrong):
        return empty
    batches = sum(-(-len(half) // context.batch_size) for half in wrong)
    check_cost((len(tried) + 2 * options.controls + 1) * options.max_new_tokens, batches, options)
    spare = list(names.synonyms)[:_SPARE]
    objects = sorted({name for c in every for name in (*_wrong(c), *c.there)} | set(spare))
    pictures = Pictures(
        objects, [c.sample for c in halves[0]], lambda one, name: name in there[one.id]
    )
    sites = list(dict.fromkeys(each.site for each in tried))
    sources = list(dict.fromkeys(each.source for each in tried))
    found = directions(context, pictures, options, sites, sources)
    kept = [[c for c in half if _wrong(c) <= set(found.objects)] for half in wrong]
    if not all(kept):
        return empty
    writer = writer.model_copy(update={"directions": dict(found.vectors)})
    rewriter = _Rewriter(context, EditedTexts(writer), options, found, names)
    rewritten = {place: rewriter.rewritten(place, kept[0]) for place in tried}
    best = max(tried, key=lambda place: float(rewritten[place].gains.mean()))
    own = rewriter.rewritten(best, kept[1])
    changed = {one.sample.id: one for one in own.after}
    after = [changed.get(one.sample.id, one) for one in halves[1]]
    return replace(
        empty,
        tried=rewritten,
        best=best,
        own=own,
        controls=rewriter.controls(best, kept[1]),
        after=scores("captions", after, seed=context.seed, draws=options.draws),
        groups=[one.sample.split_group for one in kept[1]],
    )


@dataclass(frozen=True)
class _Rewriter:
    """Writes captions again while something is taken out of image rows."""

    context: AnalysisContext
    work: EditedTexts
    options: RemovalOptions
    found: Directions
    names: ObjectNames

    def rewritten(self, place: Place, captions: Sequence[Caption]) -> Rewritten:
        """Without the objects that each caption hallucinates."""
        taken = [[of(place.source, name) for name in sorted(_wrong(c))] for c in captions]
        return self._write(place, captions, taken)

    def controls(self, place: Place, captions: Sequence[Caption]) -> dict[str, list[Rewritten]]:
        """Without as many random directions, or objects that are neither named nor there."""
        made: dict[str, list[Rewritten]] = {kind: [] for kind in KINDS}
        for draw in range(self.options.controls):
            rng = generator(self.context.seed, "removal", "captions", str(draw))
            ones: list[list[str]] = []
            others: list[list[str]] = []
            for caption in captions:
                count = len(_wrong(caption))
                drawn = [(draw + k) % self.options.controls for k in range(count)]
                ones.append([random(place.source, each) for each in drawn])
                said = {mention.object for mention in caption.mentions} | caption.there
                free = self._others(said) or self._others(_wrong(caption))
                picked = rng.choice(len(free), min(count, len(free)), replace=False)
                others.append([of(place.source, free[i]) for i in picked])
            made["random"].append(self._write(place, captions, ones))
            made["other"].append(self._write(place, captions, others))
        return made

    def _others(self, but: Collection[str]) -> list[str]:
        kinds = self.names.kinds
        return [name for name in self.found.objects if not {name, kinds.get(name)} & set(but)]

    def _write(
        self, place: Place, captions: Sequence[Caption], taken: Sequence[Sequence[str]]
    ) -> Rewritten:
        out = self.options.method == "project-out"
        edit = {
            "site": place.site,
            "rows": self.options.rows,
            "how": "project-out" if out else "add",
            "strength": place.strength if out else -place.strength,
        }
        units = [
            WorkUnit(one.sample, {"edit": edit, "directions": list(names)}, repr(place))
            for one, names in zip(captions, taken, strict=True)
        ]
        texts = self.context.run_units(self.work, units)
        after = [replace(one, text=text) for one, text in zip(captions, texts, strict=True)]
        return Rewritten(captions, after)


def _wrong(caption: Caption) -> frozenset[str]:
    """The objects that a caption names and that are not there."""
    return frozenset(mention.object for mention in caption.hallucinated)
