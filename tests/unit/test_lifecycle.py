"""The lifecycle plugins that ship with vlmlens, and the hooks that they live by."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from tests._program import python

import vlmlens
from vlmlens import Run
from vlmlens.compose.plan import compose
from vlmlens.errors import BrokenPlugin, MissingDependency, SpecError, VlmlensError
from vlmlens.registry import Registry
from vlmlens.results import Finding, Result, Table
from vlmlens.runner.execution import analyze, execute
from vlmlens.spec.model import make_spec
from vlmlens_plugins.lifecycle._result_numbers import AT_MOST, numbers
from vlmlens_plugins.lifecycle.run_log import RunLog
from vlmlens_plugins.lifecycle.timing import pace


def carry_out(out: Path, registry: Registry | None = None, **values: Any) -> Run:
    chosen = {"limit": 12, "batch_size": 4, "sites": ["llm.block.*"], "out": str(out), **values}
    mode: Any = chosen.pop("mode", "new")
    spec = make_spec(chosen)
    plan = compose(spec, registry or Registry.default(), analyse=bool(spec.analysis))
    return execute(plan, mode=mode, extract_only=not spec.analysis)


def timing(run: Run) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((run.path / "plugins" / "timing.json").read_text())
    return found


class Records:
    """A lifecycle plugin that keeps what it is told, and may refuse a run or break it off."""

    def __init__(self, refusal: VlmlensError | None = None, error: Any = None) -> None:
        self.refusal, self.error = refusal, error
        self.stages: list[str] = []
        self.failed: list[BaseException] = []

    @vlmlens.hookimpl
    def vlmlens_check(self) -> VlmlensError | None:
        return self.refusal

    @vlmlens.hookimpl
    def vlmlens_batch_done(self) -> None:
        if self.error:
            raise self.error

    @vlmlens.hookimpl
    def vlmlens_stage_done(self, stage: str, seconds: float) -> None:
        assert seconds > 0
        self.stages.append(stage)

    @vlmlens.hookimpl
    def vlmlens_run_failed(self, run: Run, error: BaseException) -> None:
        self.failed.append(error)
        self.stages.append(run.info["state"])

    @vlmlens.hookimpl
    def vlmlens_facts(self) -> Any:
        return {"Weather": {"sun": 3}, "Nothing": 5}


def registered(plugin: object) -> Registry:
    registry = Registry.default()
    registry.hooks().register(plugin)
    return registry


# ---------------------------------------------------------------------- hooks


def test_stages_and_facts_are_told(tmp_path: Path) -> None:
    told = Records()
    run = carry_out(tmp_path / "r", registered(told), analysis=["logit-lens"])
    assert told.stages == ["load model", "extract", "logit-lens", "report"]
    assert told.failed == []
    assert run.facts["Weather"] == {"sun": "3"}
    assert run.facts["Nothing"] == {}, "what is no mapping says nothing"
    page = run.report_path.read_text(encoding="utf-8")
    assert "Weather" in page
    assert "samples per second" in page


def test_an_end_by_an_error_is_told(tmp_path: Path) -> None:
    told = Records(error=KeyboardInterrupt())
    with pytest.raises(KeyboardInterrupt):
        carry_out(tmp_path / "r", registered(told))
    assert told.stages == ["load model", "interrupted"]
    assert [type(error) for error in told.failed] == [KeyboardInterrupt]


def test_a_plugin_may_refuse_a_run_before_anything_is_read(tmp_path: Path) -> None:
    registry = registered(Records(SpecError("Not on a Sunday.")))
    with pytest.raises(SpecError, match="Not on a Sunday"):
        carry_out(tmp_path / "r", registry, data="no/such/data")
    assert not (tmp_path / "r").exists()
    run = carry_out(tmp_path / "r")
    with pytest.raises(SpecError, match="Not on a Sunday"):
        analyze(run, {}, registry)


def test_options_of_a_plugin_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="no lifecycle plugin 'runlog'") as caught:
        carry_out(tmp_path / "r", options={"plugins": {"runlog": {"to": "wandb"}}})
    assert caught.value.hint == "Did you mean run-log?"


def test_options_of_a_plugin_that_has_none_or_cannot_say(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(SpecError, match="'timing' has no options"):
        carry_out(tmp_path / "r", options={"plugins": {"timing": {"fast": True}}})
    assert carry_out(tmp_path / "r", options={"plugins": {"timing": {}}})
    monkeypatch.setattr(RunLog, "OPTIONS", "no_such_module:Options")
    with pytest.raises(BrokenPlugin, match=r"'run-log' cannot be imported.*no_such_module"):
        carry_out(tmp_path / "s", options={"plugins": {"run-log": {}}})
    assert carry_out(tmp_path / "s"), "who sets none is not hindered"


def test_registering_imports_nothing_heavy() -> None:
    code = (
        "import sys; from vlmlens.registry import Registry; Registry.default().hooks(); "
        "heavy = {'pydantic', 'numpy', 'torch', 'wandb', 'trackio', 'statistics', 'yaml'}; "
        "print(heavy & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


# ---------------------------------------------------------------------- timing


def test_timing_of_a_run(tmp_path: Path) -> None:
    run = carry_out(tmp_path / "r", analysis=["logit-lens"])
    found = timing(run)
    assert list(found["stages"]) == ["load model", "extract", "logit-lens", "report"]
    extract = found["stages"]["extract"]
    assert extract["batches"]["count"] == 3
    assert 0 < extract["batches"]["median_seconds"] <= extract["batches"]["longest_seconds"]
    assert extract["batches"]["longest_seconds"] <= extract["seconds"]
    assert extract["samples_per_second"] > 0
    assert found["peak_memory"]["host"] > 2**26
    assert run.facts["Speed"]["samples per second"] == str(extract["samples_per_second"])


def test_timing_is_kept_where_nothing_new_is_extracted_and_removed_with_the_run(
    tmp_path: Path,
) -> None:
    first = timing(carry_out(tmp_path / "r"))
    again = timing(carry_out(tmp_path / "r", mode="resume"))
    assert again["stages"] == first["stages"]
    run = carry_out(tmp_path / "r", mode="fresh", limit=4)
    assert timing(run)["stages"]["extract"]["batches"]["count"] == 1
    run.clear()
    assert [file.name for file in run.path.iterdir()] == ["run.lock"]


def test_pace() -> None:
    assert pace([]) == {}
    alone = pace([(4, 3.0)])
    assert alone == {
        "batches": {
            "count": 1, "median_seconds": 3.0, "p90_seconds": 3.0, "longest_seconds": 3.0,
        }
    }  # fmt: skip
    resumed = pace([(104, 10.0), (108, 11.0), (112, 12.0)])
    assert resumed["samples_per_second"] == 4.0, "what was stored before is no work of this run"
    assert resumed["batches"]["longest_seconds"] == 10.0


PEAKS = """
from vlmlens_plugins.lifecycle.timing import peak_memory
before = peak_memory()["host"]
held = bytearray(before + 2**26)
held[::4096] = b"x" * len(held[::4096])
after = peak_memory()["host"]
assert after >= before + 2**26
assert after < 4 * (before + 2**26), "bytes, not another unit"
"""


def test_peak_memory_grows_with_what_is_held() -> None:
    """In a process of its own, since this one may have held gigabytes."""
    done = python(PEAKS)
    assert done.returncode == 0, done.stderr


# ---------------------------------------------------------------------- run log


def test_numbers_of_a_result() -> None:
    result = Result(
        "probe",
        "P",
        findings=[Finding("Colour.", subject="color", values={"gap": 0.5, "where": "x", "n": 3})],
        tables=[
            Table("acc", "A", {"column": ["a/last", "b/last"], "value": [0.25, float("nan")]}),
            Table("single", "S", {"sample": ["1"], "value": [9.0]}),
        ],
    )
    assert numbers(result) == {
        "probe/color/gap": 0.5,
        "probe/color/n": 3.0,
        "probe/acc/a:last/value": 0.25,
    }
    many = Table("m", "M", {"kind": [str(i) for i in range(2000)], "value": [1.0] * 2000})
    assert len(numbers(Result("a", "A", tables=[many]))) == AT_MOST


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"to": "tensorboard"}, "trackio"),
        ({"to": "wandb", "space": "me/space"}, "space is an option of to: trackio"),
        ({"to": "trackio", "online": True}, "online is an option of to: wandb"),
        ({"too": "wandb"}, "too"),
    ],
)
def test_wrong_options_are_refused(tmp_path: Path, options: Any, said: str) -> None:
    with pytest.raises(SpecError) as caught:
        carry_out(tmp_path / "r", options={"plugins": {"run-log": options}})
    assert said in str(caught.value)
    assert not (tmp_path / "r").exists()


def test_the_environment_variable_counts_where_no_option_is_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VLMLENS_LOG_TO", "tensorboard")
    with pytest.raises(SpecError, match="VLMLENS_LOG_TO=tensorboard"):
        carry_out(tmp_path / "r")
    off = carry_out(tmp_path / "r", options={"plugins": {"run-log": {"to": None}}})
    assert "Run log" not in off.facts


@pytest.mark.parametrize("logger", ["trackio", "wandb"])
def test_a_logger_that_is_not_installed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, logger: str
) -> None:
    monkeypatch.setitem(sys.modules, logger, None)
    monkeypatch.setenv("VLMLENS_LOG_TO", logger)
    with pytest.raises(MissingDependency, match=f"needs {logger}, which is not") as caught:
        carry_out(tmp_path / "r")
    assert f"pip install 'vlmlens[{logger}]'" in caught.value.hint
    assert not (tmp_path / "r").exists()


def wandb_records(path: Path) -> Iterator[Any]:
    """The records of a .wandb file: a log of blocks of 32 KiB, as leveldb's, behind 7 bytes."""
    from wandb.proto import wandb_internal_pb2

    data, place, whole = path.read_bytes(), 7, b""
    while place + 7 <= len(data):
        if 32768 - place % 32768 < 7:
            place += 32768 - place % 32768
            continue
        size, kind = int.from_bytes(data[place + 4 : place + 6], "little"), data[place + 6]
        if place + 7 + size > len(data):
            return
        whole += data[place + 7 : place + 7 + size]
        place += 7 + size
        if kind in (1, 4):
            record = wandb_internal_pb2.Record()
            record.ParseFromString(whole)
            yield record
            whole = b""


