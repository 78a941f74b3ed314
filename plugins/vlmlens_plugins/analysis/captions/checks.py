"""The conformance kit for captions."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Any, ClassVar

import numpy as np

from vlmlens.manifest import Manifest
from vlmlens.testing import AnalysisTests, Planted, Signal
from vlmlens.testing.planting import in_columns
from vlmlens_plugins.analysis.manifests import CAPTIONS

_NAMES = ("red cube", "blue cone", "green sphere", "gray cone")


class CaptionsChecks(AnalysisTests):
    """Whether texts name what is in their own picture.

    - present: they name the picture's object.
    - absent: they name a random object.
    - confounded: all name the same object, which is in most pictures.
    """

    manifest: ClassVar[Manifest] = CAPTIONS
    options: ClassVar[Mapping[str, Any]] = MappingProxyType({"texts": "caption", "draws": 200})

    def planted(self, signal: Signal) -> Planted:
        """See `AnalysisTests.planted`."""
        rng = np.random.default_rng(0)
        shares = [0.7, 0.1, 0.1, 0.1] if signal == "confounded" else None
        data = replace(in_columns("present", samples=60), model=None)
        samples = []
        for sample in data.samples:
            there, other = rng.choice(_NAMES, 2, p=shares).tolist()
            said = {"present": there, "absent": other, "confounded": _NAMES[0]}[signal]
            about = {"objects": json.dumps([there]), "caption": f"There is a {said}."}
            samples.append(replace(sample, attributes=about))
        return replace(data, samples=samples)


CAPTIONS_CHECKS = (CaptionsChecks,)
