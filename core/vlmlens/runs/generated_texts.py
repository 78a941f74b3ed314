"""The texts that a run generated, one JSON line per sample in the run's folder."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vlmlens.abc.adapter import Generation

FILE = "generated.jsonl"


class GeneratedTexts:
    """What a model wrote after each sample.

    Args:
        folder: Of the run.
    """

    def __init__(self, folder: Path) -> None:
        self._path = folder / FILE

    def append(self, ids: Sequence[str], texts: Sequence[Generation]) -> None:
        """Add the texts of some samples; on the disk when this returns."""
        records = [
            {"id": sample, "text": made.text, "token_ids": list(made.token_ids)}
            for sample, made in zip(ids, texts, strict=True)
        ]
        lines = "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records)
        with self._path.open("a", encoding="utf-8") as file:
            file.write(lines)
            file.flush()
            os.fsync(file.fileno())

    def generations(self) -> dict[str, Generation]:
        """What was written, by sample id."""
        from vlmlens.abc.adapter import Generation

        return {
            name: Generation(record["text"], tuple(record["token_ids"]))
            for name, record in self.read().items()
        }

    def read(self) -> dict[str, dict[str, Any]]:
        """`text` and `token_ids` by sample id; of a sample that was done twice, the last.

        A line that a killed run left unfinished is passed over.
        """
        found: dict[str, dict[str, Any]] = {}
        if not self._path.exists():
            return found
        for line in self._path.read_text(encoding="utf-8").splitlines():
            try:
                record = json.loads(line)
            except ValueError:
                continue
            found[record.pop("id")] = record
        return found
