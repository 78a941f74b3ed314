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

MEMORY = Manifest(
    kind=PluginKind.STORAGE,
    name="memory",
    target="vlmlens_plugins.storage.memory:MemoryStore",
    help="In this process's memory: for tests and short looks; gone when the process ends.",
    offers=frozenset({"ragged"}),
    checks="vlmlens_plugins.storage.checks:MEMORY_CHECKS",
)
