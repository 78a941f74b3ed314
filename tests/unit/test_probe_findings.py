"""Controls by type, shortcuts, stages, the choice of a layer, power, and exported probes."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.neighbors import NearestCentroid

from vlmlens.abc import AnalysisContext, ColumnBlock, Options, Values
from vlmlens.errors import MissingAnnotation, SpecError
from vlmlens.results import Result, Verdict
from vlmlens.samples import Sample
from vlmlens.spec.model import validated
from vlmlens_plugins.analysis._tasks import ALL
from vlmlens_plugins.analysis.probe import Probe, ProbeOptions
from vlmlens_plugins.analysis.probe.export import read_export
from vlmlens_plugins.analysis.probe.features import Features, thumbnail, words
from vlmlens_plugins.analysis.probe.power import Noise
from vlmlens_plugins.analysis.probe.prober import Probed, Prober
from vlmlens_plugins.analysis.probe.stages import Outcome
from vlmlens_plugins.analysis.probe.stored_columns import Columns
from vlmlens_plugins.analysis.probe.targets import find_targets
from vlmlens_plugins.storage.memory import MemoryStore, forget

N = 240
QUICK: dict[str, Any] = {"draws": 1000, "resamples": 300, "C": 0.1}


def samples_of(y: Any, **more: Any) -> list[Sample]:
    """Samples of one task; `more` gives values by sample for fields and attributes."""
    made = []
    for i, label in enumerate(y):
        own = {key: values[i] for key, values in more.items()}
        fields = {key: own.pop(key) for key in ("images", "group") if key in own}
        prompt = own.pop("prompt", "?")
        made.append(Sample(f"s{i}", prompt, label=str(label), task="t", attributes=own, **fields))
    return made


def probe(samples: list[Sample], columns: dict[str, Any], **options: Any) -> Result:
    with stored(samples, columns) as store:
        analysis = Probe(ProbeOptions(**{**QUICK, **options}))
        analysis.check(samples, list(columns))
        return analysis.run(AnalysisContext(samples, store, _no_model))


def stored(samples: list[Sample], columns: dict[str, Any]) -> MemoryStore:
    forget("probe-findings")
    values = {name: Values(np.asarray(x, "<f4"), "float32") for name, x in columns.items()}
    store = MemoryStore.open("probe-findings", mode="a", options=Options())
    store.write(ColumnBlock(tuple(sample.id for sample in samples), values))
    return store


def _no_model() -> Any:
    raise AssertionError("the probe must not load the model")


def rows(result: Result, name: str) -> list[dict[str, Any]]:
    table = result.table(name)
    return [dict(zip(table.columns, row, strict=True)) for row in table.rows()]


def signal(y: Any, seed: int, strength: float = 3.0) -> Any:
    return np.random.default_rng(seed).normal(size=(len(y), 20)) + strength * np.eye(20)[y]


# ------------------------------------------------------------------ controls


def test_a_label_that_only_names_the_type_is_not_encoded() -> None:
    """The column tells 12 types apart; every labelling of the types can be read from it."""
    rng = np.random.default_rng(0)
    types = np.arange(N) % 12
    y = (np.arange(12) % 2)[types]
    x = 3 * np.eye(20)[types] + 0.3 * rng.normal(size=(N, 20))
    plain = probe(samples_of(y), {"llm.block.0/last": x})
    assert plain.findings[0].verdict is Verdict.ENCODED
    typed = probe(samples_of(y, type=types.tolist()), {"llm.block.0/last": x})
    (found,) = rows(typed, "probe-columns")
    assert found["control_task"] > 0.9
    assert found["train_control_task"] >= found["control_task"]
    assert found["control"] < 0.65
    assert found["selectivity"] == pytest.approx(found["accuracy"] - found["control_task"])
    assert found["verdict"] == "inconclusive"
    named = probe(samples_of(y, kind=types.tolist()), {"llm.block.0/last": x}, types="kind")
    assert rows(named, "probe-columns")[0]["control_task"] == found["control_task"]
    assert "control task (by type)" in [series.name for series in typed.figures[0].series]


def test_the_control_task_leaves_a_real_signal_alone() -> None:
    rng = np.random.default_rng(0)
    y = rng.integers(0, 2, N)
    types = rng.integers(0, 12, N)
    result = probe(samples_of(y, type=types.tolist()), {"llm.block.0/last": signal(y, 1)})
    (found,) = rows(result, "probe-columns")
    assert found["control_task"] < 0.7
    assert found["verdict"] == "encoded"


# ------------------------------------------------------------------ shortcuts


def test_a_prompt_that_gives_the_label_away_is_a_shortcut() -> None:
    y = np.arange(N) % 2
    prompts = [f"Is it {'day' if label else 'night'}?" for label in y]
    result = probe(samples_of(y, prompt=prompts), {"llm.block.0/last": signal(y, 1)})
    found = {row["shortcut"]: row for row in rows(result, "probe-shortcuts")}
    assert found["words"]["accuracy"] == 1.0
    assert found["words"]["explains"]
    assert not found["majority"]["explains"]
    assert any(
        "a shortcut explains the accuracy. A probe on the words" in w for w in result.warnings
    )


def test_a_picture_s_color_is_a_shortcut_and_equal_pictures_are_none() -> None:
    y = np.arange(N) % 2
    tones = [(Image.new("RGB", (8, 8), (200 * int(v), 0, i % 50)),) for i, v in enumerate(y)]
    result = probe(samples_of(y, images=tones), {"llm.block.0/last": signal(y, 1)})
    found = {row["shortcut"]: row for row in rows(result, "probe-shortcuts")}
    assert found["image"]["explains"]
    assert "words" not in found
    gray = [(Image.new("RGB", (8, 8)),)] * N
    groups = [f"g{i}" for i in range(N)]
    result = probe(samples_of(y, images=gray, group=groups), {"llm.block.0/last": signal(y, 1)})
    assert {row["shortcut"] for row in rows(result, "probe-shortcuts")} == {"majority"}
    assert not result.warnings


def test_the_embedding_layer_is_a_shortcut_where_it_does_as_well() -> None:
    y = np.arange(N) % 2
    both = {"llm.embed/last": signal(y, 1), "llm.block.0/last": signal(y, 2)}
    result = probe(samples_of(y), both)
    assert any("The embedding layer" in warning for warning in result.warnings)
    late = {"llm.embed/last": signal(y, 1, 0.0), "llm.block.0/last": signal(y, 2)}
    assert not probe(samples_of(y), late).warnings


def test_images_that_cannot_be_read_are_said_and_stop_nothing(tmp_path: Path) -> None:
    y = np.arange(N) % 2
    gone = [(str(tmp_path / f"{i}.png"),) for i in range(N)]
    result = probe(samples_of(y, images=gone), {"llm.block.0/last": signal(y, 1)})
    assert any("image baseline was left out" in warning for warning in result.warnings)
    assert result.findings[0].verdict is Verdict.ENCODED


def test_features_of_shortcuts() -> None:
    sample = Sample("a", "?", images=(Image.new("RGB", (9, 5), (255, 0, 51)),))
    np.testing.assert_allclose(thumbnail(sample), np.tile([1.0, 0.0, 0.2], 17), atol=1e-6)
    found = words([Sample("a", "Red cube?"), Sample("b", "red ball!")])
    assert found is not None
    assert found.array().shape == (2, 5)
    assert words([Sample("a", " "), Sample("b", "")]) is None


# ------------------------------------------------------------------ stages


def staged(columns: dict[str, Any], y: Any, said: Any) -> tuple[Probed, Result]:
    """What is found where the model's answers are known."""
    samples = samples_of(y)
    answers = {sample.id: str(value) for sample, value in zip(samples, said, strict=True)}
    options = ProbeOptions(**QUICK)
    (target,), _ = find_targets(["label"], samples, folds=5, min_per_class=10)
    with stored(samples, columns) as store:
        import torch

        prober = Prober(options, Columns(store), 0, torch.device("cpu"), Features(print), answers)
        found = prober.probe(target, list(columns), print, lambda done: None)
    from vlmlens_plugins.analysis.probe import figures, report, tables

    return found, Result(
        "probe", "", report.findings([found], options), tables.tables([found]),
        figures.figures([found]),
    )  # fmt: skip


