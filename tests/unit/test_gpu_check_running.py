"""How gpu_check runs checks: killed at their limit, one JSON line each, resumed after a cut.

The checks here are made up and import nothing; the real ones are in
`tests/end_to_end/test_gpu_check.py`.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
from scripts.gpu_check.listing import CHECKS, Check, absent, chosen
from scripts.gpu_check.outcome import Outcome
from scripts.gpu_check.place import ROOT, installed_by_hand, python_path, write_metadata
from scripts.gpu_check.records import Records
from scripts.gpu_check.running import Runner, counted

from vlmlens.manifest import PluginKind
from vlmlens.registry import Registry
from vlmlens.registry._installed import installed_points

FAKES = """
import os, signal, subprocess, sys, time

def good(trial):
    print("a library prints this")
    os.write(1, b"and this\\\\n")
    trial.note(process=os.getpid(), cells=3)

def hangs(trial):
    trial.note(before=1, started=subprocess.Popen(["sleep", "600"]).pid)
    time.sleep(600)

def dies(trial):
    os.kill(os.getpid(), signal.SIGKILL)

def leaves(trial):
    os._exit(7)

def raises(trial):
    raise KeyError("no such thing")

def expects(trial):
    trial.at_most("far", 0.5, 0.1)

def unlike(trial):
    trial.at_most("far", float("nan"), 0.1)

def lacks(trial):
    import surely_not_installed.inner

def asks(trial):
    from vlmlens.errors import MissingDependency
    raise MissingDependency("That needs x, which is not installed.", hint="pip install x")

def lacks_a_part(trial):
    import json.no_such_part

def own(trial):
    import vlmlens.no_such_module

def kills_all(trial):
    with open(__file__ + ".pid", "w") as file:
        file.write(str(os.getpid()))
    os.kill(os.getppid(), signal.SIGKILL)
    time.sleep(600)
