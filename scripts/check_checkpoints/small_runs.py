"""A small run of each analysis: on which data of the demo, and with which options."""

from __future__ import annotations

import gc
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from scripts.check_checkpoints.records import FAILED, NOT_OFFERED, NOT_RUN, PASSED, Outcome
from vlmlens.errors import CompositionError, MissingAnnotation, MissingDependency, SelectorError
from vlmlens.manifest import Manifest, PluginKind

if TYPE_CHECKING:
    from vlmlens.abc import ModelAdapter
    from vlmlens.compose.plan import Plan
    from vlmlens.registry import Registry
    from vlmlens.results import Result

_SEED = 0


@dataclass(frozen=True, slots=True)
class SmallRun:
    """What an analysis is tried on.

    Args:
        data: A source of the demo's data.
        dataset: Options of the data.
        options: Options of the analysis.
        otherwise: Options to add where the family does not offer what those need.
        limit: At most so many samples.
    """

    data: str = "demo:scenes"
    dataset: Mapping[str, Any] = field(default_factory=lambda: {"scenes": 8})
    options: Mapping[str, Any] = field(default_factory=dict)
    otherwise: Mapping[str, Any] = field(default_factory=dict)
    limit: int | None = None


_PAIRS: dict[str, Any] = {"data": "demo:pairs", "dataset": {"pairs": 24}}
_KEPT_PAIRS = 6
_OF_PAIRS = {"samples": _KEPT_PAIRS, "min_difference": 0, "draws": 100}
_FOLLOWED = {"samples": 2, "only_right": False, "draws": 100, "controls": 1}

SMALL: Mapping[str, SmallRun] = {
    "ablation": SmallRun(options={**_FOLLOWED, "parts": ["heads", "mlp"]}, limit=10),
    "activating": SmallRun(
        options={"top": 1, "random": 0, "permutations": 99, "steps": 2, "masked": 1, "most": 2,
                 "quantiles": [0.5], "controls": 1, "references": 4}
    ),
    "attention": SmallRun(options={"samples": 2, "maps": 1, "draws": 100}, limit=10),
    "attribution": SmallRun(
        **_PAIRS,
        options={**_OF_PAIRS, "only_right": False, "edge_steps": 2, "steps": 3, "check": 1,
                 "patches": 1},
    ),
    "benchmark": SmallRun(
        data="demo:pope", dataset={"pictures": 1}, options={"draws": 100, "max_new_tokens": 4},
        otherwise={"answers": "choose"},
    ),
    "blind-test": SmallRun(options={"draws": 1000, "resamples": 200}, limit=20),
    "bottleneck": SmallRun(
        options={"samples": 8, "folds": 2, "min_class": 2, "draws": 100, "C": [0.01]}
    ),
    "captions": SmallRun(
        data="demo:captions", dataset={"scenes": 3}, options={"max_new_tokens": 4, "draws": 100}
    ),
    "circuit": SmallRun(
        **_PAIRS, options={**_OF_PAIRS, "controls": 1, "parts": ["mlp", "attn"], "edges": 2}
    ),
    "concepts": SmallRun(options={"permutations": 99, "resamples": 200, "k": 2}),
    "evidence": SmallRun(
        options={"samples": 1, "random_regions": 2, "draws": 100, "pictures": 1}, limit=10,
        otherwise={"blind": "gray"},
    ),
    "hallucination": SmallRun(
        options={"samples": 8, "folds": 2, "min_class": 2, "draws": 100, "C": [0.01]}
    ),
    "heads": SmallRun(options={"length": 8, "sequences": 2, "samples": 2, "draws": 100}, limit=10),
    "knockout": SmallRun(options={**_FOLLOWED, "routes": ["image -> last"]}, limit=10),
    "logit-lens": SmallRun(limit=10),
    "look": SmallRun(
        options={"samples": 1, "grid": 3, "controls": 1, "components": 1, "max_new_tokens": 2},
        limit=1,
    ),
    "occlusion": SmallRun(
        options={"samples": 1, "grid": 3, "steps": 2, "cells": 4, "pictures": 1, "draws": 100,
                 "only_right": False},
        limit=5,
    ),
    "patching": SmallRun(**_PAIRS, options={**_OF_PAIRS, "controls": 1, "patches": 0}),
    "probe": SmallRun(
        options={"folds": 2, "min_per_class": 2, "draws": 1000, "resamples": 200, "C": [0.01]},
        dataset={"scenes": 12},
    ),
    "removal": SmallRun(
        data="demo:pope", dataset={"pictures": 4},
        options={"samples": 8, "strengths": [1.0], "draws": 100},
        otherwise={"method": "steer"},
    ),
    "sae": SmallRun(
        options={"width": ["16"], "k": [4], "seeds": 1, "rows": 4000, "batch": 256, "pages": 1,
                 "effects": 1, "controls": 1, "permutations": 99, "samples": 4, "draws": 100}
    ),
    "similarity": SmallRun(options={"permutations": 19, "neighbours": 2}),
    "steering": SmallRun(
        options={"attribute": "color", "samples": 4, "learn": 16, "controls": 5, "draws": 100,
                 "strengths": [1.0]},
    ),
    "tune": SmallRun(
        options={"component": "projector", "samples": 8, "tests": 8, "epochs": 1, "draws": 200,
                 "control": False, "task": ["color"]}
    ),
    "weights": SmallRun(options={"tokens": 8, "strongest": 2}, limit=10),
}  # fmt: skip
"""By name of the analysis. One that is not here runs on the demo's scenes with its own defaults."""


