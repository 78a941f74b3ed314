"""The conformance kit for occlusion."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, ClassVar

from vlmlens.manifest import Manifest
from vlmlens.testing import AnalysisTests
from vlmlens_plugins.analysis.manifests import OCCLUSION


class OcclusionChecks(AnalysisTests):
    """Whether the order of an occlusion map says more than a random order.

    - present: the model sees the pictures, and its answers are the labels.
    - absent, confounded: it always sees a gray picture, so that hiding pixels does nothing.
    """

    manifest: ClassVar[Manifest] = OCCLUSION
    options: ClassVar[Mapping[str, Any]] = MappingProxyType(
        {
            "samples": 12,
            "methods": ("occlusion",),
            "grid": 2,
            "window": 2,
            "insertion": "mean",
            "steps": 2,
            "cells": 2,
            "controls": 3,
            "draws": 200,
            "pictures": 1,
        }
    )


OCCLUSION_CHECKS = (OcclusionChecks,)
