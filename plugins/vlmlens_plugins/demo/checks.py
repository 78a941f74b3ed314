"""The conformance kit over the demo adapter; its checkpoint is small enough as it is."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import ClassVar

from vlmlens.manifest import Manifest
from vlmlens.testing import AdapterTests
from vlmlens_plugins.demo.adapter import CHECKPOINT
from vlmlens_plugins.demo.manifests import ADAPTER


class DemoChecks(AdapterTests):
    """The embedded LLaVA."""

    manifest: ClassVar[Manifest] = ADAPTER

    def build(self, folder: Path) -> None:
        """See `AdapterTests.build`."""
        shutil.copytree(CHECKPOINT, folder, dirs_exist_ok=True)


CHECKS = (DemoChecks,)