def all_records(run: Path) -> list[Any]:
    """Of a run's only log, once wandb's own process has written the last of them."""
    (path,) = run.glob("plugins/wandb/offline-run-*/run-*.wandb")
    deadline = time.monotonic() + 60
    while True:
        found = list(wandb_records(path))
        if any(record.HasField("exit") for record in found):
            return found
        assert time.monotonic() < deadline, "wandb never wrote the end of the run"
        time.sleep(0.1)


def history(records: list[Any]) -> dict[str, list[float]]:
    found: dict[str, list[float]] = {}
    for record in records:
        for item in record.history.item:
            name = item.key or "/".join(item.nested_key)
            found.setdefault(name, []).append(json.loads(item.value_json))
    return found


def test_a_run_is_logged_to_wandb_offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("wandb")
    monkeypatch.delenv("WANDB_MODE", raising=False)
    logged: Mapping[str, Any] = {"plugins": {"run-log": {"to": "wandb", "project": "mine"}}}
    run = carry_out(tmp_path / "r", options=logged, analysis=["logit-lens"])
    assert run.facts["Run log"] == {"to": "wandb", "project": "mine", "name": "r"}
    records = all_records(run.path)
    told = history(records)
    assert told["extract/samples"] == [4.0, 8.0, 12.0]
    assert told["extract/share"][-1] == 1.0
    assert len(told["seconds/extract"]) == 1
    assert {f"logit-lens/{name}" for name in numbers_of(run)} <= set(told)
    (about,) = [record.run for record in records if record.run.project]
    assert (about.project, about.display_name) == ("mine", "r")
    config = {item.key: json.loads(item.value_json) for item in about.config.update}
    assert config["adapter"] == "demo"
    assert "storage" not in config["options"]
    assert [record.exit.exit_code for record in records if record.HasField("exit")] == [0]


