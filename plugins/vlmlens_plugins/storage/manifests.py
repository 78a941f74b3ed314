"""The cards of the storage backends that ship with vlmlens."""

from vlmlens.manifest import Manifest, PluginKind

LMDB = Manifest(
    kind=PluginKind.STORAGE,
    name="lmdb",
    target="vlmlens_plugins.storage.lmdb:LmdbStore",
    help="One LMDB environment per run: crash-safe, one writer, many readers.",
    offers=frozenset({"ragged", "durable"}),
    requires=("lmdb",),
    checks="vlmlens_plugins.storage.checks:LMDB_CHECKS",
)

SAFETENSORS = Manifest(
    kind=PluginKind.STORAGE,
    name="safetensors",
    target="vlmlens_plugins.storage.safetensors:SafetensorsStore",
    help="safetensors files and one index, in a folder or an object store, for many writers.",
    offers=frozenset({"ragged", "durable", "parts"}),
    requires=("fsspec",),
    checks="vlmlens_plugins.storage.checks:SAFETENSORS_CHECKS",
)

SQLITE = Manifest(
    kind=PluginKind.STORAGE,
    name="sqlite",
    target="vlmlens_plugins.storage.sqlite:SqliteStore",
    help="One SQLite file with VLM-Lens's table: its probe can read it. Also reads its databases.",
    offers=frozenset({"ragged", "durable", "samples"}),
    aliases=("db", "sqlite3"),
    checks="vlmlens_plugins.storage.checks:SQLITE_CHECKS",
)

ZARR = Manifest(
    kind=PluginKind.STORAGE,
    name="zarr",
    target="vlmlens_plugins.storage.zarr:ZarrStore",
    help="Zarr v3 arrays in a folder or an object store, one per column. Needs the extra zarr.",
    offers=frozenset({"ragged", "durable"}),
    requires=("zarr", "fsspec"),
    checks="vlmlens_plugins.storage.checks:ZARR_CHECKS",
)

MEMORY = Manifest(
    kind=PluginKind.STORAGE,
    name="memory",
    target="vlmlens_plugins.storage.memory:MemoryStore",
    help="In this process's memory: for tests; gone when the process ends.",
    offers=frozenset({"ragged"}),
    checks="vlmlens_plugins.storage.checks:MEMORY_CHECKS",
)
