"""The conformance kit on tiny checkpoints of the older generations."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import ClassVar

from vlmlens.manifest import Manifest
from vlmlens.testing import AdapterTests
from vlmlens_adapter_minicpm.manifest import MANIFEST


class MiniCpm26Checks(AdapterTests):
    """MiniCPM-V 2.6. A learned query reads a whole slice: its token has no place."""

    manifest: ClassVar[Manifest] = replace(MANIFEST, offers=MANIFEST.offers - {"patch-grid"})
    stands_for: ClassVar[str] = "openbmb/MiniCPM-V-2_6"
    generation: ClassVar[str] = "MiniCPM-V 2.6"

    def build(self, folder: Path) -> None:
        """See `AdapterTests.build`."""
        from vlmlens_adapter_minicpm.older.config import Generation
        from vlmlens_adapter_minicpm.older.tiny import write_checkpoint

        write_checkpoint(folder, Generation(self.generation))


class MiniCpmO26Checks(MiniCpm26Checks):
    """MiniCPM-o 2.6, with eager attention."""

    stands_for: ClassVar[str] = "openbmb/MiniCPM-o-2_6"
    generation: ClassVar[str] = "MiniCPM-o 2.6"
    attention: ClassVar[str | None] = "eager"


class MiniCpm2Checks(MiniCpm26Checks):
    """MiniCPM-V 2, which takes one image."""

    manifest: ClassVar[Manifest] = replace(
        MANIFEST, offers=MANIFEST.offers - {"patch-grid", "several-images"}
    )
    stands_for: ClassVar[str] = "openbmb/MiniCPM-V-2"
    generation: ClassVar[str] = "MiniCPM-V 2"


class MiniCpm2EagerChecks(MiniCpm2Checks):
    """The same with eager attention."""

    attention: ClassVar[str | None] = "eager"


CHECKS = (MiniCpm26Checks, MiniCpmO26Checks, MiniCpm2Checks, MiniCpm2EagerChecks)
