"""GPUs of workers: each its own, and none shared unless the user says so."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from vlmlens.errors import CompositionError
from vlmlens.registry import Registry
from vlmlens.runner import leased
from vlmlens.runner.execution import engine_of
from vlmlens.spec.model import make_spec
from vlmlens_plugins.engines import _gpus, environment, processes, ray
from vlmlens_plugins.engines._gpus import alone, check_enough, names_of, share
from vlmlens_plugins.engines._handout import WorkerOptions
from vlmlens_plugins.engines.environment import Environment, EnvironmentOptions
from vlmlens_plugins.engines.processes import Processes
from vlmlens_plugins.engines.ray import RayOptions


@pytest.fixture
def gpus(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Sets how many GPUs this machine seems to have."""
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)

    def have(count: int) -> None:
        for module in (_gpus, processes):
            monkeypatch.setattr(module, "number_of", lambda: count)

    have(0)
    return have


@pytest.mark.parametrize(
    ("each", "workers", "shares"),
    [
        (1.0, 3, ["a", "b", "c"]),
        (2.0, 2, ["ab", "cd"]),
        (0.5, 5, ["a", "a", "b", "b", "c"]),
        (0.3, 4, ["a", "a", "a", "b"]),
        (0.0, 2, ["", ""]),
    ],
)
def test_each_worker_has_its_share(each: float, workers: int, shares: list[str]) -> None:
    assert ["".join(share("abcd", number, each)) for number in range(workers)] == shares
    used = len(set("".join(shares)))
    check_enough(workers, each, used, str)
    if used:
        with pytest.raises(CompositionError, match=f"need {used} GPUs, and this machine has"):
            check_enough(workers, each, used - 1, str)


@pytest.mark.parametrize(
    ("settings", "count", "fits"),
    [
        ({"workers": "2"}, 2, True),
        ({"workers": "2"}, 1, False),
        ({"workers": "2", "gpus_per_worker": 0.5}, 1, True),
        ({"workers": "3", "gpus_per_worker": 0.5}, 1, False),
        ({"workers": "2", "gpus_per_worker": 2}, 3, False),
        ({"workers": "2", "gpus_per_worker": 0}, 1, True),
        ({"workers": "2"}, 0, True),
        ({"workers": "2", "gpus_per_worker": 1}, 0, False),
    ],
)
def test_two_workers_on_one_gpu_are_refused(
    gpus: Any, settings: dict[str, Any], count: int, fits: bool
) -> None:
    gpus(count)
    engine = Processes(WorkerOptions(**settings))
    if fits:
        engine.check()
        engine.check_gpus()
        return
    with pytest.raises(CompositionError, match="GPUs each need") as caught:
        engine.check_gpus()
    assert "--workers" in caught.value.hint
    assert "--gpus-per-worker 0.5" in caught.value.hint


def test_workers_on_the_cpu_may_outnumber_gpus(gpus: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    gpus(1)
    monkeypatch.setattr(leased, "on_gpu", lambda spec: spec.device != "cpu")
    settings = {"engine": "processes", "options": {"engine": {"workers": "2"}}}
    assert engine_of(make_spec({**settings, "device": "cpu"}), Registry.default())
    for device in ("auto", "cuda"):
        with pytest.raises(CompositionError, match="need 2 GPUs, and this machine has 1"):
            engine_of(make_spec({**settings, "device": device}), Registry.default())


@pytest.mark.parametrize(
    ("each", "sees"), [(None, ["0", "1"]), (0.5, ["0", "0"]), (0, ["", ""]), (2, ["0,1", "2,3"])]
)
def test_a_worker_sees_its_own_gpus_only(gpus: Any, each: float | None, sees: list[str]) -> None:
    gpus(4)
    engine = Processes(WorkerOptions(workers="2", gpus_per_worker=each))
    found = [engine._variables(number, 2)["CUDA_VISIBLE_DEVICES"] for number in range(2)]
    assert found == sees
    assert engine.on_gpus is (False if each == 0 else None)


@pytest.mark.parametrize(
    ("named", "seen"),
    [
        ("-1", []),
        ("NoDevFiles", []),
        ("2, 0", ["2", "0"]),
        ("1,-1,0", ["1"]),
        ("GPU-8932f937,MIG-GPU-1/2/0", ["GPU-8932f937", "MIG-GPU-1/2/0"]),
        ("", ["0", "1"]),
    ],
)
def test_what_the_environment_hides_is_no_gpu(
    gpus: Any, monkeypatch: pytest.MonkeyPatch, named: str, seen: list[str]
) -> None:
    gpus(2)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", named)
    assert _gpus.visible() == seen


def test_gpus_are_whole_or_a_part_of_one() -> None:
    for options in (WorkerOptions, EnvironmentOptions, RayOptions):
        assert options(gpus_per_worker=0.25).gpus_per_worker == 0.25
        with pytest.raises(ValidationError, match="write a whole one, or one below 1"):
            options(gpus_per_worker=1.5)


@pytest.mark.parametrize(
    ("each", "has", "device", "fits"),
    [
        (None, 1, "auto", False),
        (None, 1, "cpu", True),
        (None, 0, "auto", True),
        (None, 2, "cuda", True),
        (0.5, 1, "cuda", True),
        (0, 1, "auto", True),
    ],
)
def test_a_cluster_with_too_few_gpus(
    each: float | None, has: float, device: str, fits: bool
) -> None:
    options = RayOptions(workers="2:4", gpus_per_worker=each)
    if fits:
        ray._check_gpus(options, {"GPU": has}, device)
        return
    with pytest.raises(CompositionError, match="2 workers need a GPU each, and the cluster has 1"):
        ray._check_gpus(options, {"GPU": has}, device)


def test_an_actor_without_gpus_sees_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    ray._Actor(gpus=True)
    assert ray.os.environ["CUDA_VISIBLE_DEVICES"] == "0,1"
    ray._Actor(gpus=False)
    assert ray.os.environ["CUDA_VISIBLE_DEVICES"] == ""


# ---------------------------------------------------------------------- processes of others


def test_a_gpu_is_held_by_one_process_of_a_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with alone("run", ["GPU-1"]), alone("other run", ["GPU-1"]), alone("run", ["GPU-2"]):
        refused = pytest.raises(CompositionError, match=r"same run on this GPU \(GPU-1\)")
        with refused as caught, alone("run", ["GPU-3", "GPU-1"]):
            pytest.fail("it is held")
        assert "--gpus-per-task=1" in caught.value.hint
        with alone("run", ["GPU-3"]):
            pass
    with alone("run", ["GPU-1"]):
        pass


class Order:
    """A piece of work that is done."""

    order = {"spec": {"device": "cuda"}, "key": "k"}  # noqa: RUF012

    def names(self) -> list[str]:
        return []

    open = names


@pytest.mark.parametrize(("each", "held"), [(None, True), (1, True), (0.5, False)])
def test_a_part_holds_its_gpu_unless_it_may_share(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, each: float | None, held: bool
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setattr(environment, "names_of", lambda device: ["GPU-1"])
    engine = Environment(EnvironmentOptions(shard="0/2", gpus_per_worker=each))
    with alone("k", ["GPU-1"]):
        if held:
            with pytest.raises(CompositionError, match="same run on this GPU"):
                engine.run(Order())  # type: ignore[arg-type]
        else:
            engine.run(Order())  # type: ignore[arg-type]


def test_the_cpu_has_no_name() -> None:
    assert names_of("cpu") == []