Y = np.random.default_rng(3).integers(0, 2, N)
MANY = np.random.default_rng(3).integers(0, 2, 800)
"""Enough to rule out a gap that counts, 0.1, in every column that holds nothing."""
NOISE = np.random.default_rng(4).integers(0, 2, len(MANY))
MOSTLY = np.where(np.random.default_rng(5).random(len(MANY)) < 0.75, MANY, 1 - MANY)
SEEN = {"vision.block.0/mean": signal(MANY, 1), "projector/mean": signal(MANY, 2)}
UNSEEN = {"vision.block.0/mean": signal(MANY, 1, 0.0), "projector/mean": signal(MANY, 2, 0.0)}


@pytest.mark.parametrize(
    ("vision", "said", "outcome"),
    [
        (SEEN, MANY, Outcome.ANSWERED),
        (SEEN, np.zeros(len(MANY), int), Outcome.NOT_ANSWERED),
        (SEEN, NOISE, Outcome.NOT_ANSWERED),
        (SEEN, MOSTLY, Outcome.PARTLY),
        (UNSEEN, MANY, Outcome.ONLY_ANSWERED),
        (UNSEEN, NOISE, Outcome.NEITHER),
    ],
)
def test_what_is_read_stands_beside_what_is_answered(
    vision: Any, said: Any, outcome: Outcome
) -> None:
    found, result = staged({**vision, "llm.block.0/last": signal(MANY, 6)}, MANY, said)
    assert found.answered is not None
    assert found.answered.outcome is outcome
    finding = result.findings[-1]
    assert finding.values["outcome"] == outcome.value
    assert finding.values["answer_accuracy"] == pytest.approx((said == MANY).mean())
    assert "answered" in finding.text
    assert finding.notable is (outcome is Outcome.NOT_ANSWERED)
    stages = [row["stage"] for row in rows(result, "probe-stages")]
    assert stages == ["vision encoder", "projector", "language model", "the model's answers"]
    assert result.figures[0].series[-1].name == "the model's answers"


