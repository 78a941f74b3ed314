"""The conformance kit over lmms-eval's logs, alone and joined with POPE."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from vlmlens.manifest import Manifest
from vlmlens.testing import DatasetTests
from vlmlens_plugins.benchmarks.manifests import LMMS_EVAL
from vlmlens_plugins.benchmarks.pope.checks import rows, write_official

_SUFFIX = "\nAnswer the question using a single word or phrase."


def write_log(path: Path, split: str = "adversarial") -> Path:
    """The log of a POPE task, as lmms-eval 0.7 writes it."""
    lines = [
        {
            "doc_id": number,
            "target": row["label"],
            "filtered_resps": "Yes",
            "doc_hash": f"{number}",
            "pope_accuracy": {"question_id": str(row["question_id"]), "score": 1.0},
            "input": row["text"] + _SUFFIX,
        }
        for number, row in enumerate(rows(split))
    ]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


class JoinedChecks(DatasetTests):
    """A log with the benchmark's own data."""

    manifest: ClassVar[Manifest] = LMMS_EVAL

    def source(self, folder: Path) -> str:
        """See `DatasetTests.source`."""
        write_official(folder)
        return str(write_log(folder / "20260102_030405_samples_pope_adv.jsonl"))

    def options_in(self, folder: Path) -> Mapping[str, Any]:
        """See `DatasetTests.options_in`."""
        own = folder / "coco"
        return {"benchmark": f"pope:{own}"} if own.exists() else {}

    def broken(self, folder: Path) -> Sequence[str]:
        """See `DatasetTests.broken`."""
        texts = {
            "samples_a.jsonl": '{"question_id": 1}\n',
            "samples_b.jsonl": '{"doc_id": 1}\n',
            "samples_c.jsonl": '{"doc_id": 1, "filtered_resps": "a", "input": "?"}\n' * 2,
            "samples_d.jsonl": '{"doc_id": 1, "filtered_resps": [["-1.5", "True"]]}\n',
            "samples_e.jsonl": "",
            "log.txt": "",
        }
        for name, text in texts.items():
            (folder / name).write_text(text)
        (folder / "none").mkdir()
        return [str(folder / name) for name in (*texts, "none", "missing")]


CHECKS = (JoinedChecks,)
