"""Extraction as users run it: an `Extraction` with the usual extractor, into a store or not."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from vlmlens import ModelAdapter
    from vlmlens.extraction.extraction import Extraction
    from vlmlens.samples import Sample

POOLED = ("vision.block.*/image.mean", "projector/image.mean", "llm.block.*/last")
"""One row per sample at every site that has some by default."""


def extraction(
    vlm: ModelAdapter,
    samples: Sequence[Sample],
    sites: Sequence[str],
    *,
    batch_size: int | str,
    share: bool = False,
    kind: type[Extraction] | None = None,
    warn: Callable[[str], None] = lambda text: None,
) -> Extraction:
    """An extraction of some columns.

    Args:
        vlm: The model.
        samples: The samples.
        sites: Columns, as for `--sites`.
        batch_size: Samples per batch, or "auto".
        share: Whether samples with the same picture share what they have in common.
        kind: A subclass of `Extraction`.
        warn: Called with what the user should know.
    """
    from vlmlens.extraction.extraction import Extraction
    from vlmlens_plugins.extract.activations import ActivationExtractor

    extractor = ActivationExtractor(vlm, tuple(sites), ActivationExtractor.Options())
    return (kind or Extraction)(vlm, extractor, samples, batch_size, share, warn)


def extracted(work: Extraction) -> dict[str, list[torch.Tensor]]:
    """The columns of an extraction, which are not stored: float32 rows for each sample."""
    found: dict[str, dict[int, torch.Tensor]] = {name: {} for name in work.extractor.columns()}
    for numbers, values in work.columns(work.units()):
        for name, value in values.items():
            parts = (torch.from_numpy(part.copy()) for part in value.per_sample())
            found[name] |= dict(zip(numbers, parts, strict=True))
    return {name: [each[i] for i in range(len(work.samples))] for name, each in found.items()}


def store_all(work: Extraction, folder: Path, *, open_store: Any) -> None:
    """Run an extraction into a new store."""
    columns = tuple(work.extractor.columns())
    with open_store(folder) as store:
        work.run(store, [columns] * len(work.samples), lambda done: None)


def lmdb_store(folder: Path) -> Any:
    """An LMDB store in a folder, opened for writing."""
    from vlmlens.registry import Registry
    from vlmlens.stores.opening import open_named

    return open_named(Registry.default(), "lmdb", str(folder), mode="a")
