"""Conformance tests of the built-in interventions."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from vlmlens.abc.storage import ColumnBlock, Values
from vlmlens.manifest import Manifest
from vlmlens.registry import Registry
from vlmlens.stores.opening import open_named
from vlmlens.testing import InterventionTests
from vlmlens_plugins.edits import manifests
from vlmlens_plugins.sae import Sae, save_sae


class ZeroChecks(InterventionTests):
    """Zeros."""

    manifest: ClassVar[Manifest] = manifests.ZERO


class ScaleChecks(InterventionTests):
    """Half of the rows, the default."""

    manifest: ClassVar[Manifest] = manifests.SCALE


class NoiseChecks(InterventionTests):
    """Three standard deviations, the default."""

    manifest: ClassVar[Manifest] = manifests.NOISE


class MeanChecks(InterventionTests):
    """The mean over the samples."""

    manifest: ClassVar[Manifest] = manifests.MEAN


class _StoredChecks(InterventionTests):
    """What a store has takes the place of the samples."""

    def values(self, folder: Path) -> Mapping[str, Any]:
        """See `InterventionTests.values`."""
        place = folder / "stored"
        if not place.exists():
            rows = np.cos(np.arange(96, dtype=np.float32)).reshape(3, 32)
            with open_named(Registry.default(), "lmdb", str(place), mode="a") as store:
                store.write(ColumnBlock(("a",), {"x/all": Values(rows, "float32", (3,))}))
        return {"column": f"{place}@x/all"}


class StoredNoiseChecks(_StoredChecks):
    """In units of a stored spread."""

    manifest: ClassVar[Manifest] = manifests.NOISE


class StoredMeanChecks(_StoredChecks):
    """A stored mean."""

    manifest: ClassVar[Manifest] = manifests.MEAN


class ResampleChecks(InterventionTests):
    """Rows of a random sample."""

    manifest: ClassVar[Manifest] = manifests.RESAMPLE


class PatchChecks(InterventionTests):
    """Rows of the next sample."""

    manifest: ClassVar[Manifest] = manifests.PATCH


class _DirectionChecks(InterventionTests):
    """A direction of width 32, the tiny model's."""

    more: ClassVar[Mapping[str, Any]] = {}

    def values(self, folder: Path) -> Mapping[str, Any]:
        """See `InterventionTests.values`."""
        path = folder / "direction.npy"
        np.save(path, np.cos(np.arange(32, dtype=np.float32)))
        return {"file": str(path), **self.more}


class AddChecks(_DirectionChecks):
    """Steering."""

    manifest: ClassVar[Manifest] = manifests.ADD


class ProjectOutChecks(_DirectionChecks):
    """Without the direction."""

    manifest: ClassVar[Manifest] = manifests.PROJECT_OUT


class ClampChecks(_DirectionChecks):
    """The coordinate is set."""

    manifest: ClassVar[Manifest] = manifests.CLAMP
    more: ClassVar[Mapping[str, Any]] = {"low": 5.0, "high": 5.0}


class _SaeChecks(InterventionTests):
    """An SAE of the tiny model's width, whose features fire in about half of the rows."""

    more: ClassVar[Mapping[str, Any]] = {"feature": "1+2+5+8"}

    def values(self, folder: Path) -> Mapping[str, Any]:
        """See `InterventionTests.values`."""
        import torch

        place = folder / "sae"
        if not place.exists():
            numbers = torch.arange(32.0 * 12).reshape(32, 12).cos()
            save_sae(place, Sae(numbers, torch.zeros(12), numbers.T / 4, torch.zeros(32)))
        return {"file": str(place), **self.more}


class SaeAblateChecks(_SaeChecks):
    """Without four features."""

    manifest: ClassVar[Manifest] = manifests.SAE_ABLATE


class SaeAblateWithoutErrorChecks(_SaeChecks):
    """Without four features, and without what the SAE does not reconstruct."""

    manifest: ClassVar[Manifest] = manifests.SAE_ABLATE
    more: ClassVar[Mapping[str, Any]] = {"feature": "1+2", "error": False}


class SaeClampChecks(_SaeChecks):
    """Features that fire in every row."""

    manifest: ClassVar[Manifest] = manifests.SAE_CLAMP
    more: ClassVar[Mapping[str, Any]] = {"feature": "3", "value": 4.0}


class SaeScaleChecks(_SaeChecks):
    """Half of the codes, the default."""

    manifest: ClassVar[Manifest] = manifests.SAE_SCALE


class SaeSteerChecks(_SaeChecks):
    """A direction is added."""

    manifest: ClassVar[Manifest] = manifests.SAE_STEER


class SaeReconstructChecks(_SaeChecks):
    """What the SAE leaves."""

    manifest: ClassVar[Manifest] = manifests.SAE_RECONSTRUCT
    more: ClassVar[Mapping[str, Any]] = {}


ZERO_CHECKS = (ZeroChecks,)
SCALE_CHECKS = (ScaleChecks,)
NOISE_CHECKS = (NoiseChecks, StoredNoiseChecks)
MEAN_CHECKS = (MeanChecks, StoredMeanChecks)
RESAMPLE_CHECKS = (ResampleChecks,)
PATCH_CHECKS = (PatchChecks,)
ADD_CHECKS = (AddChecks,)
PROJECT_OUT_CHECKS = (ProjectOutChecks,)
CLAMP_CHECKS = (ClampChecks,)
SAE_ABLATE_CHECKS = (SaeAblateChecks, SaeAblateWithoutErrorChecks)
SAE_CLAMP_CHECKS = (SaeClampChecks,)
SAE_SCALE_CHECKS = (SaeScaleChecks,)
SAE_STEER_CHECKS = (SaeSteerChecks,)
SAE_RECONSTRUCT_CHECKS = (SaeReconstructChecks,)
