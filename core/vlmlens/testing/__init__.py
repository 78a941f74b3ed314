"""The conformance kit: tests for every kind of plugin, to subclass.

::

    from vlmlens.testing import StorageTests

    class TestMyStore(StorageTests):
        manifest = MY_MANIFEST

There is one module per kind: `adapter`, `analysis`, `dataset`, `engine`, `extractor`,
`intervention`, `storage`. Add a new check as a method `check_NAME` there. `check_work` checks what
an analysis has the model do. May use everything except the command line. A kit is imported when it
is first used, so importing this package is cheap.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vlmlens.testing._checks import CheckFailed, CheckResult
    from vlmlens.testing.adapter import AdapterTests
    from vlmlens.testing.analysis import AnalysisTests
    from vlmlens.testing.dataset import DatasetTests
    from vlmlens.testing.engine import EngineTests
    from vlmlens.testing.extractor import ExtractorTests
    from vlmlens.testing.intervention import InterventionTests
    from vlmlens.testing.planting import Planted, Signal
    from vlmlens.testing.storage import StorageTests
    from vlmlens.testing.work import check_work

__all__ = [
    "AdapterTests",
    "AnalysisTests",
    "CheckFailed",
    "CheckResult",
    "DatasetTests",
    "EngineTests",
    "ExtractorTests",
    "InterventionTests",
    "Planted",
    "Signal",
    "StorageTests",
    "check_work",
]

_HOMES = {
    "CheckFailed": "vlmlens.testing._checks",
    "CheckResult": "vlmlens.testing._checks",
    "AdapterTests": "vlmlens.testing.adapter",
    "AnalysisTests": "vlmlens.testing.analysis",
    "DatasetTests": "vlmlens.testing.dataset",
    "EngineTests": "vlmlens.testing.engine",
    "ExtractorTests": "vlmlens.testing.extractor",
    "InterventionTests": "vlmlens.testing.intervention",
    "Planted": "vlmlens.testing.planting",
    "Signal": "vlmlens.testing.planting",
    "StorageTests": "vlmlens.testing.storage",
    "check_work": "vlmlens.testing.work",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)
