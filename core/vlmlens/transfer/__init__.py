"""Copying columns: between stores, to files, and back; checking all checksums.

May use runs, stores and what is below. Data is streamed, a few MiB of one column at a time. Targets
that exist are refused. Each file format is a module (`_npz`, `_parquet`, `_safetensors`, `_hdf5`,
`_npy`) with `write`, and `read` if it can be imported; add a
new one there and to `FORMATS` in `_carry`.
"""

from vlmlens.transfer._carry import (
    FORMATS,
    IMPORTED,
    Checked,
    Origin,
    bring,
    carry,
    check_all,
    origin_of,
)
from vlmlens.transfer._parts import parts_of as stored_parts

__all__ = [
    "FORMATS",
    "IMPORTED",
    "Checked",
    "Origin",
    "bring",
    "carry",
    "check_all",
    "origin_of",
    "stored_parts",
]
