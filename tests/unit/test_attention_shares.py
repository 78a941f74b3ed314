"""Shares of attention, computed again from the weights that transformers gives."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from vlmlens.abc import AnalysisContext, Options, WorkUnit
from vlmlens.comparison import Side, compare
from vlmlens.errors import CompositionError, DataError, MissingAnnotation, SpecError
from vlmlens.results import Result, Verdict
from vlmlens.samples import Sample
from vlmlens.sites import Axis
from vlmlens.testing.model import tiny_model
from vlmlens.testing.planting import in_model
from vlmlens.testing.tiny import picture
from vlmlens.tokens import PatchGrid, TokenKind
from vlmlens_adapter_clip.checks import ClipChecks
from vlmlens_adapter_minicpm.checks import MiniCpm46Checks
from vlmlens_plugins.analysis._key_regions import key_regions
from vlmlens_plugins.analysis.attention import AttentionAnalysis
from vlmlens_plugins.analysis.attention.checks import looking, with_region
from vlmlens_plugins.analysis.attention.options import AttentionOptions
from vlmlens_plugins.analysis.attention.places import Place, boxes_of, moved, others_by_sample
from vlmlens_plugins.analysis.attention.work import (
    SHARES,
    MapOptions,
    MapWork,
    ShareOptions,
    ShareWork,
)
from vlmlens_plugins.storage.memory import MemoryStore, forget

Array = npt.NDArray[Any]
QUICK: dict[str, Any] = {"draws": 100, "maps": 1}


def samples() -> list[Sample]:
    """Two of unlike length, so that one is padded, with regions at unlike places."""
    return [
        with_region(Sample("a", "What is this?", (picture(32, 32, seed=1),), group="a"), 4),
        with_region(
            Sample("b", "Name the colour of it, please:", (picture(32, 32, seed=2),), group="b"), 8
        ),
    ]


def shares(vlm: Any, given: Sequence[Sample], **options: Any) -> list[dict[str, Any]]:
    regions = key_regions(given, None)
    units = [
        WorkUnit(sample, {"region": list(own), "others": others})
        for sample, own, others in zip(
            given, regions, others_by_sample(given, regions), strict=True
        )
    ]
    return ShareWork(ShareOptions(**options)).run(vlm, units)


def analysed(vlm: Any, given: Sequence[Sample], **options: Any) -> Result:
    forget("shares")
    with MemoryStore.open("shares", mode="a", options=Options()) as store:
        analysis = AttentionAnalysis(AttentionOptions(**{**QUICK, **options}))
        analysis.check(given, [])
        analysis.check_model(vlm, given, [])
        return analysis.run(AnalysisContext(given, store, lambda: vlm))


@pytest.mark.parametrize("query", ["last", "text"])
def test_shares_by_hand(query: str) -> None:
    """Against `output_attentions` of the eager model, row by row; the other one runs sdpa."""
    eager = tiny_model("eager")
    batch = eager.encode(samples())
    weights = eager.module(**batch.inputs, output_attentions=True).attentions
    found = shares(tiny_model("sdpa"), samples(), query=query)
    for number, layout in enumerate(batch.layouts[Axis.LLM].samples):
        own = layout.rows % weights[0].shape[-1]
        image = [i for i, kind in enumerate(layout.kinds) if kind == TokenKind.IMAGE]
        text = [i for i, kind in enumerate(layout.kinds) if kind == TokenKind.TEXT]
        top, left = divmod((4, 8)[number], 3)
        region = [image[4 * (top + y) + left + x] for y in (0, 1) for x in (0, 1)]
        o_top, o_left = divmod((8, 4)[number], 3)
        other = [image[4 * (o_top + y) + o_left + x] for y in (0, 1) for x in (0, 1)]
        windows = [
            [image[4 * (a + y) + b + x] for y in (0, 1) for x in (0, 1)]
            for a in range(3)
            for b in range(3)
        ]
        rows = [len(own) - 1] if query == "last" else text
        for block, each in enumerate(weights):
            for head in range(4):
                lines = [each[number, head, own[q], own].double().detach().numpy() for q in rows]
                told = {name: found[number][name][block][head] for name in SHARES}
                expected = {
                    "image": [line[image].sum() for line in lines],
                    "text": [line[text].sum() for line in lines],
                    "region": [line[region].sum() for line in lines],
                    "others": [line[other].sum() for line in lines],
                    "elsewhere": [np.mean([line[w].sum() for w in windows]) for line in lines],
                    "entropy": [sum(-p * np.log2(p) for p in line if p > 0) for line in lines],
                    "spread": [
                        sum(-p * np.log2(p) for p in line[image] / line[image].sum()) / 4
                        for line in lines
                        if line[image].sum() > 0  # text in front of the image does not see it
                    ],
                }
                for name, values in expected.items():
                    assert told[name] == pytest.approx(np.mean(values), abs=1e-5), name
                assert told["image"] + told["text"] + told["special"] == pytest.approx(1, abs=1e-5)
                assert told["sinks"] == 0
                assert told["rest"] == told["image"]
        assert found[number]["area"] == 0.25


def test_sinks_are_found_for_the_model() -> None:
    """Two dimensions of the first row are made huge; one is huge in an image row, too.

    They are put in before the first block, and stay in the stream that the second one is given.
    """
    import torch

    from vlmlens.testing.model import TinyLlava, request

    vlm = TinyLlava.load(request())
    (given,) = vlm.sites.resolve("llm.block.0:in")
    batch = vlm.encode(samples()[:1])
    layout = batch.layouts[Axis.LLM].samples[0]
    patch = int(layout.positions(TokenKind.IMAGE)[3])

    def huge(rows: torch.Tensor) -> torch.Tensor:
        made = rows.clone()
        made[..., 0, 7] = made[..., 0, 19] = 500
        made[..., patch, 19] = 500
        made[..., patch + 1, 5] = 500  # no dimension of the first row
        return made

    module = vlm.module.get_submodule(given.path)
    hook = module.register_forward_pre_hook(
        lambda _, args, kwargs: ((huge(args[0]), *args[1:]), kwargs), with_kwargs=True
    )
    try:
        (found,) = shares(vlm, samples()[:1], sink=3.5)
        read = vlm.attention(vlm.encode(samples()[:1]), ["llm.block.1.attn"])
        lines = read["llm.block.1.attn"].of(layout).weights[:, -1].numpy()
    finally:
        hook.remove()
    assert found["dimensions"] == [7, 19]
    assert found["sink_rows"] == 1
    for head, line in enumerate(lines):
        assert found["sinks"][1][head] == pytest.approx(line[0] + line[patch], abs=1e-6)
        assert found["rest"][1][head] == pytest.approx(
            found["image"][1][head] - line[patch], abs=1e-6
        )
    (none,) = shares(vlm, samples()[:1])
    assert none["dimensions"] == []


def grid_of(rows: int, cols: int, view: str = "image") -> PatchGrid:
    row, col = (each.ravel() for each in np.indices((rows, cols)))
    box = np.stack([col / cols, row / rows, (col + 1) / cols, (row + 1) / rows], 1)
    n = rows * cols
    return PatchGrid(
        np.zeros(n, np.int64), (view,) * n, row, col,
        np.full(n, rows), np.full(n, cols), box.astype(np.float32),
    )  # fmt: skip


@pytest.mark.parametrize("seed", range(4))
def test_the_same_shape_at_all_places_by_brute_force(seed: int) -> None:
    rng = np.random.default_rng(seed)
    rows, cols = rng.integers(2, 7, 2)
    inside = rng.random(rows * cols) < 0.3
    inside[rng.integers(len(inside))] = True
    cells = {(int(i) // cols, int(i) % cols) for i in np.flatnonzero(inside)}
    found, places = np.zeros((rows, cols)), 0
    for down in range(-rows, rows + 1):
        for across in range(-cols, cols + 1):
            there = {(y + down, x + across) for y, x in cells}
            if all(0 <= y < rows and 0 <= x < cols for y, x in there):
                places += 1
                for y, x in there:
                    found[y, x] += 1
    np.testing.assert_allclose(moved(inside, grid_of(rows, cols)), found.ravel() / places)
    assert moved(inside, grid_of(rows, cols)).sum() == pytest.approx(inside.sum())


def test_each_view_has_places_of_its_own() -> None:
    one, two = grid_of(2, 2, "global"), grid_of(1, 4, "tile 0")
    both = PatchGrid(
        *(
            np.concatenate([getattr(one, name), getattr(two, name)])
            if name != "view"
            else (*one.view, *two.view)
            for name in ("image", "view", "row", "col", "rows", "cols", "box")
        )
    )
    inside = np.array([1, 1, 0, 0, 0, 0, 0, 1], bool)
    np.testing.assert_allclose(moved(inside, both), [0.5] * 4 + [0.25] * 4)


def test_regions_of_other_samples_are_of_the_task_and_of_other_groups(tmp_path: Path) -> None:
    from PIL import Image

    base = samples()[0]
    mask = np.zeros((32, 32), np.uint8)
    mask[8:16, 16:32] = 255
    Image.fromarray(mask).save(tmp_path / "mask.png")
    masked = json.dumps({"main": {"mask": str(tmp_path / "mask.png")}})
    given = [
        replace(base, id="one", group="g", task="t"),
        replace(base, id="same group", group="g", task="t"),
        replace(base, id="two", group="h", task="t", attributes={"regions": masked}),
        replace(base, id="other task", group="i", task="u"),
        replace(base, id="none", group="j", task="t", attributes={}),
    ]
    assert boxes_of(given[0], ("main",)) == [[0, 0.25, 0.25, 0.75, 0.75]]
    assert boxes_of(given[0], ()) is None
    first, _, third, fourth, _ = others_by_sample(given, key_regions(given, "main"))
    assert first == [[[0, 0.5, 0.25, 1.0, 0.5]]]
    assert len(third) == 2
    assert fourth == []
    layout = tiny_model("sdpa").encode(given[:1]).layouts[Axis.LLM].samples[0]
    place = Place.of(layout, ("main",), first)
    assert place is not None
    assert place.others is not None
    assert np.flatnonzero(place.others).tolist() == [6, 7]
    assert place.others.sum() == place.inside.sum() == 4


def asked_about(samples: Sequence[Sample]) -> list[Sample]:
    places = np.arange(len(samples)) % 9
    return [with_region(s, int(p)) for s, p in zip(samples, places, strict=True)]


@cache
def one_result() -> Result:
    return analysed(looking(), asked_about(in_model("present").samples[:12]))


def test_what_the_result_says() -> None:
    result = one_result()
    text = result.findings[0].text
    assert "the last position gives" in text
    assert "(its area: 25%; control:" in text
    assert result.findings[0].verdict in (Verdict.NO_DIFFERENCE, Verdict.INCONCLUSIVE)
    assert "No sinks are found" in result.findings[1].text
    drawn = {f.name for f in result.figures if f.kind == "patches"}
    assert drawn == {
        f"attention-last-map-{name}"
        for name in ("attention", "rollout", "relevance", "value-weighted")
    }
    facets = [f.sheets[0].facets for f in result.figures if f.name.endswith("value-weighted")]
    assert facets == [{"task": "planted", "head": "sum"}]
    assert len(result.table("attention-last-heads")) == 2 * 4
    assert set(result.table("attention-maps").columns["method"]) == set(AttentionOptions().methods)


def test_runs_of_two_models_are_compared_by_sample() -> None:
    """`vlmlens compare` finds the block at which a changed model looks elsewhere."""
    import torch

    from vlmlens.testing.model import TinyLlava, request

    given = asked_about(in_model("present").samples[:12])
    tuned = TinyLlava.load(request())
    with torch.no_grad():
        for site in tuned.sites.resolve("llm.block.1.attn"):
            module = tuned.module.get_submodule(site.path)
            module.get_submodule("q_proj").get_parameter("weight").mul_(40)
    base = analysed(tiny_model("sdpa"), given, methods=["attention"])
    after = analysed(tuned, given, methods=["attention"])
    groups = {sample.id: sample.split_group for sample in given}
    sides = [
        Side(name, {"attention": one}, groups, dict.fromkeys(groups, ""), model={"m": name})
        for name, one in (("base", base), ("tuned", after))
    ]
    found = compare(sides, draws=2000)
    told = [f for f in found.findings if f.values.get("measure") == "entropy"]
    assert "differs at 1 of 2 columns, most at llm.block.1.attn/last" in told[0].text
    assert "paired over 12 samples" in told[0].text
    tests = found.table("compare-tests").columns
    block = [
        difference
        for difference, measure, column in zip(
            tests["difference"], tests["measure"], tests["column"], strict=True
        )
        if (measure, column) == ("entropy", "llm.block.0.attn/last")
    ]
    assert block == pytest.approx([0.0] * len(block), abs=1e-6)


def test_the_demo_model_writes_its_colour_from_the_object(vlm: Any, scenes: list[Sample]) -> None:
    """Planted: the answer of `color` comes from the main object, that of `number` from all."""
    found = {}
    for task in ("color", "number"):
        given = [scene for scene in scenes if scene.task == task]
        asked = {"prefix": [], "among": [], "drawn": False, "region": ["main"]}
        units = [WorkUnit(one, asked) for one in given]
        told = MapWork(MapOptions(methods=("value-weighted", "relevance"))).run(vlm, units)
        for method in ("value-weighted", "relevance"):
            found[task, method] = np.mean([one["region"][method] for one in told])
    assert found["color", "value-weighted"] > 0.85
    assert found["color", "relevance"] > 0.8
    assert found["number", "value-weighted"] < 0.5


def test_a_photograph_with_a_region_by_hand(vlm: Any) -> None:
    from PIL import Image
    from sklearn.datasets import load_sample_image

    photo = Image.fromarray(load_sample_image("china.jpg"))
    box = {"temple": [160, 80, 480, 347]}
    given = [Sample("china", "What is this?", (photo,), attributes={"regions": json.dumps(box)})]
    result = analysed(vlm, given, region="temple")
    finding = result.findings[0]
    assert finding.verdict is Verdict.INCONCLUSIVE
    assert "to the key region" in finding.text
    assert 0.3 < float(finding.values["area"] or 0) < 0.8
    (rollout,) = [f for f in result.figures if f.name.endswith("map-rollout")]
    assert len(rollout.sheets[0].boxes) == 64


def test_a_hybrid_model_with_gated_heads() -> None:
    """MiniCPM-V 4.6: most blocks have linear attention, and the other heads are gated."""
    result = analysed(MiniCpm46Checks().load(), samples())
    said = " ".join(result.warnings)
    assert "Nothing is said of 3 of 4 blocks (for example llm.block.0)" in said
    assert "Maps by relevance are left out: What the heads of llm.block.3.attn give is not" in said
    drawn = {f.name.removeprefix("attention-last-map-") for f in result.figures}
    assert {"attention", "rollout"} <= drawn
    assert not {"relevance", "value-weighted"} & drawn
    assert result.table("attention-last").columns["column"] == ["llm.block.3.attn/last"]


def test_what_is_refused() -> None:
    given = samples()
    with pytest.raises(SpecError, match=r"No sample of the task .* has a region 'moon'"):
        analysed(tiny_model("sdpa"), given, region="moon")
    outside = [replace(s, attributes={"regions": '{"a": [0, 0, 999, 9]}'}) for s in given]
    with pytest.raises(DataError, match="outside its"):
        AttentionAnalysis(AttentionOptions()).check(outside, [])
    with pytest.raises(MissingAnnotation, match="no sample has one"):
        analysed(tiny_model("sdpa"), [replace(s, images=()) for s in given])
    with pytest.raises(CompositionError, match="no head 4"):
        AttentionAnalysis(AttentionOptions(heads=(4,))).check_model(tiny_model("sdpa"), given, ())
    with pytest.raises(SpecError, match="source=model does not read any"):
        analysed(tiny_model("sdpa"), given, source="model", columns=["llm.block.0.attn"])
    with pytest.raises(CompositionError, match="No column has a weight per image token"):
        analysed(tiny_model("sdpa"), given, source="columns")
    with pytest.raises(CompositionError, match="only compares"):
        analysed(ClipChecks().load(), given)


def test_a_method_that_cannot_be_had_is_left_out_and_said(monkeypatch: pytest.MonkeyPatch) -> None:
    vlm = tiny_model("sdpa")
    monkeypatch.setattr(type(vlm), "readout", lambda self: None)
    result = analysed(vlm, samples())
    (said,) = [one for one in result.warnings if "value-weighted" in one]
    assert "Maps by value-weighted are left out: The model has no readout" in said
    assert not any(f.name.endswith("value-weighted") for f in result.figures)


def test_the_earlier_name_still_works() -> None:
    from vlmlens_plugins.analysis.manifests import ATTENTION

    assert "attention-map" in ATTENTION.aliases


def test_the_key_region_is_the_one_that_samples_name(vlm: Any, scenes: list[Sample]) -> None:
    """Asked for an object, attention to that object counts, not to the main one."""
    asked = [one for one in scenes if one.attributes.get("region") == "asked"]
    named = {one.id: json.loads(str(one.attributes["regions"])) for one in asked}
    unlike = [one for one in asked if named[one.id]["asked"] != [named[one.id]["main"]]]
    assert unlike
    rewritten = [
        replace(one, attributes={"regions": json.dumps({"it": named[one.id]["asked"]})})
        for one in unlike
    ]
    wrong = [
        replace(one, attributes={"regions": json.dumps({"it": named[one.id]["main"]})})
        for one in unlike
    ]
    found, right, main = (
        analysed(vlm, given, maps=0).table("attention-last-samples").columns["region"]
        for given in (unlike, rewritten, wrong)
    )
    assert list(found) == list(right)
    assert list(found) != list(main)


def test_without_its_object_a_sample_has_no_key_region(vlm: Any, scenes: list[Sample]) -> None:
    presence = [one for one in scenes if one.task == "presence"]
    there = ["region" in one.attributes for one in presence]
    assert 0 < sum(there) < len(there)
    regions = key_regions(presence, None)
    assert [bool(own) for own in regions] == there
