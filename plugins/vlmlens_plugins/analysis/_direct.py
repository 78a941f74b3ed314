"""Direct readouts: answers computed from patch features at marked places, not from what is said.

"Hidden in plain sight" (arXiv 2506.08008) measures so what the eye knows: it compares patch
features at keypoints by their cosine, styles by Gram matrices, and reads depth with a trained head.
Here a linear probe stands for that head.

A sample names its method in the attribute `readout` (a key of `METHODS`), and its marks in `points`
and `regions`. The features are the image rows of any site with a patch grid: a block of the vision
tower, the projector, a block of the language model.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import torch

from vlmlens.errors import DataError, MissingAnnotation, did_you_mean
from vlmlens.samples import Sample
from vlmlens_plugins.analysis._estimates import Estimate, Resampled
from vlmlens_plugins.analysis._marked_places import (
    Patches,
    feature_at,
    features_in,
    named,
    points_of,
)
from vlmlens_plugins.analysis._statistics import generator, permutation_p
from vlmlens_plugins.analysis.probe.control_labels import shuffled_within
from vlmlens_plugins.analysis.probe.cross_validation import evaluate
from vlmlens_plugins.analysis.probe.options import ProbeOptions
from vlmlens_plugins.analysis.probe.probe_kinds import family
from vlmlens_plugins.analysis.probe.splits import assign_folds, folded
from vlmlens_plugins.analysis.probe.targets import Target, numbered

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]
Ints = npt.NDArray[np.int64]

READOUT, REFERENCE = "readout", "reference"
"""Attributes of samples: how they are read, and the mark of what the choices are compared with."""


@dataclass(frozen=True, slots=True)
class ReadoutOptions:
    """How much is computed.

    Args:
        draws: Resamples of groups for the interval.
        shuffles: How often labels are exchanged; of a probe, each time it is trained anew.
        folds: Of the probe's cross-validation over groups.
        strengths: Inverse regularization strengths of the probe, chosen within training parts.
        seed: Of all of these.
    """

    draws: int = 2000
    shuffles: int = 99
    folds: int = 5
    strengths: tuple[float, ...] = (0.01,)
    seed: int = 0


@dataclass(frozen=True, slots=True)
class Readout:
    """What is read directly from the features of one site.

    Args:
        method: One of `METHODS`.
        answers: The answer that is read for each sample.
        right: bool `[samples]`, whether it is the label.
        accuracy: The share that is right, with its interval over groups.
        chance: The mean accuracy where labels are exchanged between groups of samples.
        p: One-sided p-value of the accuracy among those.
    """

    method: str
    answers: tuple[str, ...]
    right: Bools
    accuracy: Estimate
    chance: float
    p: float


def read_directly(
    samples: Sequence[Sample], patches: Sequence[Patches], options: ReadoutOptions | None = None
) -> Readout:
    """Read the answers of samples that are all read alike.

    Args:
        samples: With label, choices, and the attributes that their method needs.
        patches: The features of each, all of one site.
        options: How much is computed.

    Raises:
        MissingAnnotation: They have no labels, choices or method.
        DataError: Their methods differ or do not exist; points or regions cannot be used; a
            feature is not finite.
        SelectorError: No patch is at a marked place.
    """
    if not samples or len(samples) != len(patches):
        raise ValueError(f"{len(samples)} samples and the features of {len(patches)}")
    check_method(samples)
    return read_kept(samples, list(map(kept, samples, patches)), options)


def kept(sample: Sample, patches: Patches) -> npt.NDArray[Any]:
    """What its readout needs of a sample's features: a few numbers, for `read_kept`.

    Returns:
        float64 `[choices]`, a score of each; of the probe float32 `[width]`, a difference.

    Raises:
        MissingAnnotation, DataError, SelectorError: See `read_directly`.
    """
    method = str(sample.attributes[READOUT])
    if method == PROBE:
        return _difference(sample, patches)
    scores = METHODS[method](sample, patches)
    if not np.isfinite(scores).all():
        raise _not_finite(sample)
    return scores


def read_kept(
    samples: Sequence[Sample],
    numbers: Sequence[npt.NDArray[Any]],
    options: ReadoutOptions | None = None,
) -> Readout:
    """Read the answers of samples from what was kept of their features.

    Args:
        samples: As in `read_directly`.
        numbers: What `kept` gave of each, all of one site.
        options: How much is computed.

    Raises:
        MissingAnnotation, DataError: See `read_directly`.
    """
    chosen = options or ReadoutOptions()
    if not samples or len(samples) != len(numbers):
        raise ValueError(f"{len(samples)} samples and the features of {len(numbers)}")
    method = check_method(samples)
    if method == PROBE:
        return _probed(samples, np.stack(numbers), chosen)
    answers = [
        sample.choices[int(np.argmax(scores))]
        for sample, scores in zip(samples, numbers, strict=True)
    ]
    return _exchanged(method, samples, answers, chosen)


def cosine_scores(sample: Sample, patches: Patches) -> Floats:
    """float64 `[choices]`: cosine of the feature at the reference and at each choice.

    Bilinear interpolation and cosine at keypoints as in arXiv 2506.08008; the largest is the
    answer (L. Tang et al., "Emergent correspondence from image diffusion", arXiv 2306.03881).
    """
    reference = _reference(sample)
    places = named(points_of(sample), (reference, *sample.choices), sample)
    first, *others = _units([feature_at(patches, place) for place in places], sample)
    return np.array([float(first @ other) for other in others])


def oddness(sample: Sample, patches: Patches) -> Floats:
    """float64 `[choices]`: how unlike the others each is: minus the mean cosine with them."""
    places = named(points_of(sample), sample.choices, sample)
    units = np.stack(_units([feature_at(patches, place) for place in places], sample))
    cosines = units @ units.T
    np.fill_diagonal(cosines, 0)
    found: Floats = -cosines.sum(1) / max(len(places) - 1, 1)
    return found


def gram_scores(sample: Sample, patches: Patches) -> Floats:
    """float64 `[choices]`: how like the reference's Gram matrix that of each choice's region is.

    The Gram matrix of features F `[k, width]` is F'F / k (L. Gatys et al., "Image style transfer
    using convolutional neural networks", CVPR 2016). Two are compared by the cosine of their
    entries, so that a site of larger features says no more than one of small ones.
    """
    regions = features_in(patches, sample)
    wanted = (_reference(sample), *sample.choices)
    missing = [name for name in wanted if name not in regions]
    if missing:
        raise DataError(
            f"The sample {sample.id!r} has no region {missing[0]!r}.",
            subject=sample.id,
            hint=f"Its regions are {', '.join(regions) or 'none'}; the reference and each choice "
            "need one.",
        )
    grams = [(rows.T @ rows / len(rows)).ravel() for rows in (regions[name] for name in wanted)]
    first, *others = _units(grams, sample)
    return np.array([float(first @ other) for other in others])


PROBE: Final = "probe"
METHODS: Final[Mapping[str, Callable[[Sample, Patches], Floats]]] = {
    "cosine": cosine_scores,
    "gram": gram_scores,
    "odd": oddness,
}
"""By name, what gives each choice of a sample a score; `probe` is learned from all samples."""


def _probed(
    samples: Sequence[Sample], x: npt.NDArray[np.float32], options: ReadoutOptions
) -> Readout:
    """A linear probe of the difference of the features at two points, held out by group."""
    y = np.array([s.choices.index(str(s.label)) for s in samples], np.int64)
    groups = numbered([sample.split_group for sample in samples])
    classes = samples[0].choices
    fewest = min(len(np.unique(groups[y == k])) for k in range(2))
    if fewest < 2:
        raise MissingAnnotation(
            "A probe needs two groups of samples with each answer.",
            subject="label",
            hint="Give more samples.",
        )
    folds = assign_folds(y, groups, folds=min(options.folds, fewest), seed=options.seed)
    split = folded(folds)
    rng = generator(options.seed, "direct", PROBE)
    null = shuffled_within(y, groups, split.block, options.shuffles, rng)
    labels = np.concatenate([y[None], *null])
    target = Target(PROBE, tuple(samples), classes, y, groups, lambda sample: None, len(samples))
    kind = family(ProbeOptions(C=list(options.strengths)), target, options.seed)
    (found,) = evaluate([x], labels, split, kind, torch.device("cpu"))
    shares = (found.held_out == labels).mean(1)
    answers = [classes[number] for number in found.held_out[0].tolist()]
    return _readout(PROBE, samples, answers, shares[1:], options)


def _difference(sample: Sample, patches: Patches) -> npt.NDArray[np.float32]:
    """float32 `[width]`: the feature at the first choice's point minus that at the second's."""
    if len(sample.choices) != 2:
        raise DataError(
            f"The sample {sample.id!r} has {len(sample.choices)} choices; the readout `probe` "
            "compares two points.",
            subject=sample.id,
            hint="Give two choices, each with a point of its name.",
        )
    first, second = named(points_of(sample), sample.choices, sample)
    found = feature_at(patches, first) - feature_at(patches, second)
    if not np.isfinite(found).all():
        raise _not_finite(sample)
    return found.astype(np.float32)


def _exchanged(
    method: str, samples: Sequence[Sample], answers: Sequence[str], options: ReadoutOptions
) -> Readout:
    """Accuracy beside that of labels that are exchanged between groups."""
    names = sorted({choice for sample in samples for choice in sample.choices})
    y = np.array([names.index(str(sample.label)) for sample in samples], np.int64)
    said = np.array([names.index(answer) for answer in answers], np.int64)
    groups = numbered([sample.split_group for sample in samples])
    rng = generator(options.seed, "direct", method)
    one = np.zeros_like(y)
    draws = np.concatenate([*shuffled_within(y, groups, one, options.shuffles, rng)])
    return _readout(method, samples, answers, (draws == said).mean(1), options)


def _readout(
    method: str,
    samples: Sequence[Sample],
    answers: Sequence[str],
    null: Floats,
    options: ReadoutOptions,
) -> Readout:
    right = np.array([a == s.label for a, s in zip(answers, samples, strict=True)])
    groups = [sample.split_group for sample in samples]
    rng = generator(options.seed, "direct-interval")
    accuracy = Resampled(groups, options.draws, rng).share(right.astype(np.float64))
    chance, p = float(null.mean()), permutation_p(float(right.mean()), null)
    return Readout(method, tuple(answers), right, accuracy, chance, p)


def check_method(samples: Sequence[Sample]) -> str:
    """The one method of all samples.

    Raises:
        MissingAnnotation: They have no labels or choices.
        DataError: Their methods differ or do not exist.
    """
    for sample in samples:
        if sample.label not in sample.choices or len(sample.choices) < 2:
            raise MissingAnnotation(
                f"The sample {sample.id!r} has no label among two choices or more.",
                subject=sample.id,
                hint="A direct readout chooses between marked places; labels say which is right.",
            )
    methods = {str(sample.attributes.get(READOUT) or "") for sample in samples}
    known = (*METHODS, PROBE)
    if len(methods) > 1 or not methods <= set(known):
        odd = next((name for name in sorted(methods) if name not in known), "")
        raise DataError(
            f"The attribute `readout` is {', '.join(map(repr, sorted(methods)))}.",
            subject=READOUT,
            hint=did_you_mean(odd, known)
            or f"All samples need the same one of {', '.join(known)}.",
        )
    return methods.pop()


def _reference(sample: Sample) -> str:
    """The mark of what the choices are compared with."""
    name = sample.attributes.get(REFERENCE)
    if isinstance(name, str) and name:
        return name
    raise MissingAnnotation(
        f"The sample {sample.id!r} does not say what its choices are compared with.",
        subject=sample.id,
        hint="Name the mark in the attribute `reference`.",
    )


def _units(rows: Sequence[Floats], sample: Sample) -> list[Floats]:
    """The rows at length 1."""
    lengths = [float(np.linalg.norm(row)) for row in rows]
    if not all(np.isfinite(length) and length > 0 for length in lengths):
        raise _not_finite(sample)
    return [row / length for row, length in zip(rows, lengths, strict=True)]


def _not_finite(sample: Sample) -> DataError:
    return DataError(
        f"A feature of the sample {sample.id!r} at a marked place is 0 or not finite.",
        subject=sample.id,
        hint="Read another site, or load the model in float32.",
    )
