"""The trial pass: what an expression named and what gives no rows, against plain hooks."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from vlmlens.abc import ModelAdapter
from vlmlens.compose.plan import Plan, compose
from vlmlens.errors import SiteSilent
from vlmlens.extraction.dry_pass import silent_columns
from vlmlens.registry import Registry
from vlmlens.spec.model import make_spec


def composed(*sites: str, **values: Any) -> Plan:
    spec = make_spec({"sites": list(sites), "limit": 20, "device": "cpu", **values})
    return compose(spec, Registry.default(), analyse=False)


def silent_in(plan: Plan, vlm: ModelAdapter) -> dict[str, str]:
    return silent_columns(vlm, plan.spec.sites, plan.columns, plan.samples)


def hooked_outputs(plan: Plan, vlm: ModelAdapter) -> dict[str, list[Any]]:
    """Every output of every module in one pass over two samples, by module path."""
    seen: dict[str, list[Any]] = {}
    handles = [
        module.register_forward_hook(
            lambda _module, _args, output, path=path: seen.setdefault(path, []).append(output)
        )
        for path, module in vlm.module.named_modules()
    ]
    batch = vlm.encode([plan.samples[0], plan.samples[7]])
    with torch.inference_mode():
        vlm.forward(batch, logits="all")
    for handle in handles:
        handle.remove()
    return seen


def first_tensor(output: Any) -> Any:
    if isinstance(output, torch.Tensor):
        return output
    items = output.values() if isinstance(output, dict) else output
    return next((item for item in items if isinstance(item, torch.Tensor)), None)


def test_what_is_silent(vlm: ModelAdapter) -> None:
    """Left are exactly the modules that ran once and gave a row per position."""
    plan = composed("re:model.language_model.*/all")
    silent = silent_in(plan, vlm)
    kept = [name.partition("/")[0] for name in plan.columns if name not in silent]
    outputs = hooked_outputs(plan, vlm)
    total = plan_rows(plan, vlm)
    for site in vlm.sites.resolve("re:model.language_model.*"):
        calls = outputs.get(site.path, [])
        tensor = first_tensor(calls[0]) if len(calls) == 1 else None
        rows = tensor.shape[:-1].numel() if tensor is not None and tensor.ndim > 1 else 0
        assert (site.name in kept) == (rows == total), site.name
    assert {"llm.block.0", "llm.block.5.mlp", "llm.norm"} <= set(kept)
    assert "did not run" in silent["model.language_model.layers/all"]


def plan_rows(plan: Plan, vlm: ModelAdapter) -> int:
    from vlmlens.sites import Axis

    return vlm.encode([plan.samples[0], plan.samples[7]]).layouts[Axis.LLM].total


def test_the_plan_without_them(vlm: ModelAdapter) -> None:
    plan = composed("re:model.language_model.layers.*/mean", "vision.block.0")
    silent = silent_in(plan, vlm)
    narrowed = plan.without(silent)
    assert set(narrowed.columns) == set(plan.columns) - set(silent)
    assert "vision.block.0/image.mean" in narrowed.columns
    values = narrowed.extractor(vlm).extract(vlm.encode(plan.samples[:3]))
    assert list(values) == narrowed.columns
    assert plan.without({}) is plan


def test_without_an_expression_no_pass_is_run(vlm: ModelAdapter) -> None:
    assert silent_in(composed("llm.block.0"), vlm) == {}
    named = composed("re:lm_head", "model.language_model.layers/last")
    assert silent_in(named, vlm) == {}  # named by itself: an error of the run, as ever


def test_an_expression_of_which_nothing_is_left(vlm: ModelAdapter) -> None:
    plan = composed("re:model.language_model.layers", "llm.block.0")
    with pytest.raises(SiteSilent, match="None of the 1 modules"):
        silent_in(plan, vlm)
