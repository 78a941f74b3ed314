"""Patching on the demo model, of which it is known where the colour goes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache, partial
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from vlmlens.abc import AnalysisContext, ColumnStore, ModelAdapter
from vlmlens.errors import DataError, MissingAnnotation, SelectorError, SiteNotFound, SpecError
from vlmlens.pairs import Pair, pairs_of
from vlmlens.results import Result, Verdict
from vlmlens.samples import Sample
from vlmlens.tokens import Selector
from vlmlens_plugins.analysis._sweeps import Cell, Change, SweepOptions, Swept, sweep
from vlmlens_plugins.analysis.patching import Patching
from vlmlens_plugins.analysis.patching.options import PatchingOptions
from vlmlens_plugins.analysis.patching.runs import items_of
from vlmlens_plugins.demo.dataset import DemoDataset

BLOCKS = 6
REGION, REST = "image.region(main)", "image.rest(main)"


@pytest.fixture(scope="module")
def samples() -> Sequence[Sample]:
    options = DemoDataset.Options.model_validate({"pairs": 6})
    return DemoDataset("pairs", options).samples([])


@pytest.fixture(scope="module")
def pairs(samples: Sequence[Sample]) -> list[Pair]:
    return pairs_of(samples)[0]


def context(vlm: ModelAdapter, samples: Sequence[Sample], **more: Any) -> AnalysisContext:
    store: ColumnStore = None  # type: ignore[assignment]  # patching reads no columns
    return AnalysisContext(samples, store, cache(lambda: vlm), **more)


@pytest.fixture(scope="module")
def run(vlm: ModelAdapter, samples: Sequence[Sample]) -> Callable[..., Result]:
    def analyse(told: list[str] | None = None, given: Any = samples, **options: Any) -> Result:
        small = {"draws": 200, "patches": 0, "controls": 1, **options}
        analysis = Patching(PatchingOptions.model_validate(small))
        analysis.check(given, ())
        warn = (lambda message: None) if told is None else told.append
        return analysis.run(context(vlm, given, warn=warn))

    return analyse


@pytest.fixture(scope="module")
def patched(vlm: ModelAdapter, pairs: list[Pair]) -> Callable[[str], Swept]:
    def one(*edits: str) -> Swept:
        cells = [Cell((Change(edit),)) for edit in edits]
        items = items_of(pairs, "denoise")
        return sweep(context(vlm, []), items, cells, SweepOptions())

    return one


def effects(result: Result) -> dict[tuple[str, str, str], float]:
    columns = result.table("patching").columns
    keys = zip(columns["direction"], columns["site"], columns["rows"], strict=True)
    return dict(zip(keys, columns["effect"], strict=True))  # type: ignore[arg-type]


# ---------------------------------------------------------------------- what must hold exactly


def test_all_image_rows_at_the_projector_are_the_other_image(patched: Any) -> None:
    found = patched("projector/image = patch")
    assert np.array_equal(found.difference(), found.difference("donor"))
    assert (found.divergence("donor") == 0).all()


def test_the_last_row_of_the_last_block_is_the_answer(patched: Any) -> None:
    found = patched("llm.block.5/last = patch", "llm.block.5/[:-1] = patch")
    assert np.array_equal(found.difference()[0], found.difference("donor")[0])
    assert np.array_equal(found.difference()[1], found.difference("base")[1])
    assert found.unchanged()[1].all()


def test_rows_before_the_image_carry_nothing(patched: Any) -> None:
    found = patched("llm.block.2/first = patch")
    assert found.unchanged().all()


def test_some_rows_denoised_are_all_others_noised(
    vlm: ModelAdapter, pairs: list[Pair], patched: Any
) -> None:
    one = patched("llm.block.2/last = patch").difference()
    cells = [Cell((Change("llm.block.2/[:-1] = patch"),))]
    other = sweep(context(vlm, []), items_of(pairs, "noise"), cells, SweepOptions()).difference()
    np.testing.assert_allclose(one, other, atol=1e-4)


# ---------------------------------------------------------------------- the way of the colour


def test_the_way_of_the_colour(run: Callable[..., Result]) -> None:
    result = run(rows=["image", REGION, REST, "last", "image+last"], direction="both")
    found = partial(dict.__getitem__, effects(result))
    assert found(("denoise", "projector", REGION)) >= 0.95
    assert abs(found(("denoise", "projector", REST))) <= 0.05
    for direction in ("denoise", "noise"):
        image = [found((direction, f"llm.block.{i}", "image")) for i in range(BLOCKS)]
        last = [found((direction, f"llm.block.{i}", "last")) for i in range(BLOCKS)]
        assert image[0] > 0.9
        assert image[3] < 0.15
        assert last[0] < 0.1
        assert last[3] > 0.85
        assert last == sorted(last)
        both = [found((direction, f"llm.block.{i}", "image+last")) for i in range(BLOCKS)]
        assert min(both) > 0.9
    first = result.findings[0]
    assert first.notable
    assert first.values["first_site_last"] in ("llm.block.1", "llm.block.2")
    assert result.overview[0].subject == "color"


def test_the_object_is_more_than_other_patches(run: Callable[..., Result]) -> None:
    result = run(sites=["projector"], rows=[REGION], controls=3)
    columns = result.table("patching").columns
    assert columns["effect"][0] > 0.95
    assert abs(columns["control"][0]) < 0.3  # type: ignore[arg-type]
    assert columns["p_holm"][0] <= 0.05  # type: ignore[operator]
    assert columns["flips"][0] == 1


def test_another_seed_draws_other_controls(vlm: ModelAdapter, samples: Sequence[Sample]) -> None:
    options = {"sites": ["projector"], "rows": [REGION], "controls": 1, "patches": 0, "draws": 100}
    analysis = Patching(PatchingOptions.model_validate(options))
    one, other = (
        analysis.run(context(vlm, samples[:4], seed=seed)).table("patching").columns
        for seed in (0, 1)
    )
    assert one["effect"] == other["effect"]
    assert one["control"] != other["control"]


def test_single_patches_lie_over_the_object(
    vlm: ModelAdapter, pairs: list[Pair], run: Callable[..., Result]
) -> None:
    result = run(sites=["projector"], rows=["image"], patches=2)
    figure = next(one for one in result.figures if one.kind == "patches")
    assert [sheet.sample for sheet in figure.sheets] == [p.corrupted.id for p in pairs[:2]]
    for pair, sheet in zip(pairs, figure.sheets, strict=False):
        inside = vlm.encode([pair.corrupted]).layouts["projector"].samples[0]  # type: ignore[index]
        rows = Selector.parse(REGION).positions(inside)
        values = np.array(sheet.cells[0], dtype=float)
        assert values[rows].sum() > 0.9 * values[values > 0].sum()


# ---------------------------------------------------------------------- independent recomputation


def test_a_hook_by_hand_gives_the_same(vlm: ModelAdapter, pairs: list[Pair], patched: Any) -> None:
    edit = "llm.block.2.attn.heads[1]/last = patch"
    found = patched(edit)
    right = [by_hand(vlm, pair, inputs=True) for pair in pairs]
    np.testing.assert_allclose(found.difference()[0], right, atol=1e-4)
    wrong = [by_hand(vlm, pair, inputs=False) for pair in pairs]
    assert np.abs(found.difference()[0] - wrong).max() > 1e-2


def by_hand(vlm: ModelAdapter, pair: Pair, *, inputs: bool) -> float:
    """The head's slice of what the projection is given; or, wrongly, of what it gives."""
    model: Any = vlm.module
    (site,) = vlm.sites.resolve("llm.block.2.attn.heads[1]")
    projection = model.get_submodule(site.path)
    assert site.columns is not None
    columns = slice(*site.columns)
    seen: list[torch.Tensor] = []

    def value(args: Any, output: Any) -> torch.Tensor:
        return args[0] if inputs else output

    def keep(module: Any, args: Any, output: Any) -> None:
        seen.append(value(args, output)[0, -1, columns].clone())

    handle = projection.register_forward_hook(keep)
    vlm.forward(vlm.encode([pair.clean]))
    handle.remove()

    def put(tensor: torch.Tensor) -> torch.Tensor:
        changed = tensor.clone()
        changed[0, -1, columns] = seen[0]
        return changed

    if inputs:
        handle = projection.register_forward_pre_hook(lambda module, args: (put(args[0]),))
    else:
        handle = projection.register_forward_hook(lambda module, args, output: put(output))
    logits = vlm.forward(vlm.encode([pair.corrupted]), logits="last").logits
    handle.remove()
    assert logits is not None
    clean, corrupted = (vlm.answer_ids(answer)[0] for answer in pair.answers)
    return float(logits[0, clean] - logits[0, corrupted])


