"""The conformance kit over the storage backends that ship with vlmlens."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any, ClassVar

from vlmlens.manifest import Manifest
from vlmlens.testing import StorageTests
from vlmlens_plugins.storage.manifests import LMDB, MEMORY, SAFETENSORS, SQLITE, ZARR


class LmdbChecks(StorageTests):
    """LMDB as users get it."""

    manifest: ClassVar[Manifest] = LMDB


class LmdbSmallMapChecks(StorageTests):
    """LMDB with a memory map that has to grow, and no waiting for the disk."""

    manifest: ClassVar[Manifest] = LMDB
    options: ClassVar[Mapping[str, Any]] = MappingProxyType({"map_size": 1 << 16, "sync": False})


class SafetensorsChecks(StorageTests):
    """safetensors files in a local folder."""

    manifest: ClassVar[Manifest] = SAFETENSORS


class SafetensorsObjectChecks(StorageTests):
    """safetensors files through fsspec, as in an object store; gone when the process ends."""

    manifest: ClassVar[Manifest] = replace(SAFETENSORS, offers=SAFETENSORS.offers - {"durable"})

    def location(self, folder: Path) -> str:
        """A place in fsspec's memory."""
        return f"safetensors+memory://{folder}/columns"


class SqliteChecks(StorageTests):
    """SQLite as users get it."""

    manifest: ClassVar[Manifest] = SQLITE


class ZarrChecks(StorageTests):
    """Zarr in a local folder."""

    manifest: ClassVar[Manifest] = ZARR


class ZarrObjectChecks(StorageTests):
    """Zarr through fsspec, as in an object store; what is there ends with the process."""

    manifest: ClassVar[Manifest] = replace(ZARR, offers=ZARR.offers - {"durable"})

    def location(self, folder: Path) -> str:
        """A place in fsspec's memory."""
        return f"zarr+memory://{folder}/columns"


class MemoryChecks(StorageTests):
    """Memory."""

    manifest: ClassVar[Manifest] = MEMORY


LMDB_CHECKS = (LmdbChecks, LmdbSmallMapChecks)
SAFETENSORS_CHECKS = (SafetensorsChecks, SafetensorsObjectChecks)
SQLITE_CHECKS = (SqliteChecks,)
ZARR_CHECKS = (ZarrChecks, ZarrObjectChecks)
MEMORY_CHECKS = (MemoryChecks,)
