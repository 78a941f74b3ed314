"""Executing a plan: modes, resuming, fingerprints, what is kept when it fails."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pluggy
import pytest

import vlmlens
from vlmlens import Run
from vlmlens.abc.observer import SilentObserver
from vlmlens.compose.plan import Plan, compose
from vlmlens.errors import (
    ColumnNotFound,
    CompositionError,
    FingerprintMismatch,
    RunExists,
    RunNotFound,
)
from vlmlens.registry import Registry
from vlmlens.runner.execution import analyze, execute
from vlmlens.runner.stages import Job, Watch
from vlmlens.spec.model import make_spec, read_yaml
from vlmlens.testing._rounding import close


def plan(out: Path | None, registry: Registry | None = None, **values: Any) -> Plan:
    chosen = {"limit": 12, "batch_size": 5, "sites": ["llm.block.*"], **values}
    spec = make_spec({"out": str(out) if out else None, **chosen})
    return compose(spec, registry or Registry.default(), analyse=bool(spec.analysis))


def extract(out: Path | None, **values: Any) -> Run:
    return execute(plan(out, **values), extract_only=True)


def test_a_run_folder(tmp_path: Path) -> None:
    run = extract(tmp_path / "r")
    assert run.info["state"] == "finished"
    assert run.info["summary"]["samples"] == 12
    assert run.info["model"]["dtype"] == "float32"
    assert [sample.id for sample in run.samples] == [s.id for s in plan(None).samples]
    again = make_spec(read_yaml(run.path / "spec.yaml"))
    assert again == run.spec
    assert repr(run) == f"Run({str(run.path)!r})"


def test_a_warning_is_shown_again_where_the_run_goes_on(tmp_path: Path) -> None:
    class Hearing(SilentObserver):
        def warn(self, message: str) -> None:
            heard.append(message)

    heard: list[str] = []
    run = extract(tmp_path / "r")
    for _ in range(2):
        job = Job(run, Registry.default().hooks(), lambda: None, Watch(Hearing()))  # type: ignore[arg-type, return-value]
        job.warnings = list(run.info["warnings"])
        job.warn("halved")
        job.warn("halved")
    assert heard == ["halved", "halved"]
    assert run.info["warnings"] == ["halved"]


def test_columns_read_back_in_sample_order(tmp_path: Path) -> None:
    run = extract(tmp_path / "r", sites=["llm.block.1/last", "llm.block.1/all"])
    pooled = run.activations["llm.block.1/last"]
    ragged = run.activations["llm.block.1/all"]
    assert pooled.shape == (12, 128)
    assert pooled.dtype == np.float32
    assert len(ragged) == 12
    for row, rows in zip(pooled, ragged, strict=True):
        assert np.array_equal(row, rows[-1])
    assert list(run.activations) == ["llm.block.1/last", "llm.block.1/all"]
    assert "llm.block.1/last" in run.activations
    assert "llm.block.1/mean" not in run.activations
    with pytest.raises(ColumnNotFound):
        run.activations["llm.block.1/mean"]


def test_folders_are_numbered(in_tmp: Path) -> None:
    assert extract(None).path == Path("runs/demo-001")
    assert extract(None).path == Path("runs/demo-002")


def test_an_existing_run_is_not_touched(tmp_path: Path) -> None:
    run = extract(tmp_path / "r")
    before = run.info
    with pytest.raises(RunExists, match="finished") as caught:
        extract(tmp_path / "r")
    assert "--resume" in caught.value.hint
    assert run.info == before


def test_fresh_removes_only_what_is_ours(tmp_path: Path) -> None:
    run = extract(tmp_path / "r")
    (run.path / "notes.txt").write_text("mine")
    other = execute(plan(run.path, sites=["projector"]), mode="fresh", extract_only=True)
    assert list(other.activations) == ["projector/image.mean"]
    assert (run.path / "notes.txt").read_text() == "mine"


def test_resuming_a_finished_run_stores_nothing_twice(tmp_path: Path) -> None:
    run = extract(tmp_path / "r")
    before = run.activations["llm.block.5/last"]
    again = execute(plan(run.path), mode="resume", extract_only=True)
    assert np.array_equal(again.activations["llm.block.5/last"], before)
    assert again.info["model"]["dtype"] == "float32", "what made the rows is still known"


def test_resuming_adds_samples_and_columns(tmp_path: Path) -> None:
    extract(tmp_path / "r", limit=7, sites=["llm.block.1"])
    run = execute(
        plan(tmp_path / "r", limit=12, sites=["llm.block.1", "projector"]),
        mode="resume",
        extract_only=True,
    )
    whole = extract(tmp_path / "whole", sites=["llm.block.1", "projector"])
    for name in ("llm.block.1/last", "projector/image.mean"):
        close(run.activations[name], whole.activations[name])


class Stops:
    """A lifecycle plugin that breaks the run off after some batches."""

    def __init__(self, after: int, error: type[BaseException]) -> None:
        self.left, self.error = after, error

    @vlmlens.hookimpl
    def vlmlens_batch_done(self) -> None:
        self.left -= 1
        if self.left == 0:
            raise self.error


@pytest.fixture
def registry() -> Registry:
    return Registry.default()


def hooked(registry: Registry, plugin: Any) -> pluggy.PluginManager:
    manager = registry.hooks()
    manager.register(plugin)
    return manager


def test_an_interrupted_run_goes_on_bit_for_bit(tmp_path: Path, registry: Registry) -> None:
    hooked(registry, Stops(2, KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        execute(plan(tmp_path / "r", registry), extract_only=True)
    half = Run(tmp_path / "r")
    assert half.info["state"] == "interrupted"
    assert half.activations["llm.block.5/last"].shape == (10, 128)
    run = execute(plan(half.path), mode="resume", extract_only=True)
    whole = extract(tmp_path / "whole")
    assert run.info["state"] == "finished"
    for name in whole.activations:
        assert np.array_equal(run.activations[name], whole.activations[name]), name


def test_a_failing_lifecycle_plugin_harms_nobody(tmp_path: Path, registry: Registry) -> None:
    hooked(registry, Stops(1, ZeroDivisionError))
    run = execute(plan(tmp_path / "r", registry), extract_only=True)
    assert run.info["state"] == "finished"


def test_lifecycle_events_come_in_order(tmp_path: Path, registry: Registry) -> None:
    class Records:
        def __init__(self) -> None:
            self.seen: list[Any] = []

        @vlmlens.hookimpl
        def vlmlens_run_started(self, run: Run) -> None:
            self.seen.append(("started", run.info["state"]))

        @vlmlens.hookimpl
        def vlmlens_batch_done(self, done: int, total: int, seconds: float) -> None:
            assert seconds > 0
            self.seen.append((done, total))

        @vlmlens.hookimpl
        def vlmlens_result_ready(self, result: Any) -> None:
            self.seen.append(result.analysis)

        @vlmlens.hookimpl
        def vlmlens_run_finished(self, summary: Any) -> None:
            self.seen.append(("finished", sorted(summary)))

    records = Records()
    hooked(registry, records)
    execute(plan(tmp_path / "r", registry, analysis=["logit-lens"]))
    assert records.seen == [
        ("started", "running"),
        (5, 12),
        (10, 12),
        (12, 12),
        "logit-lens",
        ("finished", ["samples", "seconds", "skipped"]),
    ]


def test_analysing_later_takes_what_suits(tmp_path: Path) -> None:
    run = extract(tmp_path / "r", limit=100, sites=["llm.block.-1"])
    results = analyze(run, {}, Registry.default(), seed=3)
    assert [result.analysis for result in results] == ["probe", "logit-lens", "blind-test"]
    assert results[0].options["targets"] == ["label", "photographer@color"], "as the data suggests"
    assert set(run.results) == {"probe", "logit-lens", "blind-test"}
    assert run.report_path.is_file()
    only_vision = extract(tmp_path / "v", limit=100, sites=["vision.block.-1"])
    results = analyze(only_vision, {}, Registry.default())
    assert [result.analysis for result in results] == ["probe", "blind-test"]
    assert any("logit-lens is left out" in line for line in only_vision.info["warnings"])
    with pytest.raises(CompositionError):
        analyze(only_vision, {"logit-lens": {}}, Registry.default())


def test_other_conditions_are_refused(tmp_path: Path) -> None:
    extract(tmp_path / "r", limit=5)
    other = plan(tmp_path / "r", dtype="bfloat16")
    with pytest.raises(FingerprintMismatch, match="dtype was 'float32', is 'bfloat16'"):
        execute(other, mode="resume", extract_only=True)
    run = Run(tmp_path / "r")
    assert run.info["state"] == "failed"
    assert run.activations["llm.block.0/last"].shape == (5, 128), "nothing stored is lost"
    assert execute(plan(run.path), mode="resume", extract_only=True).info["state"] == "finished"


def test_changed_data_is_refused(tmp_path: Path) -> None:
    table = tmp_path / "t.jsonl"
    table.write_text('{"id": "a", "prompt": "x"}\n')
    extract(tmp_path / "r", data=str(table))
    table.write_text('{"id": "a", "prompt": "y"}\n')
    with pytest.raises(FingerprintMismatch, match="'a' has another prompt"):
        execute(plan(tmp_path / "r", data=str(table)), mode="resume", extract_only=True)


def test_no_run(tmp_path: Path) -> None:
    with pytest.raises(RunNotFound, match="holds no run"):
        Run(tmp_path)


def test_top_level_names() -> None:
    assert set(vlmlens.__all__) <= set(dir(vlmlens))
    assert all(getattr(vlmlens, name) is not None for name in vlmlens.__all__)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        vlmlens.nothing  # noqa: B018
