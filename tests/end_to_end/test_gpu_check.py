"""The reduced form of gpu_check on a CPU: it passes, and each check fails where something is wrong.

How checks are killed, cut and resumed is in `tests/unit/test_gpu_check_running.py`.
"""

from __future__ import annotations

import json
import os
import signal
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from scripts.gpu_check import checkpoint
from scripts.gpu_check.checks import batches, copies, device_map, killing
from scripts.gpu_check.child import run
from scripts.gpu_check.listing import CHECKS, Check
from scripts.gpu_check.measuring import Syncs, apart, finite, typical
from scripts.gpu_check.place import ROOT
from scripts.gpu_check.setting import Setting
from scripts.gpu_check.shapes import SHAPES
from tests._program import python, started, worker_python

from vlmlens.abc.pending import columns_on_host

KILLING = 11
"""It starts a process that imports torch; here a fork of one that has is taken instead."""
HERE = [check for check in CHECKS if not check.cuda]
TOLD = ["machine"]
"""What compares nothing with the model under test."""
COMPARING = [check for check in HERE if check.name not in TOLD]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("gpu-check")


def tried(check: Check, setting: Setting) -> tuple[str, str, dict[str, Any]]:
    """The outcome of a check in this process, why, and the numbers."""
    numbers: dict[str, Any] = {}
    word, why = run(check.target, setting, lambda said: numbers.update(said.get("numbers", {})))
    return word, why, numbers


def forked(order: dict[str, Any]) -> int:
    code = (
        f"import json, sys; sys.path.insert(0, {str(ROOT)!r})\n"
        "from scripts.gpu_check import killed\n"
        "from vlmlens.extraction import write_buffer\n"
        "write_buffer._ROWS, killed._WRITTEN = 1, 0.1  # rows are stored at once, not after 2 s\n"
        "killed.run(json.loads(sys.argv[-1]))"
    )
    with started(json.dumps(order), cwd=ROOT, code=code) as program:
        return program.wait()


def test_the_reduced_form_passes_and_tells_each_check_in_a_line(folder: Path) -> None:
    out = folder / "out.jsonl"
    numbers = [str(check.number) for check in CHECKS if check.number != KILLING]
    asked = [
        "--device", "cpu", "--shape", "tiny", "--only", ",".join(numbers),
        "--folder", str(folder), "--out", str(out), "--limits", "20",
    ]  # fmt: skip
    code = "import sys; from scripts.gpu_check.__main__ import main; sys.exit(main())"
    warm = {"VLMLENS_TEST_PYTHON": worker_python(), "OMP_NUM_THREADS": "1"}
    ended = python(code, *asked, cwd=ROOT, strict=False, **warm)
    lines = [json.loads(line) for line in ended.stdout.splitlines()]
    assert ended.returncode == 0, [ended.stderr, lines]
    assert [str(line["number"]) for line in lines] == numbers
    assert out.read_text() == ended.stdout
    for line, check in zip(lines, (c for c in CHECKS if c.number != KILLING), strict=True):
        assert (line["name"], line["expected"]) == (check.name, check.expected)
        assert (line["device"], line["shape"]) == ("cpu", "tiny")
        if check.cuda:
            assert (line["outcome"], line["why"]) == ("skipped", f"not on a CPU: {check.cuda}")
        else:
            assert (line["outcome"], line["why"]) == ("passed", "")
            assert line["numbers"], check.name
    found = {line["name"]: line["numbers"] for line in lines}
    assert found["machine"]["packages"]["torch"] == torch.__version__
    assert found["float32"]["sites"] == 5
    assert found["batches"]["float32_cudnn_padded"] == "not available"
    assert found["batches"]["float32_flash_unpadded"] < 1e-4
    assert found["sharing"]["float32_beginnings_shared"] == 8
    assert found["throughput"]["256_tokens"]["of_bare"] > 0
    assert found["out-of-memory"]["halved"] >= 1
    assert found["sweep"]["cells"] == 2 * 3
    assert found["sweep"]["bit_equal_cells"] == 2 * 3


