"""Check 6: samples per second of an extraction into LMDB, against the bare batched forward."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from statistics import median
from typing import TYPE_CHECKING, Any

import torch

from scripts.gpu_check.columns import last_block
from scripts.gpu_check.extracting import POOLED, extracted, extraction, lmdb_store, store_all
from scripts.gpu_check.measuring import apart, counting_syncs, seconds
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
_ROUNDS = 3


def check(trial: Trial) -> None:
    """Measure at several sizes of batches, and where the time goes."""
    setting = trial.setting
    vlm = setting.model(setting.dtype)
    samples = setting.samples(setting.shape.samples)
    tokens = vlm.encode(samples[:5]).inputs["input_ids"].shape[1]
    trial.note(tokens_per_sample=int(tokens), samples=len(samples))
    found = {}
    for budget in setting.shape.budgets:
        size = max(1, budget // int(tokens))
        rounds = _ROUNDS if budget == _USUAL else 1
        _stored(trial, vlm, samples[: 2 * size], POOLED, size)  # what runs first is slower
        found[budget] = _compared(trial, vlm, samples, size, f"{budget}_tokens", rounds)
    whole = setting.samples(setting.shape.samples // 4)
    size = max(1, min(setting.shape.budgets[-1], _USUAL) // int(tokens))
    spent = _stored(trial, vlm, whole, ["llm.block.0/all"], size)
    trial.note(all_rows_at_one_site={"per_s": len(whole) / spent["whole"], "seconds": spent})
    if setting.cuda:
        _synced(trial, vlm, samples, size)
    _right(trial, vlm, samples[: 2 * size], size)
    if setting.fast:
        ratio, rate = found[_USUAL]
        trial.at_least("of_bare_forward", ratio, _GOAL)
        trial.at_least("samples_per_s", rate, _RATE)


def _compared(
    trial: Trial, vlm: ModelAdapter, samples: Sequence[Sample], size: int, name: str, rounds: int
) -> tuple[float, float]:
    """The speed of the bare forward that extraction has, and its samples per second: medians."""
    bare, own, parts = [], [], {}
    for _ in range(rounds):
        bare.append(_bare(trial, vlm, samples, size))
        parts = _stored(trial, vlm, samples, POOLED, size)
        own.append(parts["whole"])
    ratio = median(one / other for one, other in zip(bare, own, strict=True))
    rate = len(samples) / median(own)
    told = {"batch": size, "bare_per_s": len(samples) / median(bare), "extraction_per_s": rate}
    trial.note(**{name: {**told, "of_bare": ratio, "seconds": parts}})
    return ratio, rate


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
    trial: Trial, vlm: ModelAdapter, samples: Sequence[Sample], sites: Sequence[str], size: int
) -> dict[str, float]:
    """Seconds from files and prompts to rows on the disk ("whole"), and where they go."""
    folder = trial.setting.folder / "throughput"
    shutil.rmtree(folder, ignore_errors=True)
    work = extraction(vlm, samples, sites, batch_size=size)
    spent = Spent()
    with spent.of(vlm, "encode"), spent.of(work.extractor, "extract"):
        whole = seconds(
            trial.setting.device,
            lambda: store_all(work, folder, open_store=lambda at: spent.writing(lmdb_store(at))),
        )
    return {**spent.seconds, "whole": whole}


def _synced(trial: Trial, vlm: ModelAdapter, samples: Sequence[Sample], size: int) -> None:
    """How often a batch waits for the GPU, the copy of its columns included."""
    work = extraction(vlm, samples[: size * _SYNCED], POOLED, batch_size=size)
    units = work.units()
    with counting_syncs() as found:
        for _, values in work.columns(units):
            dict(values)
    trial.note(
        columns=len(work.extractor.columns()),
        syncs_per_batch=found.count / len(units),
        syncs_at=dict(list(found.places.items())[:8]),
    )


def _right(trial: Trial, vlm: ModelAdapter, samples: Sequence[Sample], size: int) -> None:
    """Rows are those of plain traces of single samples, up to rounding."""
    column = f"{last_block(vlm)}/last"
    with trial.setting.tested(vlm):
        found = extracted(extraction(vlm, samples, [column], batch_size=size))
    plain: list[torch.Tensor] = []
    for sample in samples:
        trace = vlm.trace(vlm.encode([sample]), [column.partition("/")[0]])
        plain += [row[None] for row in trace.select(column)]
    limit = 1e-4 if trial.setting.dtype == "float32" else 5e-2
    trial.at_most("rows_apart", apart(found, {column: plain})[column], limit)
