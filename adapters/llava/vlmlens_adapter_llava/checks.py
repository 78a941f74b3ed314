"""The conformance kit on a tiny LLaVA."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

from vlmlens.manifest import Manifest
from vlmlens.testing import AdapterTests
from vlmlens.testing.model import write_tiny_llava
from vlmlens_adapter_llava.manifest import MANIFEST


class LlavaChecks(AdapterTests):
    """LLaVA 1.5: CLIP, projector, Llama."""

    manifest: ClassVar[Manifest] = MANIFEST

    def build(self, folder: Path) -> None:
        """See `AdapterTests.build`."""
        write_tiny_llava(folder)


CHECKS = (LlavaChecks,)
