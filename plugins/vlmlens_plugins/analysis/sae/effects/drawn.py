"""Controls: features drawn among those of equal density; a difference of means."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import numpy as np
import numpy.typing as npt
import torch

from vlmlens_plugins.analysis.sae.held import Split
from vlmlens_plugins.analysis.sae.peaks import Peaks
from vlmlens_plugins.sae import Rows, Sae

Floats = npt.NDArray[np.float64]
_NEAREST = 20
_TINY = 1e-12


def drawn_features(
    features: Sequence[int],
    learn: Peaks,
    norms: Floats,
    avoid: Collection[int],
    rng: np.random.Generator,
) -> tuple[int, ...]:
    """As many other features, each like one of the given in density and in what it writes.

    Each is drawn among the 20 features that are nearest in the logarithm of the density plus that
    of the mean length of what they write in a row.

    Args:
        features: The features to which they are a control.
        learn: What features do in the samples that are learnt from.
        norms: `[features]`: the lengths of the directions.
        avoid: Features that are not drawn.
        rng: Of the draw.

    Returns:
        Fewer, if there are not as many others that fire.
    """
    written = learn.total * norms
    left = [int(i) for i in np.flatnonzero(learn.fired) if int(i) not in avoid]
    found: list[int] = []
    for feature in features:
        pool = np.array([i for i in left if i not in found])
        if not len(pool):
            break
        away = _apart(learn.fired, pool, feature) + _apart(written, pool, feature)
        nearest = pool[np.argsort(away, kind="stable")[:_NEAREST]]
        found.append(int(rng.choice(nearest)))
    return tuple(found)


def mean_difference(
    rows: Rows, split: Split, labels: Sequence[str | None], label: str
) -> Floats | None:
    """The mean row of samples with a label less that of those with another one, float64 `[width]`.

    Rimsky et al., "Steering Llama 2 via Contrastive Activation Addition" (2023, arXiv 2312.06681).

    Args:
        rows: The rows of the column.
        split: The samples; only those that are learnt from are used.
        labels: Per sample of the run, its label.
        label: The label.

    Returns:
        None if one side has no sample, or if they do not differ.
    """
    sums, counts = np.zeros((2, rows.width)), [0, 0]
    for number in split.learn:
        known = {labels[i] for i in split.alike.get(number, (number,))} - {None}
        (part,) = rows.read([number])
        if known and len(part):
            side = int(label in known)
            sums[side] += part.double().mean(0).cpu().numpy()
            counts[side] += 1
    if not all(counts):
        return None
    found: Floats = sums[1] / counts[1] - sums[0] / counts[0]
    return found if np.isfinite(found).all() and found.any() else None


def written_size(
    sae: Sae, features: Sequence[int], parts: Sequence[torch.Tensor], to: float = 0.0
) -> float:
    """The root mean square length, over rows, of what an edit changes in a row.

    Args:
        sae: The SAE.
        features: The features that are edited.
        parts: Rows `[k, width]`.
        to: What their codes become.
    """
    total, rows = 0.0, 0
    for part in parts:
        if len(part):
            codes = sae.encode(part)[:, list(features)]
            change = ((to - codes) @ sae.W_dec[list(features)]) * sae.scale(part)
            total += float(change.double().square().sum())
            rows += len(part)
    return float(np.sqrt(total / rows)) if rows else 0.0


def _apart(values: npt.NDArray[np.generic], pool: npt.NDArray[np.int64], feature: int) -> Floats:
    logs: Floats = np.log(values.astype(np.float64) + _TINY)
    away: Floats = np.abs(logs[pool] - logs[feature])
    return away