def test_a_killed_extraction_is_resumed_to_the_same_bits(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(killing, "ended", forked)
    (check,) = (check for check in CHECKS if check.number == KILLING)
    word, why, numbers = tried(check, Setting("cpu", SHAPES["tiny"], folder))
    assert (word, why) == ("passed", "")
    assert numbers["ended_by"] == -signal.SIGKILL
    assert 0 < numbers["stored_when_killed"] < numbers["samples"]
    monkeypatch.setattr(killing, "ended", lambda order: 0)
    word, why, _ = tried(check, Setting("cpu", SHAPES["tiny"], folder))
    assert (word, why) == ("failed", "the process was not killed in the middle")


@pytest.fixture(scope="module")
def wrong(folder: Path) -> Setting:
    return Setting("cpu", SHAPES["tiny"], folder, mistake="weight")


@pytest.mark.parametrize("check", COMPARING, ids=[check.name for check in COMPARING])
def test_a_wrong_weight_fails_each_check(
    check: Check, wrong: Setting, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(killing, "ended", forked)
    word, why, _ = tried(check, wrong)
    assert word == "failed", why
    assert any(said in why for said in ("at most", "not that of the file", "other bits")), why


def test_a_device_map_in_two_parts_has_each_weight_once(wrong: Setting) -> None:
    vlm = wrong.model("float32")
    parts = device_map._map(vlm)
    for name, _ in vlm.module.named_parameters():
        assert sum(name.startswith(f"{part}.") for part in parts) == 1, name
    late = [name for name, where in parts.items() if where == "cpu"]
    assert late == [vlm.sites.canonical["llm.block.1"].path]


def test_what_a_killed_process_left_of_a_checkpoint_is_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checkpoint, "write", lambda shape, folder, device: folder.mkdir())
    left = [tmp_path / f"model.{name}.part" for name in ("999999999", "x", str(os.getppid()))]
    for part in left:
        part.mkdir()
    made = checkpoint.made_checkpoint(SHAPES["tiny"], tmp_path / "model", "cpu")
    assert sorted(tmp_path.iterdir()) == sorted([made, left[2]])


def test_errors_of_cuda_are_no_backend_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    for said, told in (
        ("No available kernel. Aborting execution.", True),
        ("CUDA error: an illegal memory access. CUDA kernel errors might be reported later", False),
    ):

        def fail(*given: Any, said: str = said) -> None:
            raise RuntimeError(said)

        monkeypatch.setattr(batches, "rows", fail)
        if told:
            assert batches._tried(None, [], []) == "not available"
        else:
            with pytest.raises(RuntimeError, match="illegal"):
                batches._tried(None, [], [])


def test_only_synchronisations_are_counted() -> None:
    found = Syncs()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        warnings.warn("called a synchronizing CUDA operation", stacklevel=1)
        warnings.warn("Synchronization debug mode does not detect all synchronizing", stacklevel=1)
    found.add(caught)
    assert found.count == sum(found.places.values()) == 1


def test_a_copy_that_comes_too_early_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    assert copies.while_busy(torch.device("cpu"), 4)
    early = {"column/last": torch.zeros(25, 4096, dtype=torch.bfloat16)}
    monkeypatch.setattr(copies, "columns_on_host", lambda columns: columns_on_host(early))
    assert not copies.while_busy(torch.device("cpu"), 4)


def test_distances_see_shapes_sites_and_numbers_that_are_not_finite() -> None:
    rows = {"a": [torch.ones(3, 4), torch.ones(1, 4)]}
    off = {"a": [torch.ones(3, 4), torch.full((1, 4), 1.5)]}
    assert apart(rows, rows) == {"a": 0.0}
    assert apart(off, rows) == {"a": 0.5}
    assert typical(off, rows) == {"a": 0.125}
    nan = {"a": [torch.ones(3, 4), torch.full((1, 4), float("nan"))]}
    assert apart(nan, rows) == apart(rows, nan) == {"a": float("inf")}
    assert not finite(nan)
    assert apart({"a": [torch.ones(2, 4), torch.ones(1, 4)]}, rows) == {"a": float("inf")}
    assert apart({"b": rows["a"]}, rows) == {"a": float("inf"), "b": float("inf")}
