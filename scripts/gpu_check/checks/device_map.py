"""Check 10: a model of which one part lies on the GPU and one in the memory of the CPU."""

from __future__ import annotations

import dataclasses
from typing import Any

from scripts.gpu_check.checks.batches import limits
from scripts.gpu_check.columns import rows, some_sites
from scripts.gpu_check.extracting import POOLED, extracted, extraction
from scripts.gpu_check.measuring import apart, finite
from scripts.gpu_check.trial import Trial
from vlmlens.abc import LoadRequest

_SAMPLES = 4


def check(trial: Trial) -> None:
    """Compare rows at some sites, and whole extractions."""
    setting = trial.setting
    samples = setting.samples(_SAMPLES)
    whole = setting.model(setting.dtype)
    sites = some_sites(whole)
    reference = rows(whole, samples, sites)
    columns = extracted(extraction(whole, samples, POOLED, batch_size=_SAMPLES))
    parts = _map(whole)
    request = LoadRequest(model=str(setting.checkpoint()), device="cuda", dtype=setting.dtype)
    # The command line takes a name; what two parts are is decided here.
    request = dataclasses.replace(request, device_map=parts)  # type: ignore[arg-type]
    vlm = type(whole).load(request)
    trial.note(parts={where: list(parts.values()).count(where) for where in (0, "cpu")})
    with setting.tested(vlm):
        found = rows(vlm, samples, sites)
    trial.expect(finite(found), "numbers that are not finite")
    distance = apart(found, reference)
    allowed = limits("float32", distance)
    worst = max(distance, key=distance.__getitem__)
    trial.at_most("rows_apart", distance[worst], allowed[worst])
    distance = apart(extracted(extraction(vlm, samples, POOLED, batch_size=_SAMPLES)), columns)
    trial.at_most("columns_apart", max(distance.values()), max(allowed.values()))


def _map(vlm: Any) -> dict[str, int | str]:
    """The last eighth of the language model's blocks on the CPU, all else on the GPU."""
    blocks = [
        site.path for name, site in vlm.sites.canonical.items()
        if name.startswith("llm.block.") and name.rpartition(".")[2].isdigit()
    ]  # fmt: skip
    stack = blocks[0].rpartition(".")[0]
    late = set(blocks[-max(1, len(blocks) // 8) :])
    found: dict[str, int | str] = {}
    for name, module in vlm.module.named_modules():
        inside = any(name == known or name.startswith(f"{known}.") for known in found)
        if inside or stack == name or stack.startswith(f"{name}.") or not name:
            continue
        if list(module.parameters()) or list(module.buffers()):
            found[name] = "cpu" if name in late else 0
    return found
