"""Storage backends that ship with vlmlens: `lmdb` (the default), `sqlite`, `zarr`, `memory`."""
