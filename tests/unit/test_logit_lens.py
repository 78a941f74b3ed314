"""The logit lens on the demo model, against the model's own logits and plain computations."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from vlmlens.abc import AnalysisContext, ColumnBlock, Options, Readout, Values
from vlmlens.errors import CompositionError, MissingAnnotation, ReadoutError
from vlmlens.report.files import to_json
from vlmlens.results import Result
from vlmlens.samples import Sample
from vlmlens.testing._rounding import ROUNDING
from vlmlens_plugins.analysis.logit_lens import LensOptions, LogitLens
from vlmlens_plugins.analysis.logit_lens.readings import Reader
from vlmlens_plugins.analysis.logit_lens.vocabulary import Vocabulary
from vlmlens_plugins.storage.memory import MemoryStore, forget


@pytest.fixture(scope="module")
def hidden(vlm: Any, scenes: list[Sample]) -> dict[str, Any]:
    trace = vlm.trace(vlm.encode(scenes), ["llm.block.*"], logits="last")
    columns = {f"{site}/last": trace.select(f"{site}/last").numpy() for site in trace}
    return {"columns": columns, "logits": trace.logits}


@pytest.fixture
def store() -> Iterator[MemoryStore]:
    forget("lens-test")
    with MemoryStore.open("lens-test", mode="a", options=Options()) as opened:
        yield opened


def run(vlm: Any, scenes: list[Sample], columns: Any, store: Any, **options: Any) -> Result:
    ids = tuple(sample.id for sample in scenes)
    store.write(ColumnBlock(ids, {n: Values(x, "float32") for n, x in columns.items()}))
    analysis = LogitLens(LensOptions(**options))
    analysis.check(scenes, list(columns))
    return analysis.run(AnalysisContext(scenes, store, lambda: vlm))


@pytest.mark.parametrize("parts", [True, False])
def test_readings_equal_a_plain_computation(parts: bool, vlm: Any, hidden: Any) -> None:
    readout = vlm.readout()
    assert readout.some is not None
    if not parts:
        readout = replace(readout, some=None)
    x, last = hidden["columns"]["llm.block.2/last"], hidden["columns"]["llm.block.5/last"]
    answers = hidden["logits"].argmax(-1).numpy()
    labels = np.array([-1, *range(5, 4 + len(x))])
    reader = Reader(Vocabulary(readout, last[0]), k=4, megabytes=0.3)
    found = reader.read([x], last, labels)
    with torch.inference_mode():
        logits = vlm.module.lm_head(vlm.module.model.language_model.norm(torch.tensor(x)))
    p, final = (z.double().softmax(-1).numpy() for z in (logits, hidden["logits"]))
    assert found.answers.tolist() == answers.tolist()
    off = ROUNDING * max(float(z.abs().max()) for z in (logits, hidden["logits"]))
    for i in range(len(x)):
        order = np.argsort(-p[i])
        assert found.top[0, i].tolist() == order[:4].tolist()
        np.testing.assert_allclose(found.top_probability[0, i], p[i][order[:4]], rtol=off)
        assert found.entropy[0, i] == pytest.approx(-(p[i] * np.log(p[i])).sum(), rel=off)
        kl = (final[i] * np.log(final[i] / p[i])).sum()
        assert found.divergence[0, i] == pytest.approx(kl, rel=off, abs=2 * off)
        assert found.answer_probability[0, i] == pytest.approx(p[i][answers[i]], rel=off)
        assert found.answer_rank[0, i] == 1 + (p[i] > p[i][answers[i]]).sum()
        if i:
            assert found.label_rank[0, i] == 1 + (p[i] > p[i][labels[i]]).sum()
    assert np.isnan(found.label_probability[0, 0])
    assert found.label_rank[0, 0] == 0


def test_without_the_norm_the_head_alone_reads(vlm: Any, hidden: Any) -> None:
    x, last = hidden["columns"]["llm.block.1/last"], hidden["columns"]["llm.block.5/last"]
    reader = Reader(Vocabulary(vlm.readout(), last[0]), k=1, norm=False)
    found = reader.read([x, last], last, same=1)
    with torch.inference_mode():
        for i, rows in enumerate((x, last)):
            logits = vlm.module.lm_head(torch.tensor(rows))
            off = ROUNDING * float(logits.abs().max())
            plain = logits.softmax(-1).amax(-1)
            np.testing.assert_allclose(found.top_probability[i, :, 0], plain, rtol=off)
    assert found.answers.tolist() == hidden["logits"].argmax(-1).tolist()


def test_a_run_reports_every_task_and_layer(
    vlm: Any, scenes: list[Sample], hidden: Any, store: Any
) -> None:
    result = run(vlm, scenes, hidden["columns"], store, k=3, samples=1)
    tasks = ["color", "shape", "number", "presence", "surface"]
    assert [finding.subject for finding in result.findings] == tasks
    table = result.table("lens-layers")
    assert len(table) == 5 * 6
    last = [row for row in table.rows() if row[1] == "llm.block.5/last"]
    names = list(table.columns)
    for row in last:
        values = dict(zip(names, row, strict=True))
        assert values["agreement"] == 1
        assert values["answer_rank"] == 1
        assert values["settled_by_here"] == 1
    tokens = result.table("lens-tokens")
    assert len(tokens) == 5 * 6 * 3
    assert [figure.kind for figure in result.figures] == ["line"] * 5 + ["lens", "line"]
    sheets = result.figures[5].sheets
    assert [sheet.facets["task"] for sheet in sheets] == tasks
    assert np.array(sheets[0].cells).shape == np.array(sheets[0].texts).shape == (6, 3)
    names = list(result.table("lens-tasks").columns)
    for row in result.table("lens-tasks").rows():
        values = dict(zip(names, row, strict=True))
        assert (
            values["settling_mean_low"] <= values["settling_mean"] <= values["settling_mean_high"]
        )
        assert values["samples"] == 8
    assert to_json(Result.from_dict(json.loads(to_json(result)))) == to_json(result)


def test_the_overview_names_the_layer_at_which_the_answer_settles(
    vlm: Any, scenes: list[Sample], hidden: Any, store: Any
) -> None:
    result = run(vlm, scenes, hidden["columns"], store)
    layers = {f.subject: f.values["settling_layer"] for f in result.findings}
    assert {cell.subject: cell.text for cell in result.overview} == layers
    assert {cell.question for cell in result.overview} == {"answer settles"}
    by_task = result.table("lens-layers").columns
    drawn = [value for cell in result.overview for value in cell.curve]
    assert drawn == by_task["answer_probability"]
    early = LogitLens(LensOptions(columns=["llm.block.0"]))
    result = early.run(AnalysisContext(scenes, store, lambda: vlm))
    assert "does not settle" in {cell.text for cell in result.overview}


def test_without_the_norm_it_is_said(
    vlm: Any, scenes: list[Sample], hidden: Any, store: Any
) -> None:
    result = run(vlm, scenes, hidden["columns"], store, norm=False)
    assert "WITHOUT the final norm" in result.notes[0]
    assert result.findings


@pytest.mark.parametrize("mistake", ["rows", "scale", "width"])
def test_columns_of_another_model_or_order_are_caught(
    mistake: str, vlm: Any, scenes: list[Sample], hidden: Any, store: Any
) -> None:
    columns = dict(hidden["columns"])
    x = columns["llm.block.5/last"]
    columns["llm.block.5/last"] = {
        "rows": np.roll(x, 1, 0),
        "scale": columns["llm.block.4/last"],
        "width": vlm.module.model.language_model.norm(torch.tensor(x)).detach().numpy() + 0.1,
    }[mistake]
    with pytest.raises(ReadoutError, match="does not give the model's own logits") as caught:
        run(vlm, scenes, columns, store)
    assert caught.value.subject == "llm.block.5"


def test_an_adapter_whose_readout_forgets_the_norm_is_caught(
    vlm: Any, scenes: list[Sample], hidden: Any, store: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    right = vlm.readout()
    wrong = Readout(norm=lambda h: h, unembed=right.unembed, site=right.site)
    monkeypatch.setattr(vlm, "readout", lambda: wrong)
    with pytest.raises(ReadoutError, match="off by"):
        run(vlm, scenes, hidden["columns"], store)


def test_a_model_without_a_readout_is_an_error(
    vlm: Any, scenes: list[Sample], hidden: Any, store: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(vlm, "readout", lambda: None)
    with pytest.raises(ReadoutError, match="no final norm"):
        run(vlm, scenes, hidden["columns"], store)


def test_the_last_block_must_be_stored(
    vlm: Any, scenes: list[Sample], hidden: Any, store: Any
) -> None:
    columns = {name: x for name, x in hidden["columns"].items() if "5" not in name}
    with pytest.raises(CompositionError, match=r"llm\.block\.5/last"):
        run(vlm, scenes, columns, store)


def test_unfit_columns_and_unknown_samples_are_errors(scenes: list[Sample]) -> None:
    lens = LogitLens(LensOptions(columns=["vision.block.*"]))
    with pytest.raises(CompositionError, match="cannot read"):
        lens.check(scenes, ["vision.block.0/image.mean"])
    with pytest.raises(CompositionError, match="No stored column"):
        LogitLens(LensOptions()).check(scenes, ["vision.block.0/image.mean"])
    with pytest.raises(MissingAnnotation, match="no sample 'nobody'"):
        LogitLens(LensOptions(samples=["nobody"])).check(scenes, [])
    LogitLens(LensOptions(samples=[scenes[0].id])).check(scenes, [])


def of_colors(scenes: list[Sample], hidden: Any) -> dict[str, Any]:
    """The columns of the questions about colors."""
    rows = [i for i, sample in enumerate(scenes) if sample.task == "color"]
    return {name: values[rows] for name, values in hidden["columns"].items()}


def relabelled(scenes: list[Sample], color: Any, task: str | None = "color") -> list[Sample]:
    """The questions on colour alone, with other labels and no choices."""
    members = [each for each in scenes if each.task == "color"]
    return [replace(s, label=color(i, s), choices=(), task=task) for i, s in enumerate(members)]


@pytest.mark.parametrize(
    "labels",
    [
        ("red square", "red circle"),
        ("red", "red square"),
        ("no red", "no green", "no blue", "no"),
    ],
)
def test_labels_that_share_their_first_token_are_not_said_to_be_right(
    labels: tuple[str, ...], vlm: Any, scenes: list[Sample], hidden: Any, store: Any
) -> None:
    samples = relabelled(scenes, lambda i, _: labels[i % len(labels)], task=None)
    columns = of_colors(scenes, hidden)
    result = run(vlm, samples, columns, store)
    (found,) = result.findings
    assert "right in" not in found.text
    assert "begins like the label" not in found.text
    assert "cannot be told in 8 of 8" in found.text
    assert found.values["labels_not_told"] == 8
    assert found.values["label_top1_last"] is None
    assert set(result.table("lens-layers").columns["label_top1"]) == {None}


def test_the_labels_that_the_first_token_tells_are_still_counted(
    vlm: Any, scenes: list[Sample], hidden: Any, store: Any
) -> None:
    samples = relabelled(scenes, lambda i, s: s.label if i else "not this one")
    samples[1] = replace(samples[1], label="not that one")
    columns = of_colors(scenes, hidden)
    (found,) = run(vlm, samples, columns, store).findings
    assert "it is right in 100% (cannot be told in 2 of 8" in found.text


def test_a_label_of_several_tokens_is_begun_not_right(
    vlm: Any, scenes: list[Sample], hidden: Any, store: Any
) -> None:
    samples = relabelled(scenes, lambda _, s: f"{s.label} square")
    assert len(vlm.answer_ids(samples[0].label)) > 1
    columns = of_colors(scenes, hidden)
    (found,) = run(vlm, samples, columns, store).findings
    assert "it begins like the label in 100%" in found.text


def test_choices_count_among_the_answers_that_a_label_must_be_told_from(
    vlm: Any, scenes: list[Sample], hidden: Any, store: Any
) -> None:
    samples = relabelled(scenes, lambda _, s: "red square")
    samples = [replace(s, choices=("red square", "red circle")) for s in samples]
    columns = of_colors(scenes, hidden)
    (found,) = run(vlm, samples, columns, store).findings
    assert "cannot be told in 8 of 8" in found.text
