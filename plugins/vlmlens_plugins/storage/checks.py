"""The conformance kit over the storage backends that ship with vlmlens."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, ClassVar

from vlmlens.manifest import Manifest
from vlmlens.testing import StorageTests
from vlmlens_plugins.storage.manifests import LMDB, MEMORY


class LmdbChecks(StorageTests):
    """LMDB as users get it."""

    manifest: ClassVar[Manifest] = LMDB


class LmdbSmallMapChecks(StorageTests):
    """LMDB with a memory map that has to grow, and no waiting for the disk."""

    manifest: ClassVar[Manifest] = LMDB
    options: ClassVar[Mapping[str, Any]] = MappingProxyType({"map_size": 1 << 16, "sync": False})


class MemoryChecks(StorageTests):
    """Memory."""

    manifest: ClassVar[Manifest] = MEMORY


LMDB_CHECKS = (LmdbChecks, LmdbSmallMapChecks)
MEMORY_CHECKS = (MemoryChecks,)
