"""What activates a coordinate: planted columns, a model whose rows do not mix, autograd by hand."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.metrics import roc_auc_score

from vlmlens.abc import AnalysisContext, ColumnBlock, ModelAdapter, Options, Values, WorkUnit
from vlmlens.errors import (
    CompositionError,
    DataError,
    DataNotFound,
    MissingAnnotation,
    SelectorError,
    SpecError,
)
from vlmlens.results import Result, Verdict
from vlmlens.samples import Sample
from vlmlens.testing.model import TinyLlava, request, tiny_model
from vlmlens_adapter_blip2.checks import FlanT5Checks
from vlmlens_adapter_clip.checks import ClipChecks
from vlmlens_plugins.analysis import _separating
from vlmlens_plugins.analysis.activating import Activating, driving, labels
from vlmlens_plugins.analysis.activating.checks import ActivatingChecks
from vlmlens_plugins.analysis.activating.coordinates import Coordinate, Measured
from vlmlens_plugins.analysis.activating.options import ActivatingOptions
from vlmlens_plugins.analysis.activating.work import Driving, DrivingOptions, Masking, sources
from vlmlens_plugins.analysis.steering.aims import Aim, mark_of
from vlmlens_plugins.analysis.steering.files import Direction, save_direction
from vlmlens_plugins.storage.memory import MemoryStore, forget

PATCHES = 16
LAST = "llm.block.1/last"


def values(array: Any, lengths: Sequence[int] | None = None) -> Values:
    rows = np.ascontiguousarray(array, "<f4")
    return Values(rows, "float32", None if lengths is None else tuple(lengths))


def no_model() -> ModelAdapter:
    raise CompositionError("An old database has no model.")


def analysed(
    samples: Sequence[Sample],
    columns: dict[str, Values],
    vlm: ModelAdapter | None = None,
    told: list[str] | None = None,
    **options: Any,
) -> Result:
    forget("activating")
    with MemoryStore.open("activating", mode="a", options=Options()) as store:
        store.write(ColumnBlock(tuple(sample.id for sample in samples), columns))
        analysis = Activating(ActivatingOptions.model_validate(options))
        analysis.check(samples, list(columns))
        warn = (lambda message: None) if told is None else told.append
        model: Any = no_model if vlm is None else cache(lambda: vlm)
        return analysis.run(AnalysisContext(samples, store, model, warn=warn))


def coloured(count: int = 60) -> tuple[list[Sample], dict[str, Values]]:
    """Noise, in which coordinate 5 is 1 for all that is red."""
    rng = np.random.default_rng(0)
    colours = ["red" if i % 3 == 0 else ["blue", "green"][i % 2] for i in range(count)]
    rows = rng.normal(scale=0.1, size=(count, 8))
    rows[:, 5] += [colour == "red" for colour in colours]
    samples = [
        Sample(f"s{i}", "Which colour?", label=colour, task="colour", group=f"g{i}")
        for i, colour in enumerate(colours)
    ]
    other = values(rng.normal(scale=0.1, size=(count, 8)))
    return samples, {"llm.block.0/last": other, LAST: values(rows)}


# ---------------------------------------------------------------------- labels


def test_the_planted_coordinate_is_found_and_no_other() -> None:
    result = analysed(*coloured())
    assert [finding.verdict for finding in result.findings[:2]] == [
        Verdict.DIFFERS,
        Verdict.NO_DIFFERENCE,
    ]
    first = result.findings[0]
    assert first.text.startswith(f"colour: {LAST}#5 is high for red (AUC 1.00, shuffled labels 0.")
    assert result.overview[0].text == f"red: {LAST}#5"
    samples, columns = coloured()
    alone = analysed(samples, columns, coordinates=[f"{LAST}#{i}" for i in (4, 6)])
    assert {finding.verdict for finding in alone.findings} == {Verdict.NO_DIFFERENCE}


def test_the_default_is_what_varies_most_whatever_the_labels() -> None:
    samples, columns = coloured()
    result = analysed(samples, columns, most=1)
    assert result.table("activating").columns["coordinate"] == [f"{LAST}#5"]
    rows = columns[LAST].array
    deviations = rows.astype("f8").std(0)
    spread = result.table("activating").columns["over_median_of_column"][0]
    assert spread == pytest.approx(deviations[5] / np.median(deviations))


def test_areas_are_those_of_sklearn() -> None:
    rng = np.random.default_rng(0)
    numbers = rng.integers(0, 6, 50).astype(float)  # with many ties
    given = rng.choice(["a", "b", "c"], 50).tolist()
    found = _separating.areas(numbers, given, ["a", "b", "c"])
    for name, area in zip("abc", found, strict=True):
        assert area == pytest.approx(roc_auc_score([one == name for one in given], numbers))


def test_p_values_of_noise_are_even() -> None:
    rng, found = np.random.default_rng(5), []
    for _ in range(120):
        samples = [Sample(f"s{i}", "?", label="ab"[i % 2], group=f"g{i}") for i in range(24)]
        one = Measured(Coordinate("a/last#0", "a/last"), rng.normal(size=24), None)
        targets = _separating.targets_of(samples, ["label"])
        (tested,) = labels.separations([one], samples, targets, 199, 0)
        found.append(tested.p)
    assert np.mean(np.array(found) <= 0.05) <= 0.12
    assert 0.35 <= np.mean(np.array(found) <= 0.5) <= 0.65


def test_several_questions_about_a_picture_count_once() -> None:
    """Six copies of four groups on a side: a test of copies would be sure of it."""
    samples = [
        Sample(f"s{i}", "?", label="high" if i % 8 >= 4 else "low", group=f"g{i % 8}")
        for i in range(48)
    ]
    rows = np.array([[i % 8 >= 3, 0.1 * (i % 2)] for i in range(48)], np.float32)
    result = analysed(samples, {LAST: values(rows)}, coordinates=f"{LAST}#0")
    assert result.findings[0].values["units"] == 8
    assert result.findings[0].verdict is Verdict.NO_DIFFERENCE
    alone = [Sample(one.id, "?", label=one.label, group=one.id) for one in samples]
    wrong = analysed(alone, {LAST: values(rows)}, coordinates=f"{LAST}#0")
    assert wrong.findings[0].verdict is Verdict.DIFFERS


def test_the_confounder_of_the_kit_fools_a_test_of_samples() -> None:
    """Its labels fit the values by chance: only groups as units are not taken in."""
    planted = ActivatingChecks().planted("confounded")
    one: Any = {"coordinates": "llm.block.1/last#5", "model": "off"}
    result = analysed(planted.samples, dict(planted.columns), **one)
    assert result.findings[0].verdict is not Verdict.DIFFERS
    apart = [replace(sample, group=sample.id) for sample in planted.samples]
    fooled = analysed(apart, dict(planted.columns), **one)
    assert fooled.findings[0].verdict is Verdict.DIFFERS


def test_too_few_samples_tell_nothing() -> None:
    _, columns = coloured()
    some = {name: one.take(range(6)) for name, one in columns.items()}
    few = [Sample(f"s{i}", "?", label="ab"[i % 2]) for i in range(6)]
    result = analysed(few, some, coordinates=f"{LAST}#5")
    assert result.findings[0].verdict is Verdict.INCONCLUSIVE


def test_attributes_and_no_labels() -> None:
    samples, columns = coloured()
    plain = [Sample(one.id, one.prompt, attributes={"hue": one.label}) for one in samples]
    by_hue = analysed(plain, columns, by="hue", coordinates=f"{LAST}#5")
    assert by_hue.findings[0].text.startswith(f"hue: {LAST}#5 is high for red")
    without = analysed(plain, columns, coordinates=f"{LAST}#5")
    assert without.findings[0].text.startswith(f"{LAST}#5 goes from")
    assert "activating-labels" not in {table.name for table in without.tables}
    with pytest.raises(MissingAnnotation, match="No sample has an attribute 'colour'"):
        analysed(plain, columns, by="colour")


# ---------------------------------------------------------------------- samples


def test_top_quantile_and_random_samples() -> None:
    samples = [Sample(f"s{i}", "?", group=f"g{i // 2}") for i in range(41)]
    rows = np.arange(41, dtype=np.float32)[:, None] * [1, 0]
    result = analysed(samples, {LAST: values(rows)}, coordinates=f"{LAST}#0", top=3, random=4)
    table = result.table("activating-samples").columns
    shown = dict(zip(table["shown"], table["sample"], strict=True))
    assert [shown[f"top {i}"] for i in (1, 2, 3)] == ["s40", "s39", "s37"]  # one of each group
    assert [shown[f"quantile {q:g}"] for q in (0, 0.25, 0.5, 0.75)] == ["s0", "s10", "s20", "s30"]
    drawn = [shown[f"random {i}"] for i in (1, 2, 3, 4)]
    assert len(set(drawn)) == 4
    assert any("Bolukbasi" in note for note in result.notes)


# ---------------------------------------------------------------------- a model that is known


@pytest.fixture(scope="module")
def unmixed() -> ModelAdapter:
    """A tiny LLaVA whose language model never passes anything from one row to another."""
    vlm = TinyLlava.load(request())
    with torch.no_grad():
        for site in vlm.sites.resolve("llm.block.*.attn"):
            attention = vlm.module.get_submodule(site.path)
            attention.get_submodule("o_proj").get_parameter("weight").zero_()
    return vlm


@pytest.fixture(scope="module")
def pictures() -> list[Sample]:
    rng = np.random.default_rng(0)
    return [
        Sample(
            f"p{i}",
            f"Is {'it ' * (1 + i % 2)}red?",
            (Image.fromarray(rng.integers(0, 256, (32, 32, 3), np.uint8)),),
            group=f"g{i}",
        )
        for i in range(6)
    ]


def columns_of(vlm: ModelAdapter, samples: Sequence[Sample], *names: str) -> dict[str, Values]:
    trace = vlm.trace(vlm.encode(samples), list({name.partition("/")[0] for name in names}))
    found = {}
    for name in names:
        rows: Any = trace.select(name)
        several = isinstance(rows, list)
        lengths = [len(one) for one in rows] if several else None
        found[name] = values(torch.cat(rows) if several else rows, lengths)
    return found


@pytest.fixture(scope="module")
def ninth(unmixed: ModelAdapter, pictures: list[Sample]) -> tuple[str, dict[str, Values]]:
    """A coordinate that patch 9 alone can move, and that falls when it does; and its column."""
    name = "llm.block.1/image[9]"
    column = columns_of(unmixed, pictures, name)
    every = [f"{name}#{i}" for i in range(0, 32, 3)]
    table = analysed(pictures, column, unmixed, coordinates=every).table("activating-masks").columns
    falls = dict.fromkeys(every, 0.0)
    for text, rows, fall in zip(table["coordinate"], table["rows"], table["fall"], strict=True):
        falls[str(text)] += float(fall or 0) if rows == "all" else 0.0
    return max(falls, key=lambda text: falls[text]), column


def test_only_the_patch_that_drives_it_is_drawn(
    unmixed: ModelAdapter, pictures: list[Sample], ninth: tuple[str, dict[str, Values]]
) -> None:
    text, column = ninth
    result = analysed(pictures, column, unmixed, coordinates=text)
    (figure,) = [one for one in result.figures if one.kind == "patches"]
    for sheet in figure.sheets:
        assert [i for i, value in enumerate(sheet.cells[0]) if value] == [9]
        assert sheet.boxes[9] == (0.25, 0.5, 0.5, 0.75)
        assert sheet.x[9] == "row 3, column 2"
    assert not any(result.table("activating-words").columns["weight"])
    masks = result.table("activating-masks").columns
    fall = dict(zip(masks["rows"], masks["fall"], strict=True))
    assert set(masks["number"]) == {1, PATCHES}
    assert fall["strongest"] == pytest.approx(fall["all"])
    assert fall["random"] == pytest.approx(0.0, abs=1e-5)
    assert float(fall["all"] or 0) > 0.1


def test_only_the_word_that_drives_it_has_a_weight(
    unmixed: ModelAdapter, pictures: list[Sample]
) -> None:
    name = "llm.block.1/[-3]"
    column = columns_of(unmixed, pictures, name)
    result = analysed(pictures, column, unmixed, coordinates=f"{name}#3")
    words = result.table("activating-words").columns
    for sample in set(words["sample"]):
        weights = [
            weight
            for one, weight in zip(words["sample"], words["weight"], strict=True)
            if one == sample
        ]
        assert [i - len(weights) for i, weight in enumerate(weights) if weight] == [-3]


def test_without_pictures_words_are_masked(unmixed: ModelAdapter) -> None:
    asked = [Sample(f"t{i}", f"Is {word} here?") for i, word in enumerate("abcdef")]
    name = "llm.block.1/[-3]"
    column = columns_of(unmixed, asked, name)
    every = [f"{name}#{i}" for i in range(6)]
    result = analysed(asked, column, unmixed, coordinates=every, patches=1)
    assert not any(figure.kind == "patches" for figure in result.figures)
    assert set(result.table("activating-masks").columns["source"]) == {"words"}
    told = [one.text for one in result.findings if one.values.get("believed")]
    assert told
    assert all("replacing the word that drives it most changes it by -" in one for one in told)


def test_patches_in_a_wrong_order_are_not_believed(
    unmixed: ModelAdapter,
    pictures: list[Sample],
    ninth: tuple[str, dict[str, Values]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Masking is what catches a map whose patches are mixed up."""
    text, column = ninth

    class Reversed(Driving):
        version = None

        def run(self, vlm: ModelAdapter, units: Sequence[WorkUnit]) -> list[dict[str, Any]]:
            return [{**one, "image": one["image"][::-1]} for one in super().run(vlm, units)]

    def believed() -> bool:
        found = analysed(pictures, column, unmixed, coordinates=text)
        (told,) = [one for one in found.findings if "believed" in one.values]
        assert bool(told.values["believed"]) == ("must not be believed" not in told.text)
        return bool(told.values["believed"])

    assert believed()
    monkeypatch.setattr(driving, "Driving", Reversed)
    assert not believed()


