"""Circuits as files: JSON that another run can read and measure on other pairs."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from vlmlens._files import expanded, write_bytes
from vlmlens.errors import DataError, DataNotFound, SelectorError
from vlmlens.tokens import Selector
from vlmlens_plugins.analysis._attribution import Node
from vlmlens_plugins.analysis._results import slug

FORMAT = "vlmlens circuit 1"
LOGITS = "logits"


@dataclass(frozen=True, slots=True)
class SavedCircuit:
    """A circuit with its origin.

    Args:
        task: The task that it was found for.
        rows: The selectors of each group of rows.
        parts: What components could be part of it: "heads", "mlp", ...
        nodes: Its nodes.
        about: Per node, numbers by name.
        searched: Marks of the groups of pairs that it was found on, see `mark_of`.
        edges: Its measured edges: "from" and "to" as [site, rows], or "logits"; "effect".
        measured: What it keeps, on which pairs, against what.
        origin: The model, options and seed with which it was found.
    """

    task: str
    rows: Mapping[str, Sequence[str]]
    parts: Sequence[str]
    nodes: Sequence[Node]
    about: Sequence[Mapping[str, float | None]] = ()
    searched: Sequence[str] = ()
    edges: Sequence[Mapping[str, Any]] = ()
    measured: Mapping[str, Any] = field(default_factory=dict)
    origin: Mapping[str, Any] = field(default_factory=dict)

    def to_json(self) -> str:
        """The content of the file."""
        numbers = self.about or [{} for _ in self.nodes]
        nodes = [
            {"site": node.site, "rows": node.rows, **more}
            for node, more in zip(self.nodes, numbers, strict=True)
        ]
        data = {
            "format": FORMAT,
            "task": self.task,
            "rows": {name: list(parts) for name, parts in self.rows.items()},
            "parts": list(self.parts),
            "nodes": nodes,
            "searched": list(self.searched),
            "edges": list(self.edges),
            "measured": dict(self.measured),
            "origin": dict(self.origin),
        }
        return json.dumps(data, indent=1, allow_nan=False)


def save_circuits(folder: Path, circuits: Sequence[SavedCircuit]) -> list[str]:
    """Write circuits, replacing each file in one step.

    Returns:
        The names of the files, `circuit.TASK.json`; tasks with equal file names are numbered.
    """
    folder.mkdir(parents=True, exist_ok=True)
    names: list[str] = []
    for circuit in circuits:
        first = f"circuit.{slug(circuit.task)}"
        same = sum(name.startswith((f"{first}.", f"{first}_")) for name in names)
        names.append(f"{first}_{same + 1}.json" if same else f"{first}.json")
        write_bytes(folder / names[-1], circuit.to_json().encode())
    return names


def open_circuit(file: str) -> SavedCircuit:
    """A circuit that `save_circuits` wrote.

    Raises:
        DataNotFound: There is no such file.
        DataError: It holds something else.
    """
    path = expanded(file)
    if not path.is_file():
        raise DataNotFound(
            f"There is no file {file!r}.",
            subject=file,
            hint="Name a file results/circuit.*.json of a run.",
        )
    try:
        return _read(json.loads(path.read_bytes()))
    except (OSError, KeyError, TypeError, ValueError, RecursionError, SelectorError) as error:
        raise DataError(
            f"{file!r} is no circuit that the analysis circuit saved: "
            f"{type(error).__name__}: {error}.",
            subject=file,
            hint=f'Its "format" must be {FORMAT!r}; docs/circuit.md describes the rest.',
        ) from error


def _read(data: Any) -> SavedCircuit:
    if data["format"] != FORMAT:
        raise ValueError(f"its format is {data['format']!r}")
    rows = {_text(name): [_text(part) for part in parts] for name, parts in data["rows"].items()}
    for part in (part for parts in rows.values() for part in parts):
        Selector.parse(part)
    nodes = [Node(_text(one["site"]), _text(one["rows"])) for one in data["nodes"]]
    strange = [str(node) for node in nodes if node.rows not in rows]
    if strange or not nodes or len(set(nodes)) < len(nodes):
        raise ValueError(f"wrong nodes: {strange or len(nodes)}")
    parts = [_text(part) for part in data["parts"]]
    searched = [_text(mark) for mark in data["searched"]]
    return SavedCircuit(_text(data["task"]), rows, parts, nodes, searched=searched)


def _text(value: Any) -> str:
    if not isinstance(value, str) or not value:
        raise TypeError(f"{value!r} is no text")
    return value
