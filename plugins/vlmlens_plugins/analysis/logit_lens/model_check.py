"""Check before reading: do the lens and the stored rows belong to this model?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from torch import Tensor

from vlmlens.abc import ModelAdapter, Values
from vlmlens.errors import ReadoutError
from vlmlens.samples import Sample
from vlmlens.tokens import Selector
from vlmlens_plugins.analysis.logit_lens.vocabulary import Hidden, Vocabulary, tensor

_TOLERANCES: Mapping[str, float] = {"float32": 1e-3, "float16": 1e-2, "bfloat16": 5e-2}
_ROWS = 8
_LAST = Selector.parse("last")


def check_rows(
    vlm: ModelAdapter,
    vocabulary: Vocabulary,
    selector: Selector,
    samples: Sequence[Sample],
    stored: Values,
) -> float:
    """Compare the lens at the last block with the model's own logits, for a few samples.

    At the last position (where the first step is written from, too) they are what a forward pass
    gives. Of other positions, rows of the same pass are read beside the stored ones.

    Args:
        vlm: The model.
        vocabulary: Its final norm and unembedding.
        selector: Of the column.
        samples: A few samples.
        stored: The last block's column for these samples.

    Returns:
        The largest difference, relative to the largest logit.

    Raises:
        ReadoutError: It is above what the dtype explains.
    """
    site = vocabulary.readout.site
    batch = vlm.encode(samples)
    first_only = selector.steps or selector == _LAST
    rows = [each[:1] for each in stored.per_sample()] if first_only else stored.per_sample()
    if first_only:
        own = vlm.forward(batch, logits="last").logits
        assert own is not None  # noqa: S101
        pairs = [(_logits(vocabulary, np.concatenate(rows)), own.float())]
    else:
        trace = vlm.trace(batch, [site], logits="last")
        assert trace.logits is not None  # noqa: S101
        last, chosen = trace.select(f"{site}/last"), trace.select(f"{site}/{selector}")
        assert isinstance(last, Tensor)  # noqa: S101
        pairs = [(_whole(vocabulary, last), trace.logits.float())]
        pairs += [_compared(vocabulary, *each) for each in zip(rows, chosen, strict=True)]
    compute = str(vlm.describe().get("dtype", "float32"))
    allowed = max(_TOLERANCES.get(name, 1e-3) for name in (stored.dtype, compute))
    return max(_difference(site, lens, own, allowed) for lens, own in pairs)


def _compared(vocabulary: Vocabulary, stored: Hidden, fresh: Tensor) -> tuple[Tensor, Tensor]:
    """Logits of some stored rows, and of the same rows of a pass of now."""
    fresh = fresh.reshape(-1, fresh.shape[-1])
    if stored.shape != tuple(fresh.shape):
        raise _mismatch(
            vocabulary.readout.site, f"{stored.shape} stored, and {tuple(fresh.shape)} of a pass"
        )
    rows = np.unique(np.linspace(0, len(stored) - 1, _ROWS).round().astype(int))
    return _logits(vocabulary, stored[rows]), _whole(vocabulary, fresh[rows.tolist()])


def _difference(site: str, lens: Tensor, own: Tensor, allowed: float) -> float:
    lens = lens.to(own.device)
    if lens.shape != own.shape:
        raise _mismatch(site, f"{tuple(lens.shape)} logits where it has {tuple(own.shape)}")
    error = float((lens - own).abs().max() / own.abs().max().clamp(min=1e-9))
    if not error <= allowed:
        raise _mismatch(site, f"logits that are off by {error:.2g} (allowed {allowed:g})")
    return error


def _logits(vocabulary: Vocabulary, rows: Hidden) -> Tensor:
    return _whole(vocabulary, tensor(rows))


def _whole(vocabulary: Vocabulary, rows: Tensor) -> Tensor:
    return vocabulary.whole(vocabulary.norm(rows))


def _mismatch(site: str, what: str) -> ReadoutError:
    return ReadoutError(
        f"The logit lens at {site} does not give the model's own logits: {what}.",
        subject=site,
        hint="The columns were stored with another checkpoint, dtype or data, or the adapter's "
        "readout is wrong. Extract again with --fresh; if that fails too, report the adapter.",
    )
