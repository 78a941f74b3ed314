from __future__ import annotations

from types import MappingProxyType

from vlmlens.testing import StorageTests
from vlmlens_plugins.storage.manifests import LMDB, MEMORY


class TestLmdb(StorageTests):
    manifest = LMDB


class TestLmdbSmallMap(StorageTests):
    """Every check again, with a memory map that has to grow, and no waiting for the disk."""

    manifest = LMDB
    options = MappingProxyType({"map_size": 1 << 16, "sync": False})


class TestMemory(StorageTests):
    manifest = MEMORY
