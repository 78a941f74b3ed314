"""scripts/check_checkpoints: its steps on tiny checkpoints, and processes that end badly."""

from __future__ import annotations

import io
import json
import os
import shutil
import signal
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from scripts.check_checkpoints import __main__ as command
from scripts.check_checkpoints import process, question, small_runs
from scripts.check_checkpoints.kit import run_kit
from scripts.check_checkpoints.listed import listed
from scripts.check_checkpoints.process import Ended, Job, done
from scripts.check_checkpoints.random_answers import preferred
from scripts.check_checkpoints.small_runs import Told, Tried
from scripts.check_checkpoints.tiny import write_tiny
from scripts.check_checkpoints.working import do_steps

from tests import _program
from vlmlens.abc import Generation, ModelAdapter
from vlmlens.registry import Registry
from vlmlens.samples import Sample
from vlmlens_adapter_llava.adapter import LlavaAdapter

LLAVA, CLIP = "llava-hf/llava-1.5-7b-hf", "openai/clip-vit-base-patch32"
BROKEN = "openai/clip-vit-base-patch16"
ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Tiny copies of two families, and one whose weights have another shape."""
    folder = tmp_path_factory.mktemp("models")
    chosen = listed(only=[LLAVA, CLIP])
    assert list(write_tiny(folder, chosen)) == [CLIP, LLAVA]
    config = (folder / LLAVA / "config.json").stat().st_mtime_ns
    assert list(write_tiny(folder, chosen)) == [CLIP, LLAVA]
    assert (folder / LLAVA / "config.json").stat().st_mtime_ns == config
    shutil.copytree(folder / CLIP, folder / BROKEN)
    _reshape(folder / BROKEN / "model.safetensors")
    return folder


def _reshape(path: Path) -> None:
    from safetensors.numpy import load_file, save_file

    weights = load_file(path)
    name = next(name for name in weights if name.endswith("out_proj.weight"))
    weights[name] = np.zeros((3, 5), np.float32)
    save_file(weights, path, metadata={"format": "pt"})


def _steps(model: Path, steps: Sequence[str], runs: Path, adapter: str = "llava") -> dict[str, Any]:
    """What steps tell, done in this process."""
    told = io.StringIO()
    job = {
        "adapter": adapter, "model": str(model), "device": "cpu", "dtype": "auto",
        "runs": str(runs), "full": False, "steps": list(steps),
    }  # fmt: skip
    do_steps(job, told)
    messages = [json.loads(line) for line in told.getvalue().splitlines()]
    assert [each["begin"] for each in messages[::2]] == list(steps)
    return {each["end"]: each for each in messages[1::2]}


# ------------------------------------------------------------------ the steps


def test_steps_pass_or_are_not_offered_as_the_family_says(models: Path, tmp_path: Path) -> None:
    llava = _steps(models / LLAVA, ["similarity", "question"], tmp_path)
    assert {name: each["outcome"] for name, each in llava.items()} == {
        "similarity": "passed", "question": "passed",
    }  # fmt: skip
    assert llava["similarity"]["data"]["findings"] > 0
    assert llava["question"]["data"]["expected"] == "red"
    assert not (tmp_path / "similarity").exists()
    clip = _steps(models / CLIP, ["logit-lens", "question"], tmp_path, "clip")
    assert clip["logit-lens"]["outcome"] == "not offered"
    assert "readout" in clip["logit-lens"]["text"]
    assert clip["question"]["outcome"] == "passed"
    assert clip["question"]["data"]["answer"].endswith(" square")


def test_a_broken_checkpoint_fails_each_step_and_says_why(models: Path, tmp_path: Path) -> None:
    lacking = tmp_path / "lacking"
    shutil.copytree(models / LLAVA, lacking)
    (lacking / "tokenizer.json").unlink()
    for model, adapter in ((models / BROKEN, "clip"), (lacking, "llava")):
        found = _steps(model, ["similarity", "question"], tmp_path / "runs", adapter)
        assert [each["outcome"] for each in found.values()] == ["failed", "failed"], model
        assert all("Checkpoint" in each["text"] for each in found.values()), found


def test_the_kit_tells_its_failed_checks(models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from vlmlens_adapter_llava.checks import LlavaChecks

    names = ["description", "generate"]
    monkeypatch.setattr(LlavaChecks, "checks", classmethod(lambda cls: names))
    good = run_kit(Registry.default(), "llava", str(models / LLAVA), "cpu")
    assert (good.outcome, good.text) == ("passed", "2 passed")
    monkeypatch.setattr(LlavaAdapter, "describe", lambda self: {})
    bad = run_kit(Registry.default(), "llava", str(models / LLAVA), "cpu")
    assert (bad.outcome, bad.data["passed"], list(bad.data["checks"])) == (
        "failed", 1, ["description"],
    )  # fmt: skip
    assert bad.text.startswith("1 passed, 1 failed: description: CheckFailed: describe() lacks")


class _Answering:
    """A model that answers with given tokens; the most probable one is always 7."""

    dtype = "float32"
    module = None

    def __init__(self, ids: Sequence[int]) -> None:
        self.ids = tuple(ids)

    def encode(self, samples: Any, **other: Any) -> Any:
        import torch

        return SimpleNamespace(inputs={"input_ids": torch.zeros(1, 2)})

    def generate(self, batch: Any, *, max_new_tokens: int) -> list[Generation]:
        return [Generation("A RED one", self.ids)]

    def forward(self, batch: Any, *, logits: str) -> Any:
        import torch

        return SimpleNamespace(logits=torch.nn.functional.one_hot(torch.tensor([7]), 9).float())


def test_an_answer_that_is_not_greedy_is_a_failure() -> None:
    vlm: Any = _Answering([7, 7])
    told = question._written(vlm)
    assert (told.outcome, told.data["right"]) == ("passed", True)
    vlm.ids = (7, 4)
    assert "token 1 is 4, and 7" in question._written(vlm).text
    vlm.ids = ()
    assert question._written(vlm).outcome == "failed"

    class Writing:
        def generate(self, **given: Any) -> Any:
            import torch

            return torch.tensor([[0, 0, 7, 3]])

    vlm.module, vlm.ids = Writing(), (7, 7)
    assert "transformers' generate gives [7, 3]" in question._written(vlm).text


def test_weights_left_changed_are_a_failure(
    models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from vlmlens_plugins.analysis.similarity import Similarity

    tried = Tried("llava", str(models / LLAVA), "cpu", "auto", Registry.default(), tmp_path, False)
    own = Similarity.run

    def damaging(self: Any, context: Any) -> Any:
        next(context.model().module.parameters()).data.add_(1)
        return own(self, context)

    monkeypatch.setattr(Similarity, "run", damaging)
    told = small_runs.run_analysis("similarity", tried)
    assert told == Told("failed", "it left the weights of the model changed")
    assert tried._loaded is None


def test_labels_of_random_weights_are_what_the_model_prefers(vlm: ModelAdapter) -> None:
    from vlmlens_plugins.demo.dataset import DemoDataset, DemoOptions

    pairs = DemoDataset("pairs", DemoOptions(pairs=3)).samples([])
    wrong = [Sample(**{**_fields(each), "label": "x"}) for each in pairs]
    found = preferred(vlm, wrong, 2)
    right = {each.id: each.label for each in pairs}
    assert len(found) == 4
    assert all(each.label == right[each.id] for each in found)
    assert [each.attributes["role"] for each in found] == ["clean", "corrupted"] * 2


def _fields(sample: Sample) -> dict[str, Any]:
    return {name: getattr(sample, name) for name in Sample.__dataclass_fields__}


# ------------------------------------------------------------------ processes

_FAKE = """
import json, os, signal, sys, time
job = json.loads(sys.stdin.readline())
def tell(**message):
    print(json.dumps(message), flush=True)