# ---------------------------------------------------------------------- by hand


def by_hand(vlm: ModelAdapter, sample: Sample, number: int, at: str) -> tuple[float, torch.Tensor]:
    """Coordinate of the last row behind the last block, and gradient x row at one place."""
    kept: list[torch.Tensor] = []
    site = vlm.sites.resolve(at)[0]

    def leaf(rows: torch.Tensor) -> torch.Tensor:
        kept.append(rows.detach().clone().requires_grad_())
        return kept[0]

    def output(module: Any, args: Any, given: Any) -> Any:
        if isinstance(given, torch.Tensor):
            return leaf(given)
        return [leaf(given[0]), *given[1:]] if isinstance(given, list) else given

    def before(module: Any, args: Any, kwargs: Any) -> Any:
        if args:
            return (leaf(args[0]), *args[1:]), kwargs
        return args, {**kwargs, "hidden_states": leaf(kwargs["hidden_states"])}

    module = vlm.module.get_submodule(site.path)
    handle = (
        module.register_forward_pre_hook(before, with_kwargs=True)
        if site.side == "in"
        else module.register_forward_hook(output)
    )
    given: dict[str, Any] = {}
    last = vlm.module.get_submodule(vlm.sites.canonical["llm.block.1"].path)
    other = last.register_forward_hook(lambda module, args, out: given.update(out=out))
    try:
        with torch.enable_grad():
            vlm.module(**vlm.encode([sample]).inputs)
            out = given["out"][0] if isinstance(given["out"], tuple) else given["out"]
            value = out.reshape(-1, out.shape[-1])[-1, number]
            value.backward()
    finally:
        handle.remove()
        other.remove()
    (rows,) = kept
    assert rows.grad is not None
    return float(value.detach()), (rows.grad * rows).sum(-1).flatten().detach()