def test_too_few_samples_leave_it_open() -> None:
    """What 800 samples rule out, 60 do not."""
    few = slice(0, 60)
    columns = {name: x[few] for name, x in UNSEEN.items()}
    found, _ = staged(columns, MANY[few], MANY[few])
    assert found.answered is not None
    assert found.answered.outcome is Outcome.UNCLEAR


def test_rows_of_every_table_are_told_apart() -> None:
    """Else runs could not be compared row by row."""
    _, result = staged({**SEEN, "llm.block.0/last": signal(MANY, 6)}, MANY, MOSTLY)
    for table in result.tables:
        about = [tuple(row[key] for key in table.about) for row in rows(result, table.name)]
        assert len(set(about)) == len(about), table.name


def test_without_answers_there_is_one_finding() -> None:
    result = probe(samples_of(Y), {"vision.block.0/mean": signal(Y, 1)})
    assert [finding.verdict for finding in result.findings] == [Verdict.ENCODED]
    assert len(rows(result, "probe-stages")) == 1


# ------------------------------------------------------------------ overview


def test_the_overview_says_from_where_on_it_can_be_read() -> None:
    strengths = [0.0, 0.7, 3.0, 3.2, 3.1]
    layers = {f"llm.block.{i}/last": signal(Y, i, s) for i, s in enumerate(strengths)}
    (cell,) = probe(samples_of(Y), layers).overview
    assert (cell.subject, cell.question) == ("t", "can be read from")
    assert cell.text == "llm.block.2 on"
    assert cell.verdict is Verdict.ENCODED
    assert cell.value == max(x for x in cell.curve if x is not None) > 0.95
    assert cell.beside.startswith("baseline 0.5")
    assert len(cell.curve) == 5
    (fades,) = probe(samples_of(Y), {**layers, "llm.block.4/last": signal(Y, 4, 0.0)}).overview
    assert fades.text == "llm.block.2"


def test_the_overview_names_the_only_side_and_what_is_nowhere() -> None:
    many = samples_of(MANY)
    assert probe(many, UNSEEN).overview[0].text == "nowhere"
    late = {**UNSEEN, "llm.block.0/last": signal(MANY, 6)}
    assert probe(many, late).overview[0].text == "language model only"
    few = {name: x[:60] for name, x in UNSEEN.items()}
    assert probe(samples_of(MANY[:60]), few).overview[0].text == "unclear"
    (odd,) = probe(samples_of(Y), {"model.layers.1/last": signal(Y, 1)}).overview
    assert odd.text == "model.layers.1"