"""


def fake(number: int, name: str, limit: float = 30.0, **more: object) -> Check:
    return Check(number, name, f"fakes:{name}", limit, "holds", **more)  # type: ignore[arg-type]


@pytest.fixture
def path(tmp_path: Path) -> str:
    (tmp_path / "fakes.py").write_text(FAKES, encoding="utf-8")
    return os.pathsep.join([str(ROOT), str(ROOT / "core"), str(tmp_path)])


@pytest.fixture
def runner(path: str, tmp_path: Path) -> Callable[..., Runner]:
    def made(device: str = "cpu", mistake: str = "", **more: float) -> Runner:
        given = {"device": device, "shape": "tiny", "folder": str(tmp_path), "mistake": mistake}
        return Runner(given, path, **more)

    return made


def run(runner: Runner, *checks: Check) -> list[Outcome]:
    found: list[Outcome] = []
    assert runner.run(checks, found.append) == []
    return found


def gone(pid: int) -> bool:
    """Whether a process ends within twenty seconds."""
    for _ in range(1000):
        with suppress(FileNotFoundError, ProcessLookupError):
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0]
            if state != "Z":
                time.sleep(0.02)
                continue
        return True
    return False


def test_a_hanging_check_is_killed_and_the_next_ones_run(runner: Callable[..., Runner]) -> None:
    first, hung, last = run(runner(), fake(1, "good"), fake(2, "hangs", 2.0), fake(3, "good"))
    assert [each.outcome for each in (first, hung, last)] == ["passed", "timeout", "passed"]
    assert hung.why == "killed after 2 s"
    assert hung.seconds >= 2
    assert hung.numbers["before"] == 1, "what was measured before is told"
    assert gone(hung.numbers["started"]), "what it started is killed too"
    assert first.numbers["process"] != last.numbers["process"]


def test_every_way_of_ending_is_told_and_nothing_else_stops(runner: Callable[..., Runner]) -> None:
    names = [
        "dies", "leaves", "raises", "expects", "unlike", "own", "lacks", "lacks_a_part", "asks",
        "good",
    ]  # fmt: skip
    found = run(runner(), *(fake(i, name) for i, name in enumerate(names)))
    words = {each.name: (each.outcome, each.why) for each in found}
    assert words["dies"] == ("failed", "its process was ended by SIGKILL")
    assert words["leaves"] == ("failed", "its process ended with code 7")
    assert words["raises"][0] == "failed"
    assert "KeyError: 'no such thing'" in words["raises"][1]
    assert words["expects"] == ("failed", "far is 0.5, at most 0.1")
    assert words["unlike"] == ("failed", "far is nan, at most 0.1")
    assert words["own"][0] == "failed"
    assert "vlmlens.no_such_module" in words["own"][1]
    assert words["lacks"] == ("skipped", "not installed: surely_not_installed")
    assert words["lacks_a_part"][0] == "failed", "json is installed"
    assert words["asks"][0] == "skipped"
    assert words["asks"][1].startswith("That needs x, which is not installed.")
    assert words["good"] == ("passed", "")
    assert counted(found) == {"passed": 1, "failed": 7, "skipped": 2, "timeout": 0}


def test_processes_are_shared_unless_a_check_on_a_gpu_wants_its_own(
    runner: Callable[..., Runner],
) -> None:
    checks = fake(1, "good"), fake(2, "good", alone=True), fake(3, "good")
    found = run(runner("cuda"), *checks)
    assert [each.number for each in found] == [1, 3, 2], "what needs its own comes last"
    one, again, own = (each.numbers["process"] for each in found)
    assert one == again != own
    assert gone(one), "it does not keep the GPU's memory"
    first = fake(0, "good"), fake(1, "good", alone=True), fake(2, "good")
    assert [each.number for each in run(runner("cuda"), *first)] == [0, 1, 2]
    assert len({each.numbers["process"] for each in run(runner(), *checks)}) == 1


def test_what_cannot_be_run_is_skipped_with_the_reason(runner: Callable[..., Runner]) -> None:
    checks = fake(1, "raises", cuda="it needs one"), fake(2, "raises", needs=("no_such_package",))
    on_cpu, lacking = run(runner(), *checks)
    assert (on_cpu.outcome, on_cpu.why) == ("skipped", "not on a CPU: it needs one")
    assert (lacking.outcome, lacking.why) == ("skipped", "not installed: no_such_package")
    assert run(runner("cuda"), checks[0])[0].outcome == "failed", "on a GPU it runs"
    assert absent(("json", "no_such_package")) == ["no_such_package"]


def test_time_for_all_is_kept_and_what_is_left_is_said(runner: Callable[..., Runner]) -> None:
    found: list[Outcome] = []
    checks = fake(1, "hangs"), fake(2, "good"), fake(3, "good")
    left = runner(total=1.5).run(checks, found.append)
    assert [(each.number, each.outcome) for each in found] == [(1, "timeout")]
    assert [each.number for each in left] == [2, 3]
    (slow,) = run(runner(limits=0.01), fake(1, "hangs", 30.0))
    assert slow.outcome == "timeout"
    (meant,) = run(runner(mistake="hang"), fake(1, "good", 0.3))
    assert meant.outcome == "timeout"


CUT = """
import sys
from scripts.gpu_check import __main__ as command
from scripts.gpu_check.listing import Check
names = sys.argv[1].split(",")
checks = tuple(Check(i, n, "fakes:" + n, 20.0, "holds") for i, n in enumerate(names))
command.chosen = lambda numbers: checks
command.absent = lambda: []
command.python_path = lambda folder: sys.argv[2]
sys.exit(command.main(["--device", "cpu", "--shape", "tiny", *sys.argv[3:]]))
"""


def command(path: str, names: str, *more: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", CUT, names, path, *more],
        env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True, check=False,
    )  # fmt: skip


def test_a_killed_run_goes_on_where_it_stopped(path: str, tmp_path: Path) -> None:
    out = tmp_path / "out" / "checks.jsonl"
    cut = command(path, "good,expects,lacks,kills_all,good", "--out", str(out))
    assert cut.returncode == -signal.SIGKILL
    assert gone(int((tmp_path / "fakes.py.pid").read_text())), "nothing goes on using the GPU"
    known = out.read_text()
    assert [json.loads(line)["number"] for line in known.splitlines()] == [0, 1, 2]
    assert known == cut.stdout, "each line was printed, too"
    with out.open("a") as file:
        file.write('{"number": 3, "name": "kil')
    rest = command(path, "good,expects,lacks,good,good", "--out", str(out), "--resume")
    lines = [Outcome.read(line) for line in rest.stdout.splitlines()]
    assert [(each.number, each.outcome) for each in lines] == [
        (2, "skipped"), (3, "passed"), (4, "passed"),
    ]  # fmt: skip
    assert rest.returncode == 1, "what failed before counts"
    assert "3 passed, 1 failed, 1 skipped" in rest.stderr
    assert set(Records(out).read("cpu", "tiny")) == {0, 1, 2, 3, 4}
    other = command(path, "good", "--out", str(out), "--resume", "--shape", "small")
    assert len(other.stdout.splitlines()) == 1, "outcomes of another shape do not count"
    assert other.returncode == 0


def test_a_stopped_run_leaves_no_folder(path: str, tmp_path: Path) -> None:
    room = tmp_path / "room"
    room.mkdir()
    environment = {**os.environ, "PYTHONPATH": path, "TMPDIR": str(room)}
    asked = [sys.executable, "-m", "scripts.gpu_check", "--only", "0", "--mistake", "hang"]
    with subprocess.Popen(asked, env=environment, cwd=ROOT, stderr=subprocess.DEVNULL) as running:
        for _ in range(1000):
            if list(room.glob("gpu-check-*")):
                break
            time.sleep(0.02)
        assert list(room.glob("gpu-check-*"))
        running.terminate()
        assert running.wait(60) == 128 + signal.SIGTERM
    assert not list(room.iterdir())


def test_a_run_without_time_says_so_by_its_exit_code(path: str) -> None:
    ended = command(path, "good", "--total-seconds", "0.5")
    assert (ended.returncode, ended.stdout) == (3, "")
    assert "no time was left for good: use --resume" in ended.stderr


def test_wrong_options_are_refused(path: str) -> None:
    for options, said in (
        (["--resume"], "give --out FILE"),
        (["--limits", "0"], "0 is not above 0"),
        (["--total-seconds", "-3"], "-3 is not above 0"),
        (["--shape", "70b"], "invalid choice"),
    ):
        ended = command(path, "good", *options)
        assert said in ended.stderr, options
        assert ended.returncode == 2
    assert [each.number for each in chosen("sae, 2,2")] == [2, 14]
    assert [each.number for each in chosen(None)] == list(range(len(CHECKS)))
    for wrong in ("17", "shearing", ",", "2.5"):
        with pytest.raises(ValueError, match="no check"):
            chosen(wrong)


def test_the_page_lists_the_checks_with_their_limits() -> None:
    page = (ROOT / "docs" / "gpu.md").read_text(encoding="utf-8")
    rows = [line.strip("| ").split(" | ") for line in page.splitlines() if line.startswith("|")]
    told = [(row[0], row[1], row[-1]) for row in rows if row[0].isdigit()]
    assert told == [(str(c.number), c.name, f"{c.limit:g}") for c in CHECKS]


def test_the_command_imports_no_torch() -> None:
    code = "import sys, scripts.gpu_check.__main__; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0


def test_outcomes_are_json_whatever_was_measured() -> None:
    numbers = {"far": float("inf"), "near": float("nan"), "rate": 1 / 3, "parts": {"a": (1, 2.0)}}
    made = Outcome(1, "x", "failed", 1 / 3, "holds", "cpu", "tiny", numbers, "line\nbreak")
    assert "\n" not in made.line()
    read = Outcome.read(made.line())
    assert read.numbers == {"far": "inf", "near": "nan", "rate": 0.33333, "parts": {"a": [1, 2.0]}}
    assert read.bad
    assert read.why == "line\nbreak"
    for wrong in ("", "3", "[]", "{}", '{"outcome": "passed"}', '{"outcome": "fine"}'):
        with pytest.raises(ValueError):  # noqa: PT011  JSON's own errors are of this class
            Outcome.read(wrong)


def test_a_checkout_that_is_not_installed_has_its_plugins(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert installed_by_hand(tmp_path) == []
    monkeypatch.setattr("scripts.gpu_check.place._installed", lambda name: False)
    paths = python_path(tmp_path / "metadata").split(os.pathsep)
    assert str(ROOT / "core") in paths
    assert str(tmp_path / "metadata") in paths
    assert installed_by_hand(tmp_path / "metadata") == ["vlmlens", "vlmlens_adapter_llava"]
    registry = Registry(installed_points([str(tmp_path / "metadata")]))
    assert registry.find(PluginKind.ADAPTER, "llava").name == "llava"
    assert registry.find(PluginKind.STORAGE, "lmdb").name == "lmdb"
    monkeypatch.setattr("scripts.gpu_check.place._installed", lambda name: True)
    assert str(tmp_path / "other") not in python_path(tmp_path / "other").split(os.pathsep)
    place = write_metadata(tmp_path, {"name": "a-b", "version": "3"})
    assert place.name == "a_b-3.dist-info"
    assert (place / "entry_points.txt").read_text() == ""
