"""The conformance kit on a tiny CogVLM in its own layout."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

from vlmlens.manifest import Manifest
from vlmlens.testing import AdapterTests
from vlmlens_adapter_cogvlm.manifest import MANIFEST
from vlmlens_adapter_cogvlm.tiny import write_checkpoint


class CogVLMChecks(AdapterTests):
    """CogVLM with transformers' usual attention."""

    manifest: ClassVar[Manifest] = MANIFEST
    attention: ClassVar[str] = "sdpa"

    def build(self, folder: Path) -> None:
        """See `AdapterTests.build`."""
        write_checkpoint(folder)

    def load(self, **settings: Any) -> Any:
        """See `AdapterTests.load`."""
        return super().load(**{"attention": self.attention, **settings})


class CogVLMEagerChecks(CogVLMChecks):
    """The same with eager attention."""

    attention: ClassVar[str] = "eager"


CHECKS = (CogVLMChecks, CogVLMEagerChecks)