# ---------------------------------------------------------------------- options


def test_tracing_restores_what_noise_took(run: Callable[..., Result]) -> None:
    result = run(mode="trace", noises=2, rows=["image", "last"], sigma=3.0)
    found = effects(result)
    assert found["trace", "projector", "image"] == pytest.approx(1, abs=1e-6)
    assert found["trace", "llm.block.5", "last"] == pytest.approx(1, abs=1e-6)
    assert abs(found["trace", "llm.block.5", "image"]) < 1e-6
    assert result.table("patching").columns["pairs"][0] == 6


def test_windows_patch_neighbours_together(run: Callable[..., Result]) -> None:
    sites = ["llm.block.*.attn_out"]
    one = effects(run(sites=sites, rows=["last"], window=1))
    three = effects(run(sites=sites, rows=["last"], window=3))
    assert len(one) == len(three) == BLOCKS
    middle = ("denoise", "llm.block.2.attn_out", "last")
    assert three[middle] > one[middle] + 0.1


def test_too_few_pairs_for_a_test_are_no_evidence_of_no_effect(
    run: Callable[..., Result], samples: Sequence[Sample]
) -> None:
    told: list[str] = []
    sites = ["llm.block.5", "llm.block.3", "projector"]
    result = run(told, samples[:2], sites=sites, rows=["image", "image + last"])
    assert {finding.verdict for finding in result.findings} == {Verdict.INCONCLUSIVE}
    assert "1 group of samples is too few for any of 6 effects" in told[0]
    assert list(dict.fromkeys(result.table("patching").columns["site"])) == sites[::-1]
    assert "1 pair)" in result.findings[0].text


