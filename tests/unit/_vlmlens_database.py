"""Databases as VLM-Lens writes them, for tests."""

from __future__ import annotations

import io
import sqlite3

import torch

SCHEMA = """CREATE TABLE IF NOT EXISTS tensors (
    id INTEGER PRIMARY KEY, name TEXT NOT NULL, architecture TEXT NOT NULL,
    timestamp DATETIME DEFAULT CURRENT_TIMESTAMP, image_path TEXT NULL, image_id INTEGER NULL,
    prompt TEXT NOT NULL, label TEXT NULL, layer TEXT NOT NULL, pooling_method TEXT NULL,
    tensor_dim INTEGER NOT NULL, tensor BLOB NOT NULL)"""


def saved(value) -> bytes:
    file = io.BytesIO()
    torch.save(value, file)
    return file.getvalue()


def make_database(path, rows, schema=SCHEMA):
    """Rows: mappings of the table's columns; "tensor" may be a tensor or bytes."""
    db = sqlite3.connect(path)
    db.execute(schema)
    for row in rows:
        whole = {
            "name": "org/model", "architecture": "llava", "image_path": None, "image_id": None,
            "prompt": "What?", "label": None, "layer": "model.layers.0", "pooling_method": None,
            **row,
        }  # fmt: skip
        blob = whole["tensor"]
        if isinstance(blob, torch.Tensor):
            whole.setdefault("tensor_dim", blob.shape[-1])
            whole["tensor"] = saved(blob)
        whole.setdefault("tensor_dim", 0)
        names = ", ".join(whole)
        marks = ", ".join("?" * len(whole))
        db.execute(f"INSERT INTO tensors ({names}) VALUES ({marks})", tuple(whole.values()))
    db.commit()
    db.close()


def probe_reads(path, layer):
    """What VLM-Lens's probe makes of a database: features and labels of a layer.

    As its `load_data` does, in our words: everything of the layer, mean over axis 1 of what has
    more than two axes, squeezed.
    """
    db = sqlite3.connect(path)
    found = db.execute("SELECT layer, tensor, label FROM tensors").fetchall()
    db.close()
    features, labels = [], []
    for name, blob, label in found:
        if name == layer:
            tensor = torch.load(io.BytesIO(blob), map_location="cpu")
            features.append((tensor.mean(dim=1) if tensor.ndim > 2 else tensor).squeeze())
            labels.append(label)
    return torch.stack(features), labels
