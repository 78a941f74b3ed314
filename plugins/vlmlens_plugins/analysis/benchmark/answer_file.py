"""The file of answers: a line for each question, as JSON."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from vlmlens._files import write_bytes
from vlmlens_plugins.analysis.benchmark.report import Scored

FILE = "benchmark.answers.jsonl"


def write_answers(folder: Path, found: Sequence[Scored]) -> Path:
    """Write what was answered, what the chosen parser read in it, and what that is worth.

    The file can be given back: `--set options.dataset.answers=FILE`.

    Args:
        folder: The folder of the run's results.
        found: The sets.
    """
    path = folder / FILE
    folder.mkdir(parents=True, exist_ok=True)
    write_bytes(path, (_line(told) for each in found for told in _lines(each)))
    return path


def _lines(found: Scored) -> Iterator[dict[str, Any]]:
    answered, whole = found.answered, found.whole
    for i, (sample, answer) in enumerate(zip(whole.samples, whole.answers, strict=True)):
        said = {"id": sample.id, "text": answer.text, "parsed": answer.said, "right": answer.credit}
        yield said if answered.blind is None else {**said, "blind": answered.blind[i]}


def _line(said: dict[str, Any]) -> bytes:
    """One line; half a surrogate pair, which is no text, becomes a question mark."""
    whole = {
        name: value.encode(errors="replace").decode() if isinstance(value, str) else value
        for name, value in said.items()
    }
    return json.dumps(whole).encode() + b"\n"
