"""What is measured of the model in one state: as it is, or with one component tuned."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from vlmlens.abc import AnalysisContext, ModelAdapter, WorkUnit
from vlmlens.abc.unit_batches import run_here
from vlmlens.errors import VlmlensError
from vlmlens.samples import Sample
from vlmlens_plugins.analysis._key_regions import Names, key_regions
from vlmlens_plugins.analysis._maps.attending import attention_sites
from vlmlens_plugins.analysis._tuning.dividing import Divided
from vlmlens_plugins.analysis._tuning.measuring import Examiner
from vlmlens_plugins.analysis.attention.work import ShareWork
from vlmlens_plugins.analysis.bottleneck.options import BottleneckOptions
from vlmlens_plugins.analysis.bottleneck.work import STAGES, StageOptions, Stages
from vlmlens_plugins.analysis.probe.cross_validation import evaluate
from vlmlens_plugins.analysis.probe.options import ProbeOptions
from vlmlens_plugins.analysis.probe.probe_kinds import family
from vlmlens_plugins.analysis.probe.splits import across, assign_folds, folded
from vlmlens_plugins.analysis.probe.targets import Target, numbered

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]
_FOLDS = 4


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What one state of the model does with the tested questions.

    Args:
        right: Per tested sample, whether the answer from the image is right.
        blind: Whether the one without it is.
        said: The blind answers: with what the model answers unseen.
        read: By stage, per tested sample, whether a probe reads the label; it learned from the
            training samples.
        sites: By stage, where the probe reads.
        region: Per tested sample, the share of the answering row's attention that falls on the key
            region, mean over heads and blocks; empty where that is not known.
        area: The same share if attention were spread over all places of the region alike.
    """

    right: Sequence[bool]
    blind: Sequence[bool]
    said: Sequence[str]
    read: Mapping[str, Sequence[bool]]
    sites: Mapping[str, str]
    region: Sequence[float | None]
    area: Sequence[float | None]

    def to_json(self) -> dict[str, Any]:
        """As JSON-ready data."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Snapshot:
        """From what `to_json` gave."""
        return cls(**data)


def snapshot(
    context: AnalysisContext, vlm: ModelAdapter, parts: Divided, options: BottleneckOptions
) -> Snapshot:
    """Measure the model in its present state.

    Args:
        context: Of the analysis.
        vlm: The model, perhaps with something that is attached to it.
        parts: The samples.
        options: Of the analysis.
    """
    known = [*parts.train, *parts.held, *parts.test]
    examiner = Examiner(
        context,
        vlm,
        parts.test,
        known,
        max_new_tokens=options.max_new_tokens,
        rule=options.rule,
        blank=options.blank,
    )
    seeing, unseeing = examiner.ask(), examiner.ask(blind=True)
    read, sites = _stages(vlm, parts, options, context.seed, context.batch_size)
    region, area = _attention(vlm, parts.test, context.batch_size)
    return Snapshot(
        [right == 1 for right in seeing.right.tolist()],
        [right == 1 for right in unseeing.right.tolist()],
        unseeing.texts,
        {stage: hits.tolist() for stage, hits in read.items()},
        sites,
        region,
        area,
    )


def _run(vlm: ModelAdapter, work: Any, units: Sequence[WorkUnit], size: int) -> list[Any]:
    """Results that are not kept by content: nothing there says what is attached to the model."""
    return run_here(
        vlm, work, units, size, warn=lambda text: None, progress=lambda done, total: None
    )


def _stages(
    vlm: ModelAdapter, parts: Divided, options: BottleneckOptions, seed: int, size: int
) -> tuple[dict[str, Bools], dict[str, str]]:
    """By stage, what a probe reads of the tested samples, and where."""
    work = Stages(StageOptions(tower_depths=options.tower_depths, depths=options.depths))
    samples = [*parts.train, *parts.held, *parts.test]
    states = _run(vlm, work, [WorkUnit(sample) for sample in samples], size)
    labels = [str(sample.label) for sample in samples]
    hits, sites = {}, {}
    for stage in STAGES:
        if all(stage in each for each in states):
            columns = {
                site: np.array([each[stage][site] for each in states], np.float32)
                for site in states[0][stage]
            }
            hits[stage], sites[stage] = read_off(
                columns, labels, samples, len(parts.train) + len(parts.held), options, seed
            )
    return hits, sites


def read_off(
    columns: Mapping[str, npt.NDArray[np.float32]],
    labels: Sequence[str],
    samples: Sequence[Sample],
    first: int,
    options: BottleneckOptions,
    seed: int,
) -> tuple[Bools, str]:
    """What the best probe reads of the later samples; it learned from the first ones alone.

    Site and strength are chosen by cross-validation among the first ones.

    Args:
        columns: By site, float32 `[samples, width]`.
        labels: Of each sample.
        samples: All samples; those to learn from come first.
        first: How many these are.
        options: Strengths.
        seed: Of folds.

    Returns:
        Bool `[samples - first]`, whether it is right; and the site.
    """
    classes = tuple(sorted(set(labels)))
    y = np.array([classes.index(label) for label in labels], np.int64)
    groups = numbered([sample.split_group for sample in samples])
    target = Target("label", tuple(samples), classes, y, groups, lambda one: None, len(samples))
    fold = assign_folds(y[:first], groups[:first], folds=_folds(y[:first]), seed=seed)
    best = (-1.0, "", 0.0)
    for site, rows in columns.items():
        for strength in options.C:
            kind = family(ProbeOptions(C=[strength]), target, seed)
            found = _held_out(rows[:first], y[:first], folded(fold), kind)
            best = max(best, (float((found == y[:first]).mean()), site, strength))
    _, site, strength = best
    kind = family(ProbeOptions(C=[strength]), target, seed)
    found = _held_out(columns[site], y, across(first, groups), kind)
    hits: Bools = (found == y)[first:]
    return hits, site


def _held_out(rows: npt.NDArray[np.float32], y: Any, split: Any, kind: Any) -> Any:
    return evaluate([rows], y[None], split, kind, torch.device("cpu"))[0].held_out[0]


def _folds(y: npt.NDArray[np.int64]) -> int:
    return max(2, min(_FOLDS, int(np.bincount(y)[np.unique(y)].min())))


def regions_known(samples: Sequence[Sample]) -> list[Names]:
    """The key regions of samples; none of any where they cannot be told."""
    try:
        return key_regions(samples, None)
    except VlmlensError:
        return [() for _ in samples]


def _attention(
    vlm: ModelAdapter, samples: Sequence[Sample], size: int
) -> tuple[list[float | None], list[float | None]]:
    """Per sample, the share on the key region; and that of its shape at any place."""
    regions = regions_known(samples)
    if not any(regions):
        return [], []
    try:
        attention_sites(vlm)
    except VlmlensError:
        return [], []
    units = [
        WorkUnit(sample, {"region": list(own), "others": []})
        for sample, own in zip(samples, regions, strict=True)
    ]
    told = _run(vlm, ShareWork(), units, size)
    return [_mean(one["region"]) for one in told], [_mean(one["elsewhere"]) for one in told]


def _mean(blocks: Sequence[Sequence[float]]) -> float | None:
    values = np.array([value for heads in blocks for value in heads], np.float64)
    known = values[np.isfinite(values)]
    return float(known.mean()) if len(known) else None