def test_gradient_x_input_by_plain_autograd(pictures: list[Sample]) -> None:
    vlm = tiny_model()
    units = [WorkUnit(one, {"column": LAST, "number": 7}) for one in pictures]
    told = Driving().run(vlm, units)
    for sample, one in zip(pictures, told, strict=True):
        value, image = by_hand(vlm, sample, 7, "projector")
        assert one["value"] == pytest.approx(value, abs=1e-5)
        np.testing.assert_allclose(one["image"], image, rtol=1e-5, atol=1e-5)
        _, rows = by_hand(vlm, sample, 7, "llm.block.0:in")
        layout = vlm.encode([sample]).layout(0)
        np.testing.assert_allclose(one["words"], rows[layout.kinds == 0], rtol=1e-5, atol=1e-5)
        assert np.abs(one["image"]).max() > 1e-4


def test_against_a_mean_row_and_along_a_direction(pictures: list[Sample]) -> None:
    vlm, width = tiny_model(), 32
    vector = np.random.default_rng(1).normal(size=width).tolist()
    zero = DrivingOptions(directions={"d": vector})
    units = [WorkUnit(pictures[0], {"column": LAST, "number": None, "name": "d"})]
    (plain,) = Driving(zero).run(vlm, units)
    singles = Driving().run(
        vlm, [WorkUnit(pictures[0], {"column": LAST, "number": i}) for i in range(width)]
    )
    summed = sum(w * np.array(one["image"]) for w, one in zip(vector, singles, strict=True))
    np.testing.assert_allclose(plain["image"], summed, atol=1e-5)
    rows = np.asarray(columns_of(vlm, pictures[:1], "projector/image")["projector/image"].array)
    means = {"projector/image": rows[4].tolist()}
    (apart,) = Driving(DrivingOptions(directions={"d": vector}, means=means)).run(vlm, units)
    assert apart["image"][4] == pytest.approx(0, abs=1e-7)
    assert apart["words"] == pytest.approx(plain["words"])


