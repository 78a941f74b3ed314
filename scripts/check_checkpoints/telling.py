"""What is said: a line per step, the list of checkpoints, the summary."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from scripts.check_checkpoints.listed import Listed
from scripts.check_checkpoints.machine import KIT, Fit, gigabytes
from scripts.check_checkpoints.records import FAILED, NOT_RUN, PASSED, Record
from vlmlens._clean import clean

_SHOWN = 200


def header(one: Listed, fit: Fit, device: str, *, full: bool) -> str:
    """The line above a checkpoint's steps."""
    assert fit.place is not None
    what = "" if full else ", a tiny or partial copy: not the full checkpoint"
    size = gigabytes(fit.place.bytes)
    return f"{one.id} (adapter {one.adapter.name}, {size} of weights, {device}{what})"


def line(record: Record, *, before: bool = False) -> str:
    """One step in plain words."""
    said = clean(record.text)
    short = said if len(said) <= _SHOWN else f"{said[: _SHOWN - 1]}…"
    how = "done before" if before else f"{record.seconds:.0f} s"
    return f"  {record.step}: {record.outcome}: {short} ({how})"


def listing(checkpoints: Sequence[tuple[Listed, Fit]]) -> str:
    """What is there, and what fits."""
    return "\n".join(
        f"{one.id} ({one.adapter.name}): {_state(one, fit)}" for one, fit in checkpoints
    )


def _state(one: Listed, fit: Fit) -> str:
    if fit.place is None or not fit.needs:
        return fit.reason(KIT)
    tiny = "" if fit.place.is_full(one.checkpoint.parameters) else "; not the full checkpoint"
    size = f"{gigabytes(fit.place.bytes)} of weights{tiny}"
    kit, rest = fit.reason(KIT), fit.reason("")
    if not kit:
        return f"{size}; fits"
    if not rest:
        return f"{size}; fits, but for the kit: {kit}"
    return f"{size}; does not fit: {rest}"


def summary(records: Sequence[Record], missing: int) -> str:
    """The last lines: how many checkpoints and steps are green, and what failed.

    Args:
        records: All of the chosen checkpoints.
        missing: How many chosen checkpoints are not here, or do not fit.
    """
    outcomes = Counter(record.outcome for record in records)
    ran = {record.checkpoint for record in records if record.outcome != NOT_RUN}
    red = {record.checkpoint for record in records if record.outcome == FAILED}
    counts = ", ".join(f"{number} {what}" for what, number in sorted(outcomes.items()))
    lines = [
        f"{len(ran)} checkpoints were run, {len(ran - red)} of them without a failure "
        f"(steps: {counts or 'none'}); {missing} listed ones are not here or do not fit."
    ]
    lines += [
        f"failed: {each.checkpoint}, {each.step}: {clean(each.text)}"
        for each in records
        if each.outcome == FAILED
    ]
    return "\n".join(lines)


def green(records: Sequence[Record]) -> bool:
    """Whether something ran, and nothing failed."""
    outcomes = {record.outcome for record in records}
    return PASSED in outcomes and FAILED not in outcomes
