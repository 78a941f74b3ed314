"""Occlusion from samples to a result: planted truth, other families, and what is refused."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import pytest

from vlmlens.abc import AnalysisContext, ModelAdapter
from vlmlens.errors import CompositionError, MissingAnnotation, SpecError
from vlmlens.results import Result, Verdict
from vlmlens.samples import Sample
from vlmlens.testing.tiny import picture
from vlmlens_adapter_clip.checks import ClipChecks
from vlmlens_plugins.analysis._maps import PatchMap
from vlmlens_plugins.analysis._maps.aims import Aim
from vlmlens_plugins.analysis._maps.cells import Cells
from vlmlens_plugins.analysis._maps.curves import Curves
from vlmlens_plugins.analysis._maps.pointing import Region
from vlmlens_plugins.analysis.occlusion import Occlusion
from vlmlens_plugins.analysis.occlusion.measured import CENTRE, OCCLUSION, RANDOM, Measured
from vlmlens_plugins.analysis.occlusion.worth import worth

QUICK = {"grid": 2, "window": 1, "steps": 2, "cells": 4, "pictures": 1}


def found(vlm: ModelAdapter, samples: Sequence[Sample], **options: Any) -> Result:
    analysis = Occlusion(Occlusion.Options(**{**QUICK, **options}))
    analysis.check(samples, [])
    analysis.check_model(vlm, samples, [])
    return analysis.run(AnalysisContext(samples, None, cache(lambda: vlm)))  # type: ignore[arg-type]


def of_task(scenes: Sequence[Sample], task: str, count: int) -> list[Sample]:
    return [sample for sample in scenes if sample.task == task][:count]


def test_the_answer_rests_on_the_object_that_is_asked_for(
    vlm: ModelAdapter, scenes: list[Sample]
) -> None:
    """The object is at the edge of the second scene, where the middle of the image is not in it."""
    samples = of_task(scenes, "shape", 4)
    result = found(vlm, samples, methods="occlusion", grid=4, window=2, cells=4)
    peak, faith = (one.values for one in result.findings)
    assert peak["in_region"] == 1
    assert float(peak["chance"] or 0) < 0.35
    assert float(peak["centre"] or 0) < 1
    assert float(faith["gap"] or 0) > float(faith["random"] or 0)
    assert result.tables[0].columns["method"][0] == "occlusion"
    (maps,) = (one for one in result.figures if one.name == "maps")
    assert maps.sheets[0].facets == {"method": "occlusion"}
    assert max(value for value in maps.sheets[0].cells[0] if value is not None) == 1


def test_rows_by_site_and_other_methods(vlm: ModelAdapter, scenes: list[Sample]) -> None:
    """Behind the last block, image rows do nothing to the answer: the map there is 0."""
    last = vlm.sites.resolve("llm.block.*")[-1].name
    result = found(
        vlm,
        of_task(scenes, "shape", 1),
        methods=["rows", "gradients"],
        sites=["projector", last],
    )
    (figure,) = (one for one in result.figures if one.name == "rows-by-site")
    cells = figure.sheets[0].cells
    assert len(figure.y) == len(cells) == 2
    assert any(cells[0])
    assert not any(cells[1])
    names = {
        sheet.facets["method"]
        for one in result.figures
        for sheet in one.sheets
        if one.name == "maps"
    }
    assert names == {"rows", "gradients"}
    assert set(result.tables[0].columns["method"]) == {"rows", "gradients", RANDOM, CENTRE}


def test_a_model_that_compares_choices_has_maps_of_pixels() -> None:
    vlm: Any = ClipChecks().vlm
    samples = [
        Sample(f"s{i}", "a photo of {}", (picture(32, 32, seed=i),), choices=("cat", "dog"))
        for i in range(2)
    ]
    result = found(vlm, samples)
    assert set(result.tables[0].columns["method"]) == {"occlusion", RANDOM, CENTRE}
    assert "the model's own answer" in result.notes[0]
    with pytest.raises(CompositionError, match="rows needs a model that writes"):
        found(vlm, samples, methods=["occlusion", "rows"])
    with pytest.raises(MissingAnnotation, match="only compares choices"):
        found(vlm, [replace(one, choices=()) for one in samples])


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"methods": ["atention"]}, "no method 'atention'"),
        ({"methods": ["occlusion"], "sites": ["projector"]}, "does not name rows"),
        ({"grid": 64, "window": 4, "samples": 999, "max_units": 5000}, "max_units is 5,000"),
        ({"region": "sky"}, "has a region 'sky'"),
    ],
)
def test_what_cannot_be_done_is_refused_before_the_model(
    scenes: list[Sample], options: dict[str, Any], said: str
) -> None:
    analysis = Occlusion(Occlusion.Options(**{**QUICK, **options}))
    with pytest.raises(SpecError, match=said):
        analysis.check(scenes, [])


def test_options_that_do_not_fit_each_other() -> None:
    for wrong in ({"grid": 2, "window": 3}, {"cells": 2, "window": 1, "steps": 5}):
        with pytest.raises(SpecError, match="is more than"):
            Occlusion.Options(**wrong)


def test_samples_without_images_are_missed(scenes: list[Sample]) -> None:
    with pytest.raises(MissingAnnotation, match="no sample has one"):
        Occlusion(Occlusion.Options()).check([replace(one, images=()) for one in scenes], [])


# ---------------------------------------------------------------- what maps are worth


def planted(gaps: Sequence[float], shares: Sequence[float], hits: int) -> Measured:
    """Samples with these gaps, and regions of these shares of the image, some of which are hit."""
    cells = Cells([(100, 10)], 10)
    aims, maps, regions = [], [], []
    for i, share in enumerate(shares):
        aims.append(Aim(Sample(f"s{i}", "?", task="t"), ("a",)))
        inside = np.zeros((10, 100), bool)
        inside[:, : round(100 * share)] = True
        regions.append(Region([inside]))
        values = np.zeros(100)
        values[0 if i < hits else 99] = 1
        maps.append(PatchMap(values, cells.grid))
    own = [Curves(np.array([0.5, 0.5]), np.array([0.5 + gap, 0.5 + gap])) for gap in gaps]
    flat = [Curves(np.array([0.5, 0.5]), np.array([0.5, 0.5])) for _ in gaps]
    curves = {OCCLUSION: own, CENTRE: flat, RANDOM: flat}
    return Measured(aims, {OCCLUSION: maps}, {}, curves, regions)


def test_hits_are_held_against_the_shares_of_the_regions() -> None:
    """The p-value is the tail of a sum of unequal coins, here added up exactly."""
    shares = [0.1, 0.2, 0.3, 0.2, 0.5, 0.4]
    for hits in (0, 2, 4):
        exact = np.ones(1)
        for share in shares:
            exact = np.convolve(exact, [1 - share, share])
        one = worth(planted([0.1] * 6, shares, hits), 0, 100).peaks["t"][OCCLUSION]
        assert one.share == pytest.approx(hits / 6)
        assert one.p == pytest.approx(exact[hits:].sum(), abs=0.02)
        assert one.chance == pytest.approx(np.mean(shares))


def test_gaps_are_held_against_random_orders() -> None:
    """With ten equal gaps, only all signs equal are as far: two of 2^10."""
    same = worth(planted([0.25] * 10, [0.5] * 10, 5), 0, 100).faith["t"]
    assert same[OCCLUSION].gap == pytest.approx(0.25)
    assert (same[OCCLUSION].low, same[OCCLUSION].high) == pytest.approx((0.25, 0.25))
    assert same[OCCLUSION].p == pytest.approx(2 / 2**10, abs=2e-3)
    assert np.isnan(same[RANDOM].p)
    assert next(iter(same)) == OCCLUSION
    none = worth(planted([0.25, -0.25] * 5, [0.5] * 10, 5), 0, 100).faith["t"][OCCLUSION]
    assert none.p > 0.5


def test_too_few_samples_are_no_verdict(vlm: ModelAdapter, scenes: list[Sample]) -> None:
    (finding,) = found(
        vlm,
        [replace(one, attributes={}) for one in of_task(scenes, "color", 1)],
        methods="occlusion",
    ).findings
    assert finding.verdict is Verdict.INCONCLUSIVE
