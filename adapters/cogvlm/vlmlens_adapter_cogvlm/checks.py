"""The conformance kit on a tiny CogVLM in its own layout."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

from vlmlens.manifest import Manifest
from vlmlens.testing import AdapterTests
from vlmlens_adapter_cogvlm.manifest import MANIFEST
from vlmlens_adapter_cogvlm.tiny import write_checkpoint


class CogVLMChecks(AdapterTests):
    """CogVLM with transformers' usual attention."""

    manifest: ClassVar[Manifest] = MANIFEST

    def build(self, folder: Path) -> None:
        """See `AdapterTests.build`."""
        write_checkpoint(folder)


class CogVLMEagerChecks(CogVLMChecks):
    """The same with eager attention."""

    attention: ClassVar[str | None] = "eager"


CHECKS = (CogVLMChecks, CogVLMEagerChecks)
