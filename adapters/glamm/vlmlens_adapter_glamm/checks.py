"""The conformance kit on a tiny GLaMM in its own layout."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

from vlmlens.manifest import Manifest
from vlmlens.testing import AdapterTests
from vlmlens_adapter_glamm.manifest import MANIFEST
from vlmlens_adapter_glamm.tiny import write_checkpoint


class GlammChecks(AdapterTests):
    """GLaMM with transformers' usual attention, in the conversation of upstream's app."""

    manifest: ClassVar[Manifest] = MANIFEST
    attention: ClassVar[str] = "sdpa"

    def build(self, folder: Path) -> None:
        """See `AdapterTests.build`."""
        write_checkpoint(folder)

    def load(self, **settings: Any) -> Any:
        """See `AdapterTests.load`."""
        return super().load(**{"attention": self.attention, **settings})


class GlammEagerChecks(GlammChecks):
    """The same with eager attention."""

    attention: ClassVar[str] = "eager"


CHECKS = (GlammChecks, GlammEagerChecks)
