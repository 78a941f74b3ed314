"""The statements that make and read the tables of a store that vlmlens wrote."""

from __future__ import annotations

from vlmlens_plugins.storage._sqlite_seal import TABLE

FORMAT = "vlmlens-columns"
VERSION = 2

TENSORS = """
CREATE TABLE tensors (
    id INTEGER PRIMARY KEY,
    name TEXT NOT NULL,
    architecture TEXT NOT NULL,
    timestamp DATETIME DEFAULT CURRENT_TIMESTAMP,
    image_path TEXT NULL,
    image_id INTEGER NULL,
    prompt TEXT NOT NULL,
    label TEXT NULL,
    layer TEXT NOT NULL,
    pooling_method TEXT NULL,
    tensor_dim INTEGER NOT NULL,
    tensor BLOB NOT NULL
)"""
BESIDE = (
    "CREATE TABLE vlmlens_record (format TEXT, version INTEGER, meta TEXT)",
    "CREATE TABLE vlmlens_columns "
    "(number INTEGER PRIMARY KEY, name TEXT UNIQUE, dtype TEXT, width INTEGER, ragged INTEGER)",
    "CREATE TABLE vlmlens_samples (number INTEGER PRIMARY KEY, id TEXT UNIQUE, record TEXT)",
    "CREATE TABLE vlmlens_values (column INTEGER, tensor INTEGER, sample INTEGER, rows INTEGER, "
    "start INTEGER, size INTEGER, crc32 INTEGER, PRIMARY KEY (column, tensor)) WITHOUT ROWID",
    "CREATE UNIQUE INDEX vlmlens_of_sample ON vlmlens_values (column, sample)",
    TABLE,
)
READ = (
    "SELECT s.id, v.tensor, v.rows, v.crc32, substr(t.tensor, v.start + 1, v.size) "
    "FROM vlmlens_values v JOIN tensors t ON t.id = v.tensor "
    "JOIN vlmlens_samples s ON s.number = v.sample "
    "WHERE v.column = ? "
)
READ_ONE = f"{READ} AND v.sample = (SELECT number FROM vlmlens_samples WHERE id = ?)"  # noqa: S608
READ_AFTER = f"{READ} AND v.tensor > ? ORDER BY v.tensor LIMIT ?"
PLACE = "SELECT tensor FROM vlmlens_values WHERE column = ? ORDER BY tensor LIMIT 1 OFFSET ?"
KNOWN = (
    "SELECT 1 FROM vlmlens_values WHERE column = ? "
    "AND sample = (SELECT number FROM vlmlens_samples WHERE id = ?)"
)
