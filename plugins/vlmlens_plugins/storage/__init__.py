"""Storage backends that ship with vlmlens: `lmdb` (the default) and `memory`."""