def small_run(name: str) -> SmallRun:
    """The small run of an analysis."""
    return SMALL.get(name, SmallRun())


@dataclass(frozen=True, slots=True)
class Told:
    """What a step came to.

    Args:
        outcome: What happened.
        text: In one line.
        data: More of it.
    """

    outcome: Outcome
    text: str
    data: Mapping[str, Any] = field(default_factory=dict)


@dataclass
class Tried:
    """A checkpoint that small runs are made on; its model is loaded once.

    Args:
        adapter: The adapter's name.
        model: The checkpoint's folder.
        device: Where it runs.
        dtype: The type of its weights.
        registry: The installed plugins.
        folder: Where runs go.
        full: Whether it is the full checkpoint.
    """

    adapter: str
    model: str
    device: str
    dtype: str
    registry: Registry
    folder: Path
    full: bool = True
    _loaded: ModelAdapter | None = None

    def vlm(self, load: Callable[[], ModelAdapter]) -> ModelAdapter:
        """The loaded model."""
        if self._loaded is None:
            self._loaded = load()
        return self._loaded

    def forget(self) -> None:
        """Give the memory of the model back."""
        self._loaded = None
        gc.collect()


def analyses(registry: Registry) -> list[Manifest]:
    """The manifests of the installed analyses, by name."""
    entries = registry.entries()
    names = {entry.name for entry in entries if entry.kind is PluginKind.ANALYSIS}
    return [registry.find(PluginKind.ANALYSIS, name) for name in sorted(names)]


def run_analysis(name: str, tried: Tried) -> Told:
    """Do a small run of an analysis.

    What the family cannot do is what composing the run refuses: needs of the analysis that the
    adapter does not offer, rows that it does not have, or a model that the analysis has no use for.
    """
    from scripts.check_checkpoints.random_answers import preferred
    from vlmlens.runner.execution import execute
    from vlmlens.sample_table import SampleTable

    small = small_run(name)
    place = tried.folder / name
    try:
        plan, how = _composed(name, small, tried, place)
    except MissingDependency as error:
        return Told(NOT_RUN, str(error))
    except (CompositionError, SelectorError) as error:
        return Told(NOT_OFFERED, error.message)
    load = plan.load
    vlm = tried.vlm(load)
    before = _sums(vlm)
    plan = replace(plan, load=lambda: vlm)
    if small.data == _PAIRS["data"] and not tried.full:
        plan = replace(plan, samples=SampleTable(preferred(vlm, plan.samples, _KEPT_PAIRS)))
    try:
        result = execute(plan, mode="fresh").results[name]
    except MissingAnnotation as error:
        if tried.full:
            raise
        return Told(NOT_RUN, f"random weights give too little: {error.message}")
    if _sums(vlm) != before:
        tried.forget()
        return Told(FAILED, "it left the weights of the model changed")
    told = _told(result, how)
    if told.outcome == PASSED:
        shutil.rmtree(place, ignore_errors=True)
    return told


def _composed(name: str, small: SmallRun, tried: Tried, place: Path) -> tuple[Plan, str]:
    """The plan of a small run, and which options it has because the family cannot do others."""
    from vlmlens.compose.plan import compose

    try:
        return compose(_spec(name, small, tried, place), tried.registry), ""
    except CompositionError:
        if not small.otherwise:
            raise
    other = replace(small, options={**small.options, **small.otherwise})
    plan = compose(_spec(name, other, tried, place), tried.registry)
    return plan, f", with {', '.join(f'{key}={value}' for key, value in small.otherwise.items())}"


def _told(result: Result, how: str) -> Told:
    if not result.findings:
        return Told(FAILED, "the result has no finding")
    count = len(result.findings)
    data = {"findings": count, "first": result.findings[0].text}
    return Told(PASSED, f"{count} finding{'s' * (count != 1)}{how}", data)


def _spec(name: str, small: SmallRun, tried: Tried, place: Path) -> Any:
    from vlmlens.spec.model import make_spec

    return make_spec(
        {
            "adapter": tried.adapter,
            "model": tried.model,
            "device": tried.device,
            "dtype": tried.dtype,
            "data": small.data,
            "limit": small.limit,
            "on_bad_sample": "skip",
            "analysis": {name: dict(small.options)},
            "options": {"dataset": dict(small.dataset)},
            "seed": _SEED,
            "out": str(place),
        }
    )


def _sums(vlm: ModelAdapter) -> list[float]:
    """A number for each parameter, which changes with it."""
    import torch

    with torch.inference_mode():
        return [float(each.double().sum()) for each in vlm.module.parameters()]