def numbers_of(run: Run) -> set[str]:
    found = numbers(run.results["logit-lens"])
    assert found
    return {name.removeprefix("logit-lens/") for name in found}


def test_a_failed_run_is_logged_as_failed(tmp_path: Path) -> None:
    pytest.importorskip("wandb")
    registry = registered(Records(error=KeyboardInterrupt()))
    with pytest.raises(KeyboardInterrupt):
        carry_out(tmp_path / "r", registry, options={"plugins": {"run-log": {"to": "wandb"}}})
    ends = [r.exit.exit_code for r in all_records(tmp_path / "r") if r.HasField("exit")]
    assert ends == [1]


def test_a_run_is_logged_to_trackio_on_this_machine(tmp_path: Path) -> None:
    pytest.importorskip("trackio")
    import os
    import sqlite3

    environment = {**os.environ, "TRACKIO_DIR": str(tmp_path / "t"), "VLMLENS_LOG_TO": "trackio"}
    command = ["run", "--limit", "12", "--sites", "llm.block.*", "--analysis", "logit-lens"]
    done = subprocess.run(
        [sys.executable, "-m", "vlmlens", *command, "--out", "r", "--json"],
        capture_output=True, text=True, env=environment, cwd=tmp_path, check=True,
    )  # fmt: skip
    assert json.loads(done.stdout)["run"] == "r", "nothing else is printed"
    with sqlite3.connect(tmp_path / "t" / "vlmlens.db") as database:
        rows = database.execute("select run_name, metrics from metrics").fetchall()
    database.close()
    told = {name: value for _, said in rows for name, value in json.loads(said).items()}
    assert {name for name, _ in rows} == {"r"}
    assert told["extract/samples"] == 12.0
    assert told["failed"] == 0.0
    assert {f"logit-lens/{name}" for name in numbers_of(Run(tmp_path / "r"))} <= set(told)