def test_one_row_of_the_overview_per_attribute() -> None:
    """A task's labels before an attribute; of an attribute, the target that is read best."""
    samples = samples_of(MANY, t=NOISE.tolist(), side=MANY.tolist())
    targets = ["label", "t", "side@t", "side"]
    result = probe(samples, {"llm.block.0/last": signal(MANY, 1)}, targets=targets)
    assert [cell.subject for cell in result.overview] == ["t", "side"]
    assert result.overview[0].verdict is Verdict.ENCODED


def test_samples_without_a_task_have_one_row_in_all_analyses() -> None:
    bare = [replace(sample, task=None) for sample in samples_of(Y)]
    (cell,) = probe(bare, {"llm.block.0/last": signal(Y, 1)}).overview
    assert cell.subject == ALL


# ------------------------------------------------------------------ layers, power, export


def test_the_plateau_starts_at_the_earliest_layer_that_is_not_worse() -> None:
    strengths = [0.0, 0.7, 3.0, 3.2, 1.0]
    columns = {f"llm.block.{i}/last": signal(Y, i, s) for i, s in enumerate(strengths)}
    result = probe(samples_of(Y), columns)
    places = rows(result, "probe-layers")
    assert [row["plateau_start"] for row in places] == [False, False, True, False, False]
    assert places[0]["rank"] == 5
    assert not places[0]["not_worse"]
    assert places[0]["behind_low"] > 0
    assert sorted(row["rank"] for row in places) == [1, 2, 3, 4, 5]
    assert all(row["rank_low"] <= row["rank"] <= row["rank_high"] for row in places)
    assert result.findings[0].text.endswith("as good as the best layer from llm.block.2/last on.")


def test_power_is_the_normal_approximation_s() -> None:
    """At a gap's least number of samples, four in five drawn gaps pass the limit as it is drawn."""
    noise = Noise(significant=0.11, below=0.08, spread=0.04, least=0.01, seeds=20)
    assert noise.limit() == 0.11
    assert noise.limit(4.0) == pytest.approx(0.055)
    assert noise.limit(1e6) == 0.01
    assert noise.power(noise.limit()) == pytest.approx(0.5)
    assert noise.power(noise.detectable()) == pytest.approx(0.8)
    factor = noise.factor_needed(0.06)
    assert noise.power(0.06, factor) == pytest.approx(0.8)
    assert factor > 1
    assert noise.samples_needed(0.06, 100) == math.ceil(100 * factor)
    assert noise.samples_needed(0.005, 100) is None
    rng, shrink = np.random.default_rng(0), 1 / math.sqrt(factor)
    gaps = rng.normal(0.06, 0.04 * shrink, 100_000)
    deviations = np.sqrt(rng.chisquare(19, 100_000) / 19)
    limits = (0.11 * shrink * deviations, 0.08 * shrink * deviations, 0.01)
    passed = np.all([gaps > limit for limit in limits], axis=0)
    assert passed.mean() == pytest.approx(0.8, abs=0.01)
    certain = Noise(significant=0.0, below=0.0, spread=0.0, least=0.05, seeds=20)
    assert [certain.power(gap) for gap in (0.04, 0.05)] == [0.0, 1.0]


def test_a_weak_signal_says_how_many_samples_would_show_it() -> None:
    y = np.arange(60) % 2
    result = probe(samples_of(y), {"llm.block.0/last": signal(y, 1, 0.6)})
    (found,) = rows(result, "probe-columns")
    assert found["verdict"] == "inconclusive"
    assert "60 samples only show" in result.findings[0].text
    assert found["detectable_gap"] > found["gap"]
    assert found["samples_needed"] is None or found["samples_needed"] > 60