def test_integrated_gradients_add_up(pictures: list[Sample]) -> None:
    """To what replacing all patches, or all words, does; one gradient does not."""
    vlm = tiny_model()
    at = {"image": "projector/image", "words": "llm.block.0:in/text"}
    others = columns_of(vlm, pictures[1:], *at.values())
    means = {name: rows.array.mean(0).tolist() for name, rows in others.items()}
    unit = WorkUnit(pictures[0], {"column": LAST, "number": 7})
    (fine,) = Driving(DrivingOptions(means=means, steps=20)).run(vlm, [unit])
    (coarse,) = Driving(DrivingOptions(means=means)).run(vlm, [unit])
    assert fine["value"] == coarse["value"]
    for kind, column in at.items():
        arguments = {**unit.arguments, "at": column, "rows": list(range(len(fine[kind])))}
        (masked,) = Masking(DrivingOptions(means=means)).run(
            vlm, [WorkUnit(pictures[0], arguments)]
        )
        change = fine["value"] - masked["value"]
        assert sum(fine[kind]) == pytest.approx(change, rel=0.02, abs=2e-3)
        assert abs(sum(coarse[kind]) - change) > 5 * abs(sum(fine[kind]) - change)


def test_masking_is_the_edit_that_it_says(pictures: list[Sample]) -> None:
    """Against a function that replaces the rows; the same sample twice in one batch."""
    vlm, row = tiny_model(), [0.5] * 32
    base = {"column": LAST, "number": 7, "at": "projector/image"}
    units = [WorkUnit(pictures[0], {**base, "rows": rows}) for rows in ([2, 5], [9], [])]
    told = Masking(DrivingOptions(means={"projector/image": row})).run(vlm, units)

    def replaced(rows: torch.Tensor) -> torch.Tensor:
        changed = rows.clone()
        changed[[2, 5]] = 0.5
        return changed

    batch = vlm.encode(pictures[:1])
    trace = vlm.trace(batch, "llm.block.1", edits={"projector/image": replaced})
    assert told[0]["value"] == pytest.approx(float(trace.select(LAST)[0][7]), abs=1e-5)
    plain = vlm.trace(batch, "llm.block.1").select(LAST)
    assert told[2]["value"] == pytest.approx(float(plain[0][7]), abs=1e-5)
    assert len({round(one["value"], 6) for one in told}) == 3


