"""A composed run, shown before anything heavy starts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from vlmlens.cli._output import size

if TYPE_CHECKING:
    from vlmlens.compose.estimate import Estimate
    from vlmlens.runner.execution import Plan


def plan_document(plan: Plan) -> dict[str, Any]:
    """The plan as JSON-ready data."""
    return {
        "spec": plan.spec.model_dump(mode="json"),
        "samples": len(plan.samples),
        "skipped": [bad.to_dict() for bad in plan.skipped],
        "notes": list(plan.notes),
        "columns": list(plan.columns),
        "analyses": list(plan.analyses),
        "left_out": dict(plan.left_out),
        "estimate": plan.estimate.to_dict(),
    }


def plan_lines(plan: Plan) -> str:
    """The plan for people."""
    spec = plan.spec
    model = f"{spec.adapter} {spec.model}" if spec.model else spec.adapter
    skipped = f", {len(plan.skipped)} skipped" if plan.skipped else ""
    analyses = f"; {', '.join(plan.analyses)}" if plan.analyses else ""
    return (
        f"{model} on {spec.data}: {len(plan.samples)} samples{skipped}{analyses}\n"
        f"{spec.storage}: {estimate_line(plan.estimate)}"
    )


def estimate_line(estimate: Estimate) -> str:
    """The cost of a run in one line."""
    unknown = sum(1 for count in estimate.columns.values() if count is None)
    more = f", without {unknown} columns of unknown width" if unknown else ""
    return (
        f"{len(estimate.columns)} columns, {size(estimate.bytes)}{more} "
        f"({size(estimate.free_bytes)} free)"
    )
