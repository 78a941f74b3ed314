"""The conformance kit over the demo adapter, whose checkpoint is small enough, and its scenes."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, ClassVar

from vlmlens.manifest import Manifest
from vlmlens.testing import AdapterTests, DatasetTests
from vlmlens_plugins.demo.adapter import CHECKPOINT
from vlmlens_plugins.demo.manifests import ADAPTER, DATASET


class DemoChecks(AdapterTests):
    """The embedded LLaVA."""

    manifest: ClassVar[Manifest] = ADAPTER

    def build(self, folder: Path) -> None:
        """See `AdapterTests.build`."""
        shutil.copytree(CHECKPOINT, folder, dirs_exist_ok=True)


class ScenesChecks(DatasetTests):
    """A few of the drawn scenes."""

    manifest: ClassVar[Manifest] = DATASET
    options: ClassVar[Mapping[str, Any]] = MappingProxyType({"scenes": 3})

    def source(self, folder: Path) -> str:
        """See `DatasetTests.source`."""
        del folder
        return "scenes"

    def broken(self, folder: Path) -> Sequence[str]:
        """See `DatasetTests.broken`."""
        del folder
        return ["", "photos"]


class PolledChecks(ScenesChecks):
    """A few pictures, asked like POPE."""

    options: ClassVar[Mapping[str, Any]] = MappingProxyType({"pictures": 2})

    def source(self, folder: Path) -> str:
        """See `DatasetTests.source`."""
        del folder
        return "pope"


class ChartsChecks(ScenesChecks):
    """A few of the drawn charts."""

    options: ClassVar[Mapping[str, Any]] = MappingProxyType({"charts": 3})

    def source(self, folder: Path) -> str:
        """See `DatasetTests.source`."""
        del folder
        return "charts"


class DepthChecks(ScenesChecks):
    """A few drawn tasks of one picture each."""

    options: ClassVar[Mapping[str, Any]] = MappingProxyType({"number": 3})

    def source(self, folder: Path) -> str:
        """See `DatasetTests.source`."""
        del folder
        return "depth"


class TextureChecks(DepthChecks):
    """A few drawn tasks of three pictures each."""

    def source(self, folder: Path) -> str:
        """See `DatasetTests.source`."""
        del folder
        return "texture"


CHECKS = (DemoChecks,)
DATASET_CHECKS = (ScenesChecks, PolledChecks, ChartsChecks, DepthChecks, TextureChecks)