def test_where_the_last_row_takes_over_needs_others(
    run: Callable[..., Result], samples: Sequence[Sample]
) -> None:
    result = run(None, samples[:2], rows=["last"], sites=["llm.block.5"])
    assert not result.findings[0].notable
    assert not result.overview
    falling = run(None, samples[:2], rows=["image", "last"], sites=["llm.block.{2,5}.attn_out"])
    assert not falling.overview


def test_pairs_are_left_out_and_counted(
    pairs: list[Pair], run: Callable[..., Result], samples: Sequence[Sample]
) -> None:
    first = pairs[0]
    exchanged = {first.clean.id: first.corrupted.label, first.corrupted.id: first.clean.label}
    given = [replace(s, label=exchanged.get(s.id, s.label)) for s in samples]
    small = Image.new("RGB", (64, 128))
    given[-1] = replace(given[-1], images=(small,), prompt=f"{given[-1].prompt} now")
    told: list[str] = []
    result = run(told, given, rows=["last"], sites=["llm.block.5"])
    assert "1 of 6 pairs is left out: 1 with other token counts." in told
    assert any("1 of 5 pairs is left out: in 1 the clean sample" in one for one in told)
    assert result.table("patching").columns["pairs"] == [4]
    assert list(result.warnings) == told


def test_rows_that_do_not_exist_are_said(run: Callable[..., Result]) -> None:
    told: list[str] = []
    run(told, rows=["last", "answer"], sites=["llm.block.5"])
    assert any("'answer' are left out" in message for message in told)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"rows": ["lasst"]}, SelectorError, "is not a selector"),
        ({"rows": "image.mean"}, SpecError, "pools rows"),
        ({"sites": ["llm.block.77"]}, SiteNotFound, "llm.block.77"),
        ({"min_difference": 1e9}, MissingAnnotation, "No pair is left"),
    ],
)
def test_bad_options(
    run: Callable[..., Result], options: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        run(**options)


def test_rows_that_later_samples_lack_are_said(
    run: Callable[..., Result], vlm: ModelAdapter, samples: Sequence[Sample]
) -> None:
    given = [*samples[:3], replace(samples[3], attributes={**samples[3].attributes, "regions": ""})]
    given[2] = replace(given[2], attributes={**given[2].attributes, "regions": ""})
    options = {"rows": [REGION, "last"], "sites": ["llm.block.5"], "patches": 0, "controls": 0}
    told: list[str] = []
    analysis = Patching(PatchingOptions.model_validate(options))
    result = analysis.run(context(vlm, given, warn=told.append, batch_size=1))
    assert result.table("patching").columns["rows"] == ["last"]
    assert "has no regions" in told[0]
    assert "no regions" not in told[1]
    given[2] = replace(given[2], attributes={**given[2].attributes, "regions": "{bad"})
    with pytest.raises(DataError, match="are no JSON"):
        run(None, given)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"patches_at": ["llm.block.77"]}, SiteNotFound, "llm.block.77"),
        ({"mode": "trace", "noise_at": "projector"}, SpecError, "no SITE/SELECTOR"),
        ({"mode": "trace", "noise_at": "vision.block.9/image"}, SiteNotFound, "vision.block.9"),
    ],
)
def test_wrong_places_are_refused_before_the_model_runs(
    vlm: ModelAdapter,
    samples: Sequence[Sample],
    options: dict[str, Any],
    error: type[Exception],
    message: str,
) -> None:
    analysis = Patching(PatchingOptions.model_validate(options))

    def check() -> None:
        analysis.check(samples, ())
        analysis.check_model(vlm, samples, ())

    with pytest.raises(error, match=message):
        check()


def test_the_cost_of_single_patches_is_refused_before_the_sweep(
    vlm: ModelAdapter, samples: Sequence[Sample]
) -> None:
    options = {"patches": 1, "sites": ["projector"], "rows": ["image"], "max_passes": 20}
    rounds: list[int] = []
    heard = context(vlm, samples, progress=lambda done, total: rounds.append(total))
    with pytest.raises(SpecError, match="64 passes"):
        Patching(PatchingOptions.model_validate(options)).run(heard)
    assert max(rounds) == len(samples) // 2


def test_samples_without_pairs(run: Callable[..., Result], samples: Sequence[Sample]) -> None:
    alone = [replace(sample, attributes={}) for sample in samples]
    with pytest.raises(MissingAnnotation, match="No sample belongs to a pair"):
        run(None, alone)
    unlabelled = [replace(sample, label=None) for sample in alone]
    with pytest.raises(MissingAnnotation, match="no sample has a label"):
        run(None, unlabelled, mode="trace")
    blind = [replace(sample, images=()) for sample in alone]
    with pytest.raises(MissingAnnotation, match="no sample with a label has an image"):
        run(None, blind, mode="trace")
