"""Check 6: samples per second of an extraction into LMDB, against the bare batched forward."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch

from scripts.gpu_check.extracting import POOLED, extraction, lmdb_store, store_all
from scripts.gpu_check.measuring import counting_syncs, seconds
from scripts.gpu_check.timing import Spent
from scripts.gpu_check.trial import Trial
from vlmlens import Sample

if TYPE_CHECKING:
    from vlmlens import ModelAdapter

_GOAL = 0.9
_RATE = 30.0
_USUAL = 16384
"""Tokens per batch that vlmlens takes by itself on a GPU."""
_SYNCED = 4


def check(trial: Trial) -> None:
    """Measure at several sizes of batches, and where the time goes."""
    setting = trial.setting
    vlm = setting.model(setting.dtype)
    samples = setting.samples(setting.shape.samples)
    tokens = vlm.encode(samples[:5]).inputs["input_ids"].shape[1]
    trial.note(tokens_per_sample=int(tokens), samples=len(samples))
    usual = {}
    for budget in setting.shape.budgets:
        size = max(1, budget // int(tokens))
        usual[budget] = _compared(trial, vlm, samples, size, f"{budget}_tokens")
    whole = setting.samples(setting.shape.samples // 4)
    size = max(1, min(setting.shape.budgets[-1], _USUAL) // int(tokens))
    _stored(trial, vlm, whole, ["llm.block.0/all"], size, "all_rows_at_one_site")
    if setting.cuda:
        _synced(trial, vlm, samples, size)
    _right(trial, vlm, samples[: 2 * size], size)
    if setting.fast:
        ratio, rate = usual[_USUAL]
        trial.at_least("of_bare_forward", ratio, _GOAL)
        trial.at_least("samples_per_s", rate, _RATE)


def _compared(
    trial: Trial, vlm: ModelAdapter, samples: Sequence[Sample], size: int, name: str
) -> tuple[float, float]:
    """The speed of the bare forward that extraction has, and its samples per second."""
    bare = _bare(trial, vlm, samples, size)
    spent = _stored(trial, vlm, samples, POOLED, size, name)
    found = {
        "batch": size, "bare_per_s": len(samples) / bare, "extraction_per_s": len(samples) / spent,
        "of_bare": bare / spent,
    }  # fmt: skip
    trial.note(**{name: found})
    return bare / spent, len(samples) / spent


def _bare(trial: Trial, vlm: ModelAdapter, samples: Sequence[Sample], size: int) -> float:
    """Seconds of transformers' own passes over batches that are encoded and lie on the device.

    Samples are sorted by length, as extraction does; no logits are computed, nothing is kept.
    """
    order = sorted(samples, key=lambda sample: -len(sample.prompt))
    parts = [order[start : start + size] for start in range(0, len(order), size)]
    batches = [dict(vlm.encode(part).inputs) for part in parts]
    model: Any = vlm.module.get_submodule("model")

    def run() -> None:
        with torch.inference_mode():
            for inputs in batches:
                model(**inputs, use_cache=False)

    with torch.inference_mode():
        model(**batches[0], use_cache=False)
    return seconds(trial.setting.device, run)


def _stored(
    trial: Trial, vlm: ModelAdapter, samples: Sequence[Sample], sites: Sequence[str], size: int,
    name: str,
) -> float:  # fmt: skip
    """Seconds from files and prompts to rows on the disk; tells where they go."""
    folder = trial.setting.folder / "throughput"
    shutil.rmtree(folder, ignore_errors=True)
    work = extraction(vlm, samples, sites, batch_size=size)
    spent = Spent()
    with spent.of(vlm, "encode"), spent.of(work.extractor, "extract"):
        whole = seconds(
            trial.setting.device,
            lambda: store_all(work, folder, open_store=lambda at: spent.writing(lmdb_store(at))),
        )
    trial.note(**{f"{name}_parts": {**spent.seconds, "whole": whole}})
    return whole


def _synced(trial: Trial, vlm: ModelAdapter, samples: Sequence[Sample], size: int) -> None:
    """How often a batch waits for the GPU, the copy of its columns included."""
    work = extraction(vlm, samples[: size * _SYNCED], POOLED, batch_size=size)
    units = work.units()
    with counting_syncs() as found:
        for _ in work.columns(units):
            continue
    trial.note(
        columns=len(work.extractor.columns()),
        syncs_per_batch=found.count / len(units),
        syncs_at=dict(list(found.places.items())[:8]),
    )


def _right(trial: Trial, vlm: ModelAdapter, samples: Sequence[Sample], size: int) -> None:
    """The rows that were stored last are those of plain traces, up to rounding."""
    from scripts.gpu_check.columns import last_block
    from scripts.gpu_check.extracting import extracted
    from scripts.gpu_check.measuring import apart

    column = f"{last_block(vlm)}/last"
    with trial.setting.tested(vlm):
        found = extracted(extraction(vlm, samples, [column], batch_size=size))
    plain: list[torch.Tensor] = []
    for sample in samples:
        trace = vlm.trace(vlm.encode([sample]), [column.partition("/")[0]])
        plain += [row[None] for row in trace.select(column)]
    limit = 1e-4 if trial.setting.dtype == "float32" else 5e-2
    trial.at_most("rows_apart", apart(found, {column: plain})[column], limit)
