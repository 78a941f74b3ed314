"""The conformance kit on a checkpoint, as `vlmlens plugins check NAME --model PATH` runs it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from scripts.check_checkpoints.records import FAILED, PASSED
from scripts.check_checkpoints.small_runs import Told

if TYPE_CHECKING:
    from vlmlens.registry import Registry

_SHOWN = 3


def run_kit(registry: Registry, adapter: str, model: str, device: str) -> Told:
    """Run the kit in float32.

    Args:
        registry: The installed plugins.
        adapter: The adapter's name.
        model: The checkpoint's folder.
        device: Where it runs.

    Returns:
        The outcome, with the number of checks that passed, were skipped and failed, and what the
        failed ones say.
    """
    from vlmlens.abc.observer import SilentObserver
    from vlmlens.manifest import PluginKind
    from vlmlens.testing.run import find_suites, run_suites

    suites = find_suites(registry, adapter, PluginKind.ADAPTER, model=model, device=device)
    try:
        reports = run_suites(suites, SilentObserver())
    finally:
        _forget(suites)
    results = [result for report in reports for result in report.results]
    failed = [result for result in results if result.outcome == "failed"]
    counts = {
        what: sum(result.outcome == what for result in results)
        for what in ("passed", "skipped", "failed")
    }
    data: dict[str, Any] = {**counts, "checks": {one.name: one.detail for one in failed}}
    text = ", ".join(f"{number} {what}" for what, number in counts.items() if number)
    if not failed:
        return Told(PASSED, text, data)
    said = "; ".join(f"{one.name}: {one.detail}" for one in failed[:_SHOWN])
    return Told(FAILED, f"{text}: {said}", data)


def _forget(suites: Any) -> None:
    """Give the memory of the kit's models back."""
    import gc

    for suite in suites:
        suite.checks._loaded.clear()
    gc.collect()
