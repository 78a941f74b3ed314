from __future__ import annotations

from dataclasses import replace
from types import MappingProxyType

from vlmlens.testing import StorageTests
from vlmlens_plugins.storage.manifests import LMDB, MEMORY, SAFETENSORS, SQLITE, ZARR


class TestLmdb(StorageTests):
    manifest = LMDB


class TestLmdbSmallMap(StorageTests):
    """Every check again, with a memory map that has to grow, and no waiting for the disk."""

    manifest = LMDB
    options = MappingProxyType({"map_size": 1 << 16, "sync": False})


class TestSafetensors(StorageTests):
    manifest = SAFETENSORS


class TestSafetensorsObjects(StorageTests):
    """Through fsspec, as in an object store; its memory ends with the process."""

    manifest = replace(SAFETENSORS, offers=SAFETENSORS.offers - {"durable"})

    def location(self, folder):
        return f"safetensors+memory://{folder}/x"


class TestSqlite(StorageTests):
    manifest = SQLITE


class TestZarr(StorageTests):
    manifest = ZARR


class TestZarrObjects(StorageTests):
    """Through fsspec, as in an object store; its memory ends with the process."""

    manifest = replace(ZARR, offers=ZARR.offers - {"durable"})

    def location(self, folder):
        return f"zarr+memory://{folder}/x"


class TestMemory(StorageTests):
    manifest = MEMORY