@pytest.mark.parametrize(
    ("suite", "wanted"),
    [
        (ClipChecks, {"text.block.1": {"words": "text.block.0:in/text"}}),
        (
            FlanT5Checks,
            {
                "llm.block.1": {
                    "image": "projector/image",
                    "words": "llm.encoder.block.0:in/text",
                },
                "vision.block.1": {"image": "vision.block.0:in/image"},
            },
        ),
    ],
)
def test_where_other_families_are_asked(
    suite: Any, wanted: dict[str, Any], pictures: list[Sample]
) -> None:
    """Two towers, and a decoder behind an encoder."""
    vlm = suite().load()
    for name, places in wanted.items():
        (site,) = vlm.sites.resolve(name)
        assert sources(vlm, site) == places
        rows = "image.mean" if name.startswith("vision") else "last"
        unit = WorkUnit(pictures[0], {"column": f"{name}/{rows}", "number": 1})
        (told,) = Driving().run(vlm, [unit])
        for kind in places:
            assert np.abs(told[kind]).max() > 0


# ---------------------------------------------------------------------- several rows


def test_rows_of_ragged_columns_are_drawn_where_they_lie(pictures: list[Sample]) -> None:
    vlm = tiny_model()
    whole = columns_of(vlm, pictures, "llm.block.0/all")["llm.block.0/all"]
    bright = np.zeros_like(whole.array)
    starts = np.cumsum([0, *whole.lengths][:-1])  # type: ignore[misc]
    for i, start in enumerate(starts):
        layout = vlm.encode([pictures[i]]).layout(0)
        bright[start + layout.positions(1)[i], 2] = 5 + i
        bright[start + len(layout) - 1, 2] = 1
    column = {"llm.block.0/all": values(bright, whole.lengths)}
    result = analysed(pictures, column, vlm, coordinates="llm.block.0/all#2")
    (figure,) = [one for one in result.figures if one.kind == "patches"]
    for sheet in figure.sheets:
        number = int(sheet.sample[1:])
        assert len(sheet.cells[0]) == PATCHES
        assert [i for i, value in enumerate(sheet.cells[0]) if value] == [number]
    table = result.table("activating-samples").columns
    assert table["value"][0] == 10.0
    words = result.table("activating-words").columns
    assert sum(words["weight"]) == len(figure.sheets)
    assert not any(one.name == "activating-masks" for one in result.tables)


