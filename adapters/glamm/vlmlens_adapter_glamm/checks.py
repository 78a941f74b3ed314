"""The conformance kit on a tiny GLaMM in its own layout."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

from vlmlens.manifest import Manifest
from vlmlens.testing import AdapterTests
from vlmlens_adapter_glamm.manifest import MANIFEST
from vlmlens_adapter_glamm.tiny import write_checkpoint


class GlammChecks(AdapterTests):
    """GLaMM with transformers' usual attention, in the conversation of upstream's app."""

    manifest: ClassVar[Manifest] = MANIFEST

    def build(self, folder: Path) -> None:
        """See `AdapterTests.build`."""
        write_checkpoint(folder)


class GlammEagerChecks(GlammChecks):
    """The same with eager attention."""

    attention: ClassVar[str | None] = "eager"


CHECKS = (GlammChecks, GlammEagerChecks)
