"""The generated texts of a run: one JSON line per sample in the run's folder."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vlmlens.runs.leases import lease_plans
from vlmlens.runs.records import damaged

if TYPE_CHECKING:
    from vlmlens.abc.adapter import Generation

FILE = "generated.jsonl"


def text_records(ids: Sequence[str], texts: Sequence[Generation]) -> list[dict[str, Any]]:
    """Generated texts as JSON-ready data."""
    return [
        {"id": sample, "text": made.text, "token_ids": list(made.token_ids)}
        for sample, made in zip(ids, texts, strict=True)
    ]


def text_lines(records: Iterable[Mapping[str, Any]]) -> str:
    """Records of generated texts as lines of JSON."""
    return "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records)


def _is_whole(record: Any) -> bool:
    return isinstance(record, dict) and all(isinstance(record.get(k), str) for k in ("id", "text"))


class GeneratedTexts:
    """The texts that a model generated for the samples of a run.

    Args:
        folder: The run's folder.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._path = folder / FILE

    def append(self, ids: Sequence[str], texts: Sequence[Generation]) -> None:
        """Add the texts of some samples. They are on the disk when this returns."""
        records = text_records(ids, texts)
        lines = text_lines(records)
        with self._path.open("a", encoding="utf-8") as file:
            file.write(lines)
            file.flush()
            os.fsync(file.fileno())

    def generations(self) -> dict[str, Generation]:
        """The generated texts, by sample id."""
        from vlmlens.abc.adapter import Generation

        return {
            name: Generation(record["text"], tuple(record["token_ids"]))
            for name, record in self.read().items()
        }

    def of(self, sample: str) -> str | None:
        """The text of one sample; None if there is none. The others are not kept in memory."""
        found = None
        for plan in lease_plans(self._folder):
            for receipt in plan.receipts():
                for record in receipt.get("generated", ()):
                    found = record["text"] if record["id"] == sample else found
        if not self._path.exists():
            return found
        quoted = json.dumps(sample, ensure_ascii=False)
        with self._path.open(encoding="utf-8") as lines:
            for line in lines:
                if quoted in line and (record := _record(line)).get("id") == sample:
                    found = record["text"]
        return found

    def read(self) -> dict[str, dict[str, Any]]:
        """`text` and `token_ids` by sample id; the last ones if a sample was done twice.

        A line that a killed run left unfinished is ignored.

        Raises:
            RunError: A line is JSON, but not of a text.
        """
        found: dict[str, dict[str, Any]] = {}
        for plan in lease_plans(self._folder):
            for receipt in plan.receipts():
                for record in receipt.get("generated", ()):
                    found[record["id"]] = {k: v for k, v in record.items() if k != "id"}
        if not self._path.exists():
            return found
        for line in self._path.read_text(encoding="utf-8").splitlines():
            try:
                record = json.loads(line)
            except (ValueError, RecursionError):
                continue
            if not _is_whole(record):
                raise damaged(self._path, "a line is no JSON object with id and text")
            found[record.pop("id")] = record
        return found


def _record(line: str) -> dict[str, Any]:
    """The object in a line; empty if a killed run left it unfinished."""
    try:
        record: dict[str, Any] = json.loads(line)
    except ValueError:
        return {}
    return record
