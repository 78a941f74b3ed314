from __future__ import annotations

from dataclasses import replace
from types import MappingProxyType

from tests._store_processes import WarmStorageTests

from vlmlens_plugins.storage.manifests import LMDB, MEMORY, SAFETENSORS, SQLITE, ZARR


class TestLmdb(WarmStorageTests):
    manifest = LMDB


class TestLmdbSmallMap(WarmStorageTests):
    """Every check again, with a memory map that has to grow, and no waiting for the disk."""

    manifest = LMDB
    options = MappingProxyType({"map_size": 1 << 16, "sync": False})


class TestSafetensors(WarmStorageTests):
    manifest = SAFETENSORS


class TestSafetensorsObjects(WarmStorageTests):
    """Through fsspec, as in an object store; its memory ends with the process."""

    manifest = replace(SAFETENSORS, offers=SAFETENSORS.offers - {"durable"})

    def location(self, folder):
        return f"safetensors+memory://{folder}/x"


class TestSqlite(WarmStorageTests):
    manifest = SQLITE


class TestZarr(WarmStorageTests):
    manifest = ZARR


class TestZarrObjects(WarmStorageTests):
    """Through fsspec, as in an object store; its memory ends with the process."""

    manifest = replace(ZARR, offers=ZARR.offers - {"durable"})

    def location(self, folder):
        return f"zarr+memory://{folder}/x"


class TestMemory(WarmStorageTests):
    manifest = MEMORY