@pytest.mark.parametrize("kind", ["safetensors", "npz"])
@pytest.mark.parametrize("model", ["logistic", "centroid", "mlp", "ridge"])
def test_exported_probes_can_be_applied_to_raw_activations(
    tmp_path: Path, kind: str, model: str
) -> None:
    x = signal(Y, 1) * 40 + 1000
    settings = {"model": model, "export": str(tmp_path / "out"), "export_format": kind}
    labels = Y * 2.0 + np.arange(N) % 3 if model == "ridge" else Y
    result = probe(samples_of(labels), {"llm.block.0/last": x}, hidden=8, epochs=60, **settings)
    (path,) = (tmp_path / "out").iterdir()
    assert path.name in result.notes[-1]
    arrays, facts = read_export(path)
    np.testing.assert_array_equal(arrays["features"], x.astype(np.float32))
    out = arrays["features"].astype(np.float64) @ arrays["weights"] + arrays["bias"]
    if model == "mlp":
        out = np.maximum(out, 0) @ arrays["weights2"] + arrays["bias2"]
    if model == "ridge":
        scaled = (x - x.mean(0)) / x.std(0)
        expected = Ridge(alpha=10.0).fit(scaled, labels).predict(scaled)
        np.testing.assert_allclose(out[:, 0], expected, atol=0.02)
        assert facts["classes"] == []
    else:
        said = (out[:, 0] > 0).astype(int) if out.shape[1] == 1 else out.argmax(1)
        scaled = (x - x.mean(0)) / x.std(0)
        theirs = {
            "logistic": LogisticRegression(C=0.1, tol=1e-8),
            "centroid": NearestCentroid(),
        }
        if model in theirs:
            assert (said == theirs[model].fit(scaled, Y).predict(scaled)).all()
        assert (said == arrays["labels"]).mean() > 0.95
        assert facts["classes"] == ["0", "1"]
    assert facts["ids"] == [f"s{i}" for i in range(N)]
    assert facts["column"] == "llm.block.0/last"


def test_ridge_finds_a_number_and_says_r2() -> None:
    rng = np.random.default_rng(0)
    size = rng.uniform(10, 90, N)
    x = rng.normal(size=(N, 20))
    x[:, 3] = size / 20 + 0.3 * rng.normal(size=N)
    columns = {"llm.block.0/last": x, "llm.block.1/last": rng.normal(size=(N, 20))}
    result = probe(samples_of(Y, size=size), columns, model="ridge", targets=["size"])
    first, second = rows(result, "probe-columns")
    assert first["verdict"] == "encoded"
    assert first["accuracy"] == pytest.approx(0.94, abs=0.04)
    assert first["majority"] == pytest.approx(0.0)
    assert second["verdict"] == "not encoded"
    assert "R2" in result.findings[0].text
    with pytest.raises(MissingAnnotation, match="0 numbers"):
        probe(samples_of(Y, name=["x"] * N), columns, model="ridge", targets=["name"])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"split": "value"}, "needs the attribute whose values"),
        ({"split": "value", "hold_out": "colour"}, "attribute 'colour'"),
        ({"types": "kind"}, "attribute 'kind'"),
    ],
)
def test_settings_that_cannot_be_are_said_at_once(options: Any, message: str) -> None:
    with pytest.raises(MissingAnnotation, match=message):
        Probe(ProbeOptions(**options)).check(samples_of(Y, color=Y.tolist()), [])


def test_one_strength_or_several() -> None:
    assert validated(ProbeOptions, {"C": 0.5}, where="probe").C == [0.5]
    assert validated(ProbeOptions, {"C": [1, 0.1]}, where="probe").C == [0.1, 1]
    with pytest.raises(SpecError, match="C"):
        validated(ProbeOptions, {"C": [0.0]}, where="probe")


def test_perfect_accuracy_claims_no_certainty() -> None:
    """With 240 groups and no error, 0.985 cannot be excluded: 0.985^240 is 0.025."""
    columns = {"vision.block.0/mean": signal(Y, 1, 20.0)}
    result = probe(samples_of(Y), columns)
    (found,) = rows(result, "probe-columns")
    assert found["accuracy"] == 1.0
    assert found["accuracy_low"] == pytest.approx(0.025 ** (1 / N))
    assert found["accuracy_high"] == 1.0
    assert found["gap_low"] < found["gap"] - 0.015
    grouped = probe(samples_of(Y, group=[f"g{i // 2}" for i in range(N)]), columns)
    (fewer,) = rows(grouped, "probe-columns")
    assert fewer["accuracy_low"] == pytest.approx(0.025 ** (2 / N))
