"""What docs/models.md says of full checkpoints that were run."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from scripts.check_checkpoints.records import FAILED, NOT_OFFERED, NOT_RUN, PASSED, Record
from scripts.models_page import CHECKED, PAGE, page
from vlmlens._files import write_json, write_text


def keep(records: Iterable[Record]) -> int:
    """Put the outcomes of full checkpoints into the page, beside those that it has.

    Returns:
        How many checkpoints of these records are in the page now.
    """
    by_checkpoint = defaultdict(list)
    for record in records:
        if record.full and record.outcome != NOT_RUN:
            by_checkpoint[record.checkpoint].append(record)
    if not by_checkpoint:
        return 0
    known: dict[str, Any] = {}
    if CHECKED.is_file():
        known = json.loads(CHECKED.read_text(encoding="utf-8"))
    rows = {**known, **{name: row(each) for name, each in by_checkpoint.items()}}
    write_json(CHECKED, dict(sorted(rows.items())))
    write_text(PAGE, page())
    return len(by_checkpoint)


def row(records: Sequence[Record]) -> dict[str, Any]:
    """What the page says of one checkpoint, as JSON-ready data."""
    by_step = {record.step: record for record in records}
    kit, question = by_step.pop("kit", None), by_step.pop("question", None)
    latest = max(records, key=lambda record: record.when)
    named = {
        outcome: sorted(record.step for record in by_step.values() if record.outcome == outcome)
        for outcome in (PASSED, FAILED, NOT_OFFERED)
    }
    return {
        "adapter": latest.adapter,
        "kit": "not run" if kit is None else _counts(kit.data) or kit.text,
        "analyses": named,
        "question": "not run" if question is None else _answer(question),
        "versions": dict(latest.under["versions"]),
        "commit": latest.commit,
        "device": latest.under["device"],
        "date": latest.when[:10],
    }


def _counts(data: Mapping[str, Any]) -> str:
    return ", ".join(
        f"{data[what]} {what}" for what in ("passed", "skipped", "failed") if data.get(what)
    )


def _answer(record: Record) -> str:
    if record.outcome != PASSED:
        return f"{record.outcome}: {record.text}"
    return f"{str(record.data['answer']).strip()} ({'right' if record.data['right'] else 'wrong'})"
