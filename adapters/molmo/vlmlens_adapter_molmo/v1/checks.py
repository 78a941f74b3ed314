"""The conformance kit on tiny Molmos in upstream's layout."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

from vlmlens.manifest import Manifest
from vlmlens.testing import AdapterTests
from vlmlens_adapter_molmo.v1.manifest import MANIFEST
from vlmlens_adapter_molmo.v1.tiny import Kind, write_checkpoint


class MolmoChecks(AdapterTests):
    """7B-D and 72B, with a language model like Qwen2's."""

    manifest: ClassVar[Manifest] = MANIFEST
    stands_for: ClassVar[str] = "allenai/Molmo-7B-D-0924"
    kind: ClassVar[Kind] = "qwen2"

    def build(self, folder: Path) -> None:
        """See `AdapterTests.build`."""
        write_checkpoint(folder, self.kind)


class MolmoOlmoChecks(MolmoChecks):
    """7B-O: norms of queries and keys, and norms after the networks."""

    stands_for: ClassVar[str] = "allenai/Molmo-7B-O-0924"
    kind: ClassVar[Kind] = "olmo2"


class MolmoEChecks(MolmoChecks):
    """MolmoE: a mixture of experts."""

    stands_for: ClassVar[str] = "allenai/MolmoE-1B-0924"
    kind: ClassVar[Kind] = "olmoe"


CHECKS = (MolmoChecks, MolmoOlmoChecks, MolmoEChecks)