# ---------------------------------------------------------------------- without a model, errors


def test_without_a_model_values_alone_are_shown() -> None:
    told: list[str] = []
    result = analysed(*coloured(), told=told, coordinates=f"{LAST}#5")
    assert told == [
        "No model is asked what drives a coordinate, only values: An old database has no model."
    ]
    assert not any(one.kind == "patches" for one in result.figures)
    with pytest.raises(CompositionError, match="no model"):
        analysed(*coloured(), model="on")
    told.clear()
    analysed(*coloured(), told=told, model="off")
    assert not told


def test_a_model_without_gradients_gives_values_alone(pictures: list[Sample]) -> None:
    vlm, told = TinyLlava.load(request()), list[str]()
    column = columns_of(vlm, pictures, LAST)
    vlm.module.is_quantized = True  # type: ignore[assignment]  # as transformers marks it
    result = analysed(pictures, column, vlm, told, coordinates=f"{LAST}#3")
    assert told == [
        f"What drives {LAST}#3 is not known: No gradient can be taken through quantized weights."
    ]
    assert result.table("activating-samples").columns["value"][0] is not None


def test_stored_values_that_the_model_does_not_give(pictures: list[Sample]) -> None:
    vlm, told = tiny_model(), list[str]()
    column = columns_of(vlm, pictures, LAST)
    analysed(pictures, column, vlm, told, coordinates=f"{LAST}#3")
    assert not told
    moved = {LAST: values(column[LAST].array + 1)}
    analysed(pictures, moved, vlm, told, coordinates=f"{LAST}#3")
    assert len(told) == 1
    assert "in the store" in told[0]