for name in job["steps"]:
    tell(begin=name)
    if name == "killed":
        os.kill(os.getpid(), signal.SIGKILL)
    if name == "ends":
        sys.exit(3)
    if name == "hangs":
        time.sleep(60)
    tell(end=name, outcome="passed", text=str(os.getpid()), data={})
"""


@pytest.fixture
def job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Job:
    """A job for a process that speaks as the real one does, and has steps that end badly."""
    (tmp_path / "fake.py").write_text(_FAKE)
    monkeypatch.setattr(process, "_COMMAND", (sys.executable, "-S", str(tmp_path / "fake.py")))
    return Job("x", "m", "cpu", "auto", tmp_path / "runs/m", tmp_path / "logs/m.log", 20, False)


def test_a_step_that_crashes_or_ends_leaves_the_others(job: Job) -> None:
    ended = list(done(job, ["a", "killed", "b", "ends", "c"]))
    assert [each.step for each in ended] == ["a", "killed", "b", "ends", "c"]
    assert [each.outcome for each in ended] == ["passed", "failed", "passed", "failed", "passed"]
    assert "SIGKILL" in ended[1].text
    assert "memory" in ended[1].text
    assert "code 3" in ended[3].text
    assert len({ended[i].text for i in (0, 2, 4)}) == 3


def test_a_step_that_hangs_is_stopped(job: Job) -> None:
    from dataclasses import replace

    ended = list(done(replace(job, limit=1), ["hangs", "a"]))
    assert [each.outcome for each in ended] == ["failed", "passed"]
    assert "longer than 1 s" in ended[0].text


def test_a_process_that_never_begins_fails_every_step(
    job: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(process, "_COMMAND", (sys.executable, "-S", "-c", "raise SystemExit(4)"))
    ended = list(done(job, ["a", "b"]))
    assert [(each.step, each.outcome) for each in ended] == [("a", "failed"), ("b", "failed")]


# ------------------------------------------------------------------ the command


def _in_this_process(job: Job, steps: Sequence[str]) -> Iterator[Ended]:
    told = _steps(Path(job.model), steps, job.runs, job.adapter)
    for name, each in told.items():
        yield Ended(name, each["outcome"], each["text"], each["data"], 0.0)


def test_a_broken_checkpoint_is_reported_and_the_others_go_on(
    models: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(command, "done", _in_this_process)
    given = [
        "--models", str(models), "--out", str(tmp_path / "out"), "--steps", "analyses,question",
        "--analyses", "weights", "--only", CLIP, "--only", BROKEN, "--only", LLAVA,
    ]  # fmt: skip
    assert command.main(given) == 1
    said = capsys.readouterr().out
    assert "3 checkpoints were run, 2 of them without a failure" in said
    assert f"failed: {BROKEN}, weights: Checkpoint" in said
    assert said.index(BROKEN) < said.index(LLAVA)
    assert said.count("not the full checkpoint") == 3
    state = tmp_path / "out/state"
    outcomes = {
        path.relative_to(state).as_posix(): json.loads(path.read_text())["outcome"]
        for path in state.glob("*/*.json")
    }
    assert outcomes.pop(f"{BROKEN.replace('/', '--')}/question.json") == "failed"
    assert outcomes.pop(f"{BROKEN.replace('/', '--')}/weights.json") == "failed"
    assert set(outcomes.values()) == {"passed"}
    assert len(outcomes) == 4
    assert command.main(given) == 1
    again = capsys.readouterr().out
    assert again.count("done before") == 4
    (models / CLIP / "README.md").write_text("A new file.")
    command.main(given)
    assert capsys.readouterr().out.count("done before") == 2


def test_a_killed_command_goes_on_where_it_was(models: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    code = (
        f"import sys; sys.path.insert(0, {str(ROOT)!r})\n"
        "from scripts.check_checkpoints.__main__ import main; sys.exit(main(sys.argv[1:]))"
    )
    arguments = [
        "--models", str(models), "--out", str(out), "--steps", "analyses,question",
        "--analyses", "similarity,weights", "--family", "llava",
    ]  # fmt: skip
    state = out / "state" / LLAVA.replace("/", "--")
    first, last = state / "similarity.json", state / "question.json"
    warm = {"VLMLENS_TEST_PYTHON": _program.worker_python()}
    with _program.started(*arguments, code=code, cwd=ROOT, **warm) as begun:
        begun.until(first.exists)
        os.kill(begun.pid, signal.SIGKILL)
        assert begun.wait() == -signal.SIGKILL
    kept = first.stat().st_mtime_ns
    assert not last.exists()
    again = _program.python(code, *arguments, cwd=ROOT)
    assert again.returncode == 0, again.stdout + again.stderr
    assert first.stat().st_mtime_ns == kept
    assert "similarity: passed" in next(
        line for line in again.stdout.splitlines() if "done before" in line
    )
    assert json.loads(last.read_text())["outcome"] == "passed"
