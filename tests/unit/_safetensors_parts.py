"""Opening stores of parts, and changing what a part says of itself."""

from __future__ import annotations

import json
import struct
import zlib
from types import SimpleNamespace

from vlmlens.testing._stores import expect_same, numbered
from vlmlens_plugins.storage.safetensors import SafetensorsOptions, SafetensorsStore

NAMES = ("a/last", "b/all")


def open_store(location, mode="a", **options):
    return SafetensorsStore.open(str(location), mode=mode, options=SafetensorsOptions(**options))


def open_part(location):
    return SafetensorsStore.open_part(str(location), options=SafetensorsOptions())


def open_parts(location, parts):
    return SafetensorsStore.open_parts(str(location), parts, options=SafetensorsOptions())


def check_numbered(store, count):
    for name in NAMES:
        assert store.ids(name) == [each for n in range(count) for each in numbered(n).ids]
        for number in range(count):
            wanted = numbered(number)
            expect_same(store.read(name, wanted.ids), wanted.columns[name], name)


def part_of(folder, number):
    return folder / "parts" / f"{number:08d}.safetensors"


def changed_header(path, change, *, honest=True):
    """Change a part's record; `honest`: with a right checksum."""
    data = path.read_bytes()
    end = 8 + struct.unpack("<Q", data[:8])[0]
    header = json.loads(data[8:end])
    record = json.loads(header["__metadata__"]["vlmlens"])
    change(SimpleNamespace(header=header, record=record))
    text = json.dumps(record)
    header["__metadata__"]["vlmlens"] = text
    if honest:
        header["__metadata__"]["crc32"] = str(zlib.crc32(text.encode()))
    new = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(new)) + new + data[end:])