@pytest.mark.parametrize(
    ("text", "error", "message"),
    [
        ("llm.block.1", SpecError, "is not a coordinate"),
        ("llm.block.1/last", SpecError, "is not a coordinate"),
        ("llm.block.1/lst#3", SelectorError, "not a selector"),
        ("llm.block.7/last#3", CompositionError, "not stored"),
        (f"{LAST}#8", CompositionError, "has 8 coordinates"),
        (f"{LAST}@nothing.npy", DataNotFound, "no file"),
    ],
)
def test_wrong_coordinates(text: str, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        analysed(*coloured(), coordinates=text)


def test_a_call_of_a_site_and_a_head_can_be_named() -> None:
    found = Coordinate.parse("llm.block.2.attn.heads[1]#0/last#12")
    assert (found.column, found.number) == ("llm.block.2.attn.heads[1]#0/last", 12)


def test_too_much_work_is_refused() -> None:
    with pytest.raises(SpecError, match="max_units"):
        analysed(*coloured(), max_units=10)


def test_values_that_are_not_finite() -> None:
    samples, columns = coloured()
    columns[LAST].array[7, 5] = np.nan
    told: list[str] = []
    result = analysed(samples, columns, told=told, coordinates=f"{LAST}#5")
    assert any("not finite in 1 samples" in one for one in told)
    assert result.table("activating").columns["samples"] == [59]


# ---------------------------------------------------------------------- directions


@pytest.fixture
def direction(tmp_path: Path) -> Callable[..., str]:
    def write(width: int = 8, groups: Sequence[str] = (), site: str = "llm.block.1") -> str:
        made = Direction(
            np.eye(1, width, 5, dtype=np.float32)[0] * 4,
            site,
            "last",
            "mean",
            Aim("colour", "colour", "red", ("blue",), ""),
            tuple(map(mark_of, groups)),
        )
        path = tmp_path / "red.safetensors"
        save_direction(path, made)
        return str(path)

    return write


def test_a_direction_of_length_one(direction: Callable[..., str]) -> None:
    samples, columns = coloured()
    result = analysed(samples, columns, coordinates=[f"{LAST}@{direction()}", f"{LAST}#5"])
    table = result.table("activating").columns
    assert table["median"][0] == pytest.approx(table["median"][1])
    assert result.findings[0].verdict is Verdict.DIFFERS


def test_samples_that_a_direction_was_learnt_from_test_nothing(
    direction: Callable[..., str],
) -> None:
    samples, columns = coloured()
    file = direction(groups=[sample.split_group for sample in samples])
    result = analysed(samples, columns, coordinates=f"{LAST}@{file}")
    assert {finding.verdict for finding in result.findings} == {Verdict.INFO}
    assert "learnt from samples of colour" in result.findings[0].text
    half = direction(groups=[sample.split_group for sample in samples[:30]])
    some = analysed(samples, columns, coordinates=f"{LAST}@{half}")
    assert some.findings[0].values["units"] == 30


def test_a_direction_of_another_width_or_place(direction: Callable[..., str]) -> None:
    with pytest.raises(CompositionError, match="has 6 numbers"):
        analysed(*coloured(), coordinates=f"{LAST}@{direction(width=6)}")
    told: list[str] = []
    file = direction(site="llm.block.0")
    analysed(*coloured(), told=told, coordinates=f"{LAST}@{file}")
    assert any("was learnt at llm.block.0/last" in one for one in told)


def test_directions_of_probes_and_plain_vectors(tmp_path: Path) -> None:
    from vlmlens_plugins.analysis.probe.export import _packed

    facts = {"classes": ["blue", "red"], "ids": ["s0"], "column": LAST}
    arrays = {"weights": np.eye(8, 1, -5, dtype=np.float32), "bias": np.zeros(1, np.float32)}
    for kind in ("safetensors", "npz"):
        path = tmp_path / f"probe.{kind}"
        path.write_bytes(_packed(arrays, facts, kind))
        one, two = (Coordinate.parse(f"{LAST}@{path}{end}") for end in ("", ":blue"))
        assert one.along is not None
        assert two.along is not None
        assert one.along.vector[5] == 1
        assert two.along.vector[5] == -1
        assert one.along.learnt_from(Sample("s0", "?"))
        with pytest.raises(DataError, match="for each of 2 classes"):
            Coordinate.parse(f"{LAST}@{path}:green")
    np.save(tmp_path / "v.npy", np.arange(8.0))
    found = Coordinate.parse(f"{LAST}@{tmp_path / 'v.npy'}").along
    assert found is not None
    assert np.linalg.norm(found.vector) == pytest.approx(1)
    np.save(tmp_path / "v.npy", np.ones((2, 8)))
    with pytest.raises(DataError, match="one vector"):
        Coordinate.parse(f"{LAST}@{tmp_path / 'v.npy'}")
    for kind in ("safetensors", "npz", "npy"):
        (tmp_path / f"bad.{kind}").write_bytes(b"PK nothing")
        with pytest.raises(DataError, match="no direction"):
            Coordinate.parse(f"{LAST}@{tmp_path / f'bad.{kind}'}")


def test_rows_that_cannot_be_placed_are_said(pictures: list[Sample]) -> None:
    told: list[str] = []
    column = {"llm.block.1/answer": values(np.arange(36).reshape(12, 3), [2] * 6)}
    analysed(pictures, column, tiny_model(), told, coordinates="llm.block.1/answer#1")
    assert any("is not known, so none are shown" in one for one in told)
