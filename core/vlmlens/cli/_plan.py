"""A composed run, as it is printed before the model is loaded."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from vlmlens._display import count, size

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
    """The plan for people, and what to do where its columns are beyond reason."""
    from vlmlens.compose.estimate import advice

    spec = plan.spec
    model = f"{spec.adapter} {spec.model}" if spec.model else spec.adapter
    if plan.skeleton is None:
        model = "no model"
    skipped = f", {len(plan.skipped)} skipped" if plan.skipped else ""
    analyses = f"; {', '.join(plan.analyses)}" if plan.analyses else ""
    samples = count(len(plan.samples), "sample")
    lines = [
        f"{model} on {spec.data}: {samples}{skipped}{analyses}",
        f"{spec.storage}: {estimate_line(plan.estimate)}",
    ]
    return "\n".join([*lines, *advice(plan.estimate)])


def estimate_line(estimate: Estimate) -> str:
    """The cost of a run in one line."""
    if not estimate.columns:
        return "no columns are stored"
    columns, unknown = len(estimate.columns), list(estimate.columns.values()).count(None)
    known = f"{size(estimate.bytes)}" if unknown < columns else "unknown size"
    more = f" and {unknown} of unknown size" if 0 < unknown < columns else ""
    free = "" if estimate.free_bytes is None else f" ({size(estimate.free_bytes)} free)"
    return f"{count(columns, 'column')}, {known}{more}{free}"
