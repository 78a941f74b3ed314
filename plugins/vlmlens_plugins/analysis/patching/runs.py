"""The runs that are compared: the two samples of pairs, or samples with and without noise."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from vlmlens.abc import AnalysisContext
from vlmlens.errors import MissingAnnotation, SpecError
from vlmlens.pairs import Pair, aligned, pairs_of, said
from vlmlens.samples import Sample
from vlmlens.tokens import Selector
from vlmlens_plugins.analysis._sweeps import Cell, Change, Item, Swept, sweep
from vlmlens_plugins.analysis._sweeps.sweeping import PairOptions, spreads
from vlmlens_plugins.analysis._sweeps.work import CellOptions
from vlmlens_plugins.analysis._tasks import ALL
from vlmlens_plugins.analysis.patching.options import PatchingOptions

_T = TypeVar("_T")
Floats = npt.NDArray[np.float64]
DENOISE, NOISE, TRACE = "denoise", "noise", "trace"


def directions(options: PatchingOptions) -> tuple[str, ...]:
    """The directions of the options, by name."""
    if options.mode == "trace":
        return (TRACE,)
    return (DENOISE, NOISE) if options.direction == "both" else (options.direction,)


def usable_pairs(context: AnalysisContext, options: PairOptions) -> list[Pair]:
    """The first pairs of each task that differ, are aligned, and are answered as they should be.

    Raises:
        MissingAnnotation: There is none.
    """
    vlm = context.model()
    pairs, dropped = pairs_of(context.samples)
    pairs, more = aligned(vlm, pairs, batch_size=context.batch_size)
    _warn(context, said([*dropped, *more], len(pairs) + len(dropped) + len(more)))
    pairs = _first(pairs, [pair.task or ALL for pair in pairs], options.samples)
    if pairs:
        pairs = _answered(context, pairs, options)
    if not pairs:
        raise MissingAnnotation(
            "No pair is left to patch.",
            subject="pair",
            hint="The warnings say why each is left out. min_difference=0 keeps weak ones.",
        )
    return pairs


def _answered(context: AnalysisContext, pairs: Sequence[Pair], options: PairOptions) -> list[Pair]:
    """Those in each of whose runs the right one of the two answers is preferred, and clearly."""
    base = sweep(context, items_of(pairs, DENOISE), [Cell(())], options)
    clean, corrupted = base.difference("donor")[0], base.difference()[0]
    right, moved = clean > 0, corrupted < 0
    far = clean - corrupted >= options.min_difference
    fine = dict(zip((item.target.id for item in base.items), right & moved & far, strict=True))
    reasons = {
        "the clean sample makes the other's answer more probable": ~right,
        "the corrupted sample makes the other's answer more probable": right & ~moved,
        f"the logit differences are closer than {options.min_difference:g}": right & moved & ~far,
    }
    left_out = sum(int(which.sum()) for which in reasons.values())
    counts = [f"in {int(which.sum())} {why}" for why, which in reasons.items() if which.any()]
    if left_out:
        verb = "is" if left_out == 1 else "are"
        _warn(context, f"{left_out} of {len(pairs)} pairs {verb} left out: {'; '.join(counts)}.")
    return [pair for pair in pairs if fine.get(pair.corrupted.id)]


def items_of(pairs: Sequence[Pair], direction: str) -> list[Item]:
    """Items whose target is the corrupted sample (denoise), or the clean one (noise)."""
    return [
        Item(
            pair.corrupted if direction == DENOISE else pair.clean,
            pair.answers,
            donor=pair.clean if direction == DENOISE else pair.corrupted,
            group=pair.group,
            task=pair.task or ALL,
        )
        for pair in pairs
    ]


def noise_place(text: str) -> str:
    """The site in SITE/SELECTOR.

    Raises:
        SpecError: It has another form.
        SelectorError: The part behind the / is no selector.
    """
    site, slash, selector = text.partition("/")
    if not (site and slash and selector):
        raise SpecError(
            f"noise_at is {text!r}, which is no SITE/SELECTOR.",
            subject="noise_at",
            hint="For example --set analysis.patching.noise_at=projector/image.",
        )
    Selector.parse(selector)
    return site


def traced(context: AnalysisContext, options: PatchingOptions) -> tuple[list[Item], CellOptions]:
    """Items of causal tracing: each sample with noise, whose donor is the sample without.

    Raises:
        MissingAnnotation: No sample has a label, or none is answered right.
    """
    labelled = labelled_clean(context.samples)
    seeing = with_noise_rows(labelled, options.noise_at)
    if len(seeing) < len(labelled):
        missing = len(labelled) - len(seeing)
        _warn(context, f"{missing} of {len(labelled)} samples are left out: they have no image.")
    labelled = seeing
    chosen = _first(labelled, [sample.task or ALL for sample in labelled], options.samples)
    if not chosen:
        raise MissingAnnotation(
            "Causal tracing follows the right answer, and no sample has one.",
            subject="label",
            hint="Give the samples labels.",
        )
    plain = [_item(sample, ()) for sample in chosen]
    base = sweep(context, plain, [Cell(())], options)
    right = [item.target for item, fine in zip(base.items, base.says(0)[0], strict=True) if fine]
    if len(right) < len(chosen):
        wrong = len(chosen) - len(right)
        _warn(context, f"{wrong} of {len(chosen)} samples are left out: answered wrong.")
    if not right:
        raise MissingAnnotation(
            "No sample is answered right, so there is nothing to trace.",
            subject="label",
            hint="Choose samples that the model can answer.",
        )
    named = spreads(context, right, [options.noise_at], deviations=True)
    items = []
    for draw in range(context.seed, context.seed + options.noises):
        under = (Change(f"{options.noise_at} = noise({options.sigma:g}, {draw})"),)
        items += [_item(sample, under) for sample in right]
    return items, named


def _item(sample: Sample, under: tuple[Change, ...]) -> Item:
    donor = sample if under else None
    task = sample.task or ALL
    return Item(sample, (str(sample.label),), donor, sample.split_group, task, under)


def labelled_clean(samples: Sequence[Sample]) -> list[Sample]:
    """Samples with a label; of pairs, the clean ones."""
    return [sample for sample in samples if sample.label and _is_clean(sample)]


def with_noise_rows(samples: Sequence[Sample], noise_at: str) -> list[Sample]:
    """Those with an image, where the rows that get noise are of the image."""
    of_image = noise_at.partition("/")[2].startswith("image")
    return [sample for sample in samples if sample.images or not of_image]


def _is_clean(sample: Sample) -> bool:
    return sample.attributes.get("role") != "corrupted"


def moved(swept: Swept, direction: str) -> tuple[Floats, Floats]:
    """What the cells changed `[cells, items]`, and what a whole exchange would `[items]`.

    In logit differences; for causal tracing in probabilities.
    """
    value = swept.probability if direction == TRACE else swept.difference
    base = value("base")
    return value("edited") - base, (value("donor") - base)[0]


def _first(things: Sequence[_T], tasks: Sequence[str], most: int) -> list[_T]:
    """At most so many of each task, the first ones."""
    seen: dict[str, int] = {}
    kept = []
    for thing, task in zip(things, tasks, strict=True):
        seen[task] = seen.get(task, 0) + 1
        if seen[task] <= most:
            kept.append(thing)
    return kept


def _warn(context: AnalysisContext, message: str) -> None:
    if message:
        context.warn(message)
